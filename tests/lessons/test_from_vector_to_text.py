"""From the last vector to text: scores for every word, softmax, temperature, sampling, and repeating."""

import numpy as np
import pytest
import torch

import train
from configs.schema import Config, DataConfig, OptimConfig, TrainConfig
from data.tokenizer import ByteTokenizer
from model import GPT, GPTConfig
from model.generate import Sampling, distribution, generate, next_logits, stream
from model.gpt import Unembedding
from tests.conftest import text_of
from training.learner import build_learner

LESSON_SCORES = torch.tensor([-0.8, -5.0, 0.5, 1.5, 3.4, -2.3, 2.5])
PROMPT = [3, 1, 4]


@pytest.fixture
def model() -> GPT:
    """Untrained, but with weights of size one, so that its opinions differ from word to word."""
    torch.manual_seed(0)
    config = GPTConfig(n_layer=1, n_head=2, n_embd=16, vocab_size=11, context_length=16, init="normal")
    return GPT(config).eval()


@pytest.fixture
def views(monkeypatch) -> list[list[int]]:
    """The text that the network predicts from, prediction by prediction."""
    read = []

    def predict(reader, texts, starts, cache):
        read.append(texts[0][starts[0] :])
        return next_logits(reader, texts, starts, cache)

    monkeypatch.setattr("model.generate.next_logits", predict)
    return read


def write(model: GPT, length: int = 8, seed: int = 0, **settings) -> list[int]:
    """What the network writes after PROMPT."""
    return generate(model, PROMPT, length, Sampling(**settings), torch.Generator().manual_seed(seed))


def test_L87_the_next_word_is_read_off_the_last_vector_alone(model, monkeypatch):
    """What is a GPT?: the unembedding turns only the last vector into the prediction."""
    final, words = torch.randn(1, 5, 16), torch.zeros(1, 5, dtype=torch.long)
    monkeypatch.setattr(model, "vectors", lambda tokens: final)
    prediction = model.next_logits(words)
    torch.testing.assert_close(prediction, final[:, 4] @ model.unembedding.weight.T)
    final[:, :4] = torch.randn(4, 16)
    assert torch.equal(model.next_logits(words), prediction)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_L87_training_reads_a_prediction_off_every_vector(dtype):
    """What is a GPT?: in training every vector of a text predicts the word that follows it, all at once."""
    config = Config(
        model=GPTConfig(n_layer=2, n_head=2, n_embd=16, vocab_size=257, context_length=6),
        data=DataConfig(path="none"),
        optim=OptimConfig(name="sgd", lr=1.0, weight_decay=0, grad_clip=0),
        train=TrainConfig(steps=1, batch_size=3, threads=1, device="cpu", dtype=dtype, compile="off"),
    )
    pupil = build_learner(config, text_of(["The quick brown fox jumps over the lazy dog."], ByteTokenizer(), 6))
    x, y = pupil.data.batch("train", 0, 3)
    costs = []
    for text, answers in zip(x, y, strict=True):
        for place, answer in enumerate(answers.tolist()):  # one prediction from each beginning of each text
            costs.append(-pupil.model.next_logits(text[None, : place + 1])[0].log_softmax(dim=-1)[answer])
    mean, before = torch.stack(costs).mean(), [p.detach().clone() for p in pupil.parameters]
    slopes = torch.autograd.grad(mean, pupil.parameters)
    near = {"float32": 1e-5, "bfloat16": 0.02}[dtype]
    assert train.update(pupil, 0)[0] == pytest.approx(mean.item(), rel=near)
    step = torch.cat([(old - new).detach().flatten() for old, new in zip(before, pupil.parameters, strict=True)])
    wanted = torch.cat([slope.flatten() for slope in slopes])
    assert (step - wanted).norm() < near * wanted.norm()


def test_L88_softmax_gives_the_lessons_probabilities():
    """What is a GPT?: softmax turns any list into a distribution, the largest near 1, the smallest near 0."""
    probabilities = Unembedding.probabilities(LESSON_SCORES).tolist()
    assert [round(p, 3) for p in probabilities] == [0.009, 0.000, 0.034, 0.092, 0.614, 0.002, 0.249]


def test_L88_scores_of_any_size_become_a_distribution():
    """What is a GPT?: softmax depends only on differences between scores, and large scores don't overflow."""
    scores = torch.stack([torch.linspace(-1e4, 1e4, 9), torch.arange(9.0)])
    probabilities = Unembedding.probabilities(scores)
    assert (probabilities >= 0).all()
    torch.testing.assert_close(probabilities.sum(dim=-1), torch.ones(2))
    torch.testing.assert_close(Unembedding.probabilities(scores + 512), probabilities)
    assert probabilities[0].tolist() == [0] * 8 + [1]


def test_L89_temperature_divides_the_scores():
    """What is a GPT?: a temperature of 5 gives less likely words a better chance, as in the lesson."""
    probabilities = Unembedding.probabilities(LESSON_SCORES, temperature=5).tolist()
    assert [round(p, 3) for p in probabilities] == [0.107, 0.046, 0.139, 0.170, 0.249, 0.080, 0.208]


def test_L89_the_coldest_temperature_leaves_the_likeliest_word():
    """What is a GPT?: as the temperature approaches 0, all probability moves to the largest score."""
    for temperature in (0, 1e-36):  # the second takes a score of 34,000 beyond what a float holds
        probabilities = Unembedding.probabilities(1e4 * LESSON_SCORES, temperature)
        assert probabilities.tolist() == [0, 0, 0, 0, 1, 0, 0]


def test_L89_no_temperature_changes_the_order_of_the_words():
    """What is a GPT?: a higher temperature makes words more equal, but never changes their order."""
    for temperature in (0.2, 1, 5, 100):
        probabilities = Unembedding.probabilities(LESSON_SCORES, temperature)
        assert probabilities.argsort().tolist() == LESSON_SCORES.argsort().tolist()
    torch.testing.assert_close(Unembedding.probabilities(LESSON_SCORES, 1e9), torch.full((7,), 1 / 7))


@torch.inference_mode()
def test_L90_top_k_shares_the_probability_among_the_k_likeliest(model):
    """What is a GPT?: top-k drops all but the k most likely words and keeps their proportions."""
    view = torch.tensor([PROMPT])
    everyone = distribution(model.next_logits(view)[0], Sampling(temperature=2))
    chosen = everyone >= everyone.sort(descending=True).values[2]
    expected = torch.where(chosen, everyone, 0) / everyone[chosen].sum()
    chosen_three = distribution(model.next_logits(view)[0], Sampling(temperature=2, top_k=3))
    torch.testing.assert_close(chosen_three, expected)


def test_L90_top_k_1_is_greedy(model):
    """What is a GPT?: top-k 1 always takes the most likely word, at any temperature."""
    assert write(model, top_k=1, temperature=50) == write(model, temperature=0)


def test_L91_a_seed_writes_the_same_text_again(model):
    """What is a GPT?: words are sampled at random, and the same seed gives the same words."""
    assert write(model, length=12, seed=1, temperature=5) == write(model, length=12, seed=1, temperature=5)
    assert write(model, length=12, seed=1, temperature=5) != write(model, length=12, seed=2, temperature=5)


def test_L91_words_come_as_often_as_their_probabilities_say(model):
    """What is a GPT?: the most likely word is not always chosen, only most often."""
    torch.nn.init.zeros_(model.norm.weight)  # the last vector is now the bias, whatever was read
    torch.nn.init.normal_(model.norm.bias, std=0.3)
    expected = (model.unembedding.weight @ model.norm.bias).softmax(dim=-1).detach().numpy()
    n = 200
    counts = np.bincount(write(model, length=n), minlength=11)
    assert (np.abs(counts - n * expected) < 4 * np.sqrt(n * expected * (1 - expected))).all()


def test_L92_temperature_0_takes_the_highest_score(model):
    """What is a GPT?: at temperature 0 each word is the one with the highest score."""
    text = list(PROMPT)
    for _ in range(8):
        text.append(int(model(torch.tensor([text]))[0, -1].argmax()))
    assert write(model, temperature=0) == text[len(PROMPT) :]


def test_L93_each_new_word_is_appended_and_read_again(model, views):
    """What is a GPT?: predict, sample, append, and predict again from the longer text."""
    new = write(model, length=5)
    assert views == [PROMPT + new[:length] for length in range(5)]


def test_L93_words_appear_one_by_one(model, views):
    """What is a GPT?: a word can be shown as soon as it is sampled, before the next is computed."""
    words = stream(model, PROMPT, 5)
    for shown in range(1, 6):
        next(words)
        assert len(views) == shown


def test_L94_logits_are_the_raw_scores(model):
    """What is a GPT?: a logit is the dot product of a vector and a word's row, of any size and sign."""
    tokens = torch.randint(11, (2, 5))
    vectors, words = model.vectors(tokens), model.unembedding.weight
    torch.testing.assert_close(model(tokens), torch.einsum("btc,vc->btv", vectors, words))

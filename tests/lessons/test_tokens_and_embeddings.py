"""From text to vectors: tokens, the embedding matrix, positions, and the context window."""

import math
from itertools import count

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from configs.schema import OptimConfig
from data.bpe import BPETokenizer
from data.tokenizer import ByteTokenizer, CharTokenizer, decode
from model import GPT
from model.attention import CausalSelfAttention, attention_pattern
from model.generate import Sampling, stream
from model.gpt import Block
from model.position import SinusoidalPosition
from tests.lessons.helpers_b import drawn, heads_of, pattern_by_hand, small, small_gpt, vectors
from training.loss import cross_entropy
from training.optim import build_optimizers

BYTES = [bytes([byte]) for byte in range(256)]
TEXT = torch.tensor([[3, 0, 5, 3, 9, 1, 5, 3]])


def learn_one_step(model: GPT, tokens: torch.Tensor) -> None:
    """One step of plain gradient descent on the next token."""
    [optimizer] = build_optimizers(model, OptimConfig(name="sgd", lr=1.0))
    cross_entropy(model(tokens[:, :-1]), tokens[:, 1:]).backward()
    optimizer.step()


@settings(max_examples=50, deadline=None)  # the first example imports tiktoken
@given(st.text())
def test_L50_any_text_survives_becoming_tokens(text: str):
    """What is a GPT?: text is cut into tokens without losing anything."""
    runs = BPETokenizer([*BYTES, b"th", b"he", b"the", b" the", "é".encode()], "gpt2")
    for tokenizer in (ByteTokenizer(), CharTokenizer(text + "?"), runs):
        assert decode(tokenizer, tokenizer.encode(text).tolist()) == text


def test_L50_a_word_carries_the_space_before_it():
    """What is a GPT?: a token is often a word with the space before it."""
    runs = BPETokenizer([*BYTES, b"th", b"the", b" the"], "gpt2")
    assert [runs.token_bytes(token) for token in runs.encode("the the").tolist()] == [b"the", b" the"]


def test_L51_the_number_of_a_token_means_nothing():
    """What is a GPT?: a token's id is only a name, so renaming all tokens changes no prediction."""
    model, renamed = small_gpt(context_length=11), small_gpt(context_length=11)
    new_name = torch.randperm(11, generator=torch.Generator().manual_seed(0))
    renamed.embedding.token.weight.data[new_name] = model.embedding.token.weight.data
    torch.testing.assert_close(renamed(new_name[TEXT])[..., new_name], model(TEXT))


def test_L52_a_one_hot_vector_times_the_matrix_is_the_lookup():
    """What is a GPT?: one-hot vectors have no similarity; the embedding turns them into vectors that do."""
    model = small_gpt()
    one_hot = F.one_hot(TEXT[0], 11).double()
    expected = one_hot @ model.embedding.token.weight + model.get_parameter("embedding.position.weight")
    torch.testing.assert_close(model.embedding(TEXT)[0], expected)
    alike = one_hot @ one_hot.T
    assert torch.equal(alike, (TEXT[0] == TEXT[0, :, None]).double())  # 1 for the same word, else 0


def test_L53_every_token_has_its_column_of_the_embedding_matrix():
    """What is a GPT?: the embedding matrix has one column for each token (PyTorch keeps it as a row)."""
    model = small_gpt()
    lessons_matrix = model.embedding.token.weight.T
    assert lessons_matrix.shape == (12, 11)
    torch.nn.init.zeros_(model.get_parameter("embedding.position.weight"))
    for place, token in enumerate(TEXT[0].tolist()):
        assert torch.equal(model.embedding(TEXT)[0, place], lessons_matrix[:, token])


def test_L54_the_vectors_of_the_words_that_occur_are_learned():
    """What is a GPT?: a word's column of the embedding matrix is learned from texts in which it occurs."""
    model = small_gpt(tied=False)
    before = model.embedding.token.weight.detach().clone()
    learn_one_step(model, TEXT)
    changed = (model.embedding.token.weight != before).any(dim=1)
    assert changed.nonzero().flatten().tolist() == sorted(set(TEXT[0, :-1].tolist()))


def test_L55_learning_changes_weights_and_running_changes_nothing():
    """What is a GPT?: the weights are learned; the data only flows through them."""
    model, text = small_gpt(bias=False), torch.arange(11).repeat(2)[None, :9]  # every place is used
    weights, tokens = {name: p.detach().clone() for name, p in model.named_parameters()}, text.clone()
    model(text[:, :-1])
    assert all(torch.equal(p, weights[name]) for name, p in model.named_parameters())
    learn_one_step(model, text)
    assert not any(torch.equal(p, weights[name]) for name, p in model.named_parameters())
    assert torch.equal(text, tokens)


def test_L56_a_score_is_a_dot_product_and_measures_alignment():
    """What is a GPT?: a dot product is positive for aligned, 0 for perpendicular, negative for opposed vectors."""
    unembedding = small_gpt().unembedding
    word = unembedding.weight[7].detach()
    aside = vectors(12)
    aside -= aside @ word / (word @ word) * word
    scores = unembedding(torch.stack((3 * word, aside, -word)))[:, 7]
    torch.testing.assert_close(scores, word @ word * torch.tensor([3.0, 0.0, -1.0], dtype=torch.float64))
    x = vectors(12)
    cosines = F.cosine_similarity(x, unembedding.weight, dim=-1)
    torch.testing.assert_close(unembedding(x), cosines * x.norm() * unembedding.weight.norm(dim=1))


def test_L59_a_vector_soaks_in_its_context_in_attention():
    """Attention, step by step: "mole" starts as the same vector in every sentence, then absorbs its context."""
    model = small_gpt()
    animal, amount = model.embedding(torch.tensor([[1, 2, 7], [3, 4, 7]]))
    assert torch.equal(animal[2], amount[2])
    for block in model.blocks:
        animal, amount = block(animal[None])[0], block(amount[None])[0]
        assert (animal[2] - amount[2]).abs().max() > 0.01


def test_L60_a_refined_vector_is_the_old_one_and_what_each_part_adds():
    """Attention, step by step: E' = E + ΔE, to which every head and the MLP contribute."""
    block = drawn(Block(small(bias=False)))
    x = vectors(5, 12)
    seen = block.norm_1(x)
    for head in heads_of(block.attention):
        x = x + pattern_by_hand(head, seen) @ seen @ head.value_down.T @ head.value_up.T
    x = x + block.mlp(block.norm_2(x))
    torch.testing.assert_close(block(vectors(1, 5, 12))[0], x)


def test_L61_the_context_is_as_long_as_it_is_and_no_longer():
    """What is a GPT?: the network accepts context_length tokens and refuses one more."""
    model = small_gpt()
    assert model(TEXT).shape == (1, 8, 11)
    with pytest.raises(ValueError, match="9 tokens exceed context_length=8"):
        model(torch.zeros(1, 9, dtype=torch.long))


@pytest.mark.parametrize("context", [4, 5])
def test_L61_past_the_context_the_window_jumps_on_by_half_of_it(context: int):
    """What is a GPT?: a text can be longer than the context; then the network doesn't see its beginning."""
    model, text = small_gpt(context_length=context), [3]
    for token in stream(model, text, 3 * context, Sampling(temperature=0)):
        start = next(start for start in count(0, context // 2) if len(text) - start <= context)
        assert token == model(torch.tensor([text[start:]]))[0, -1].argmax()
        text.append(token)


def test_L62_without_places_and_mask_a_text_is_a_bag_of_words():
    """Attention, step by step: attention has no notion of order; permuting the words permutes the result."""
    attention, x = drawn(CausalSelfAttention(small())), vectors(6, 12)
    order = torch.tensor([4, 2, 0, 5, 1, 3])

    def look_around(x: torch.Tensor) -> torch.Tensor:
        return attention_pattern(attention.query(x), attention.key(x), causal=False) @ attention.value(x)

    torch.testing.assert_close(look_around(x[order]), look_around(x)[order])


@pytest.mark.parametrize("position", ["learned", "sinusoidal", "rotary"])
def test_L62_with_places_the_order_of_the_words_matters(position: str):
    """What is a GPT?: "dog bites man" isn't "man bites dog": the vectors also encode the word's position."""
    model = small_gpt(n_layer=1, n_head=2, position=position)
    this, that = model.next_logits(torch.tensor([[1, 2, 3, 4], [3, 2, 1, 4]]))
    assert (this - that).abs().max() > 0.01
    for places in (*model.embedding.position.parameters(), *model.embedding.position.buffers()):
        places.data.zero_()
    model.blocks[0].attention.turn = None
    this, that = model.next_logits(torch.tensor([[1, 2, 3, 4], [3, 2, 1, 4]]))
    torch.testing.assert_close(this, that)


def test_L62_places_as_waves_are_sines_and_cosines():
    """What is a GPT?: PE(p, 2i) = sin(p / 10000^(2i/C)) and PE(p, 2i+1) = cos(the same), the original encoding."""
    waves = SinusoidalPosition(8, 6)(torch.arange(8))
    for p in range(8):
        for i in range(3):
            angle = p / 10_000 ** (2 * i / 6)
            assert waves[p, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-6)
            assert waves[p, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-6)


def test_L62_how_alike_two_waves_are_depends_on_their_distance_alone():
    """What is a GPT?: sinusoids encode relative positions: a dot product depends only on the distance."""
    waves = SinusoidalPosition(32, 12)(torch.arange(32))
    alike = waves @ waves.T
    for distance in range(32):
        diagonal = alike.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[0].expand_as(diagonal), rtol=0, atol=1e-5)

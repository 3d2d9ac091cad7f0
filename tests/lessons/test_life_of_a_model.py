"""Life of a model: it reads raw text, goes to school again with another, answers a prompt, and moves house."""

import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch

from configs.schema import DataConfig
from data.text import open_text
from model import GPT, GPTConfig
from training.checkpoint import sha256
from training.device import choose_device
from training.evaluate import evaluate
from training.loss import cross_entropy
from training.restore import restore
from training.run import read_log

FAST = """
    --model.n_layer 1 --model.tied False --optim.lr 0.02 --train.batch_size 16 --train.steps 60
    --train.eval_every 100 --log.sample_tokens 0
""".split()


@pytest.fixture
def base(shell, tiny, workplace) -> Path:
    """A run that has learned the poem."""
    assert shell("train.py", *tiny, *FAST, "--run", "base")[0] == 0
    return workplace / "runs/base"


@pytest.fixture
def tune(shell, tiny, poem, base):
    """A function that goes on with the poem read backwards, and returns the validation losses on that."""
    backwards = poem.with_name("backwards.txt")
    backwards.write_text(poem.read_text()[::-1])

    def run(steps: int) -> list[float]:
        words = ["--train.start", "base", "--data.path", backwards, "--run", "tuned", "--train.steps", steps]
        assert shell("train.py", *tiny, *FAST, *words)[0] == 0
        return [line["val_loss"] for line in read_log(base.with_name("tuned")) if "val_loss" in line]

    return run


def test_L99_reading_raw_text_teaches_more_than_how_common_letters_are(shell, tiny, workplace):
    """Life of a model: pre-training needs nothing but text; each next letter is the lesson and the answer."""
    assert shell("train.py", *tiny, *FAST, "--data.path", textwrap.__file__)[0] == 0
    val = open_text(DataConfig(path=textwrap.__file__), context_length=16, seed=0).tokens["val"][:]
    share = np.bincount(val)[np.unique(val)] / len(val)
    entropy = -(share * np.log(share)).sum()  # the best that can be done without looking at the context
    assert read_log(workplace / "runs/tiny")[-1]["val_loss"] < entropy


def test_L100_fine_tuning_begins_with_what_the_base_knows(base, tune, poem):
    """Life of a model: fine-tuning goes on from trained weights instead of random ones."""
    first = tune(steps=1)[0]
    trained = restore("base")
    data = open_text(DataConfig(path="backwards.txt"), context_length=16, seed=0, tokenizer=trained.tokenizer)
    expected = evaluate(trained.model, data, "val", cross_entropy)
    assert first == pytest.approx(expected.loss, rel=1e-6)


def test_L100_fine_tuning_teaches_the_new_text(tune):
    """Life of a model: a second, short training makes a trained network better at another text."""
    losses = tune(steps=50)
    assert losses[-1] < losses[0] - 0.5


def test_L100_fine_tuning_leaves_the_base_as_it_was(base, tune):
    """Life of a model: many networks can be fine-tuned from one, for not a byte of it changes."""
    before = {file: sha256(file) for file in base.rglob("*") if file.is_file()}
    tune(steps=70)
    assert {file: sha256(file) for file in base.rglob("*") if file.is_file()} == before


def test_L106_the_network_goes_on_from_its_prompt(shell, base):
    """Life of a model: a prompt is the beginning of a text, and the network writes what follows it."""
    trained = restore("base")
    for prompt in ("The quick", "liquor"):
        tokens = trained.tokenizer.encode(prompt).tolist()
        for _ in range(6):
            tokens.append(int(trained.model(torch.tensor([tokens]))[0, -1].argmax()))
        expected = "".join(trained.tokenizer.characters[token] for token in tokens)
        words = ["--prompt", prompt, "--temperature", 0, "--max-tokens", 6]
        assert shell("sample.py", "base", *words)[1] == expected + "\n"


@pytest.mark.parametrize(("gpu", "apple", "fastest"), [(1, 1, "cuda"), (0, 1, "mps"), (0, 0, "cpu")])
def test_L113_the_fastest_device_there_is_chosen(monkeypatch, gpu, apple, fastest):
    """Life of a model: a GPU is used where there is one, and the processor works everywhere."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: bool(gpu))
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: bool(apple))
    assert choose_device("auto") == fastest
    assert choose_device("cpu") == "cpu"


@pytest.mark.parametrize("position", ["learned", "sinusoidal"])
def test_L113_a_network_computes_where_its_weights_are(position):
    """Life of a model: all that a network computes with is on the device of its weights, whichever that is."""
    config = GPTConfig(n_layer=1, n_head=2, n_embd=8, vocab_size=5, context_length=4, position=position)
    model, tokens = GPT(config), torch.tensor([[3, 1, 4, 1]])
    logits = model(tokens)
    with torch.device("meta"):  # where a tensor that isn't told its place now goes, and is of no use
        torch.testing.assert_close(model(tokens), logits)

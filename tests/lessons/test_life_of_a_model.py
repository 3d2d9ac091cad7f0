"""Life of a model: pre-training, fine-tuning, LoRA, prompting, and the device it runs on."""

import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch

from configs.schema import DataConfig, LoRAConfig, OptimConfig
from data.text import open_text
from model import GPT, GPTConfig, build_model
from model.lora import merge_lora
from tests.lessons.helpers_b import drawn, small
from training.checkpoint import sha256
from training.device import choose_device
from training.evaluate import evaluate
from training.loss import cross_entropy
from training.optim import build_optimizers
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
    """Life of a model: pre-training needs nothing but text; each next letter is the target."""
    assert shell("train.py", *tiny, *FAST, "--data.path", textwrap.__file__)[0] == 0
    val = open_text(DataConfig(path=textwrap.__file__), context_length=16, seed=0).tokens["val"][:]
    share = np.bincount(val)[np.unique(val)] / len(val)
    entropy = -(share * np.log(share)).sum()  # the best that can be done without looking at the context
    assert read_log(workplace / "runs/tiny")[-1]["val_loss"] < entropy


def test_L100_fine_tuning_begins_with_what_the_base_knows(base, tune, poem):
    """Life of a model: fine-tuning starts from trained weights instead of random ones."""
    first = tune(steps=1)[0]
    trained = restore("base")
    data = open_text(DataConfig(path="backwards.txt"), context_length=16, seed=0, tokenizer=trained.tokenizer)
    expected = evaluate(trained.model, data, "val", cross_entropy)
    assert first == pytest.approx(expected.loss, rel=1e-6)


def test_L100_fine_tuning_teaches_the_new_text(tune):
    """Life of a model: a second, short training improves a trained network on another text."""
    losses = tune(steps=50)
    assert losses[-1] < losses[0] - 0.5


def test_L100_fine_tuning_leaves_the_base_as_it_was(base, tune):
    """Life of a model: many networks can be fine-tuned from one, which stays unchanged to the byte."""
    before = {file: sha256(file) for file in base.rglob("*") if file.is_file()}
    tune(steps=5)
    assert {file: sha256(file) for file in base.rglob("*") if file.is_file()} == before


@pytest.fixture
def adapted() -> GPT:
    """A small network with adapters of rank 3, before it has learned anything."""
    torch.manual_seed(0)
    return build_model(small(lora=LoRAConfig(rank=3, targets=["query", "value", "up"]))).eval()


TOKENS = torch.tensor([[3, 1, 4, 1, 5]])


def test_L101_with_fresh_adapters_a_network_is_what_it_was(adapted):
    """Life of a model: B starts at zero, so adapters add nothing until they are trained."""
    plain = GPT(small()).eval()
    plain.load_state_dict({name: p for name, p in adapted.state_dict().items() if "lora" not in name})
    assert torch.equal(adapted(TOKENS), plain(TOKENS))


def test_L101_the_adapters_learn_and_the_base_stands_still(adapted):
    """Life of a model: LoRA freezes the trained weights and trains two thin matrices next to each of them."""
    before = {name: p.detach().clone() for name, p in adapted.named_parameters()}
    optimizers = build_optimizers(adapted, OptimConfig(lr=0.1, weight_decay=0.1))
    for _ in range(2):  # in the first step only B has a gradient, for it is zero
        cross_entropy(adapted(TOKENS), TOKENS.roll(-1)).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    moved = {name for name, p in adapted.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {name for name in before if name.endswith(("lora_A", "lora_B"))}


def test_L101_merged_into_the_weights_adapters_give_the_same_scores(adapted):
    """Life of a model: W + (alpha / rank) B A is a plain matrix, so a merged adapter costs nothing at inference."""
    model = drawn(adapted)
    before = model(TOKENS)
    merge_lora(model)
    assert not any("lora" in name for name, _ in model.named_parameters())
    torch.testing.assert_close(model(TOKENS), before, rtol=0, atol=1e-10)


def test_L101_an_adapter_has_rank_times_inputs_plus_outputs_numbers(adapted):
    """Life of a model: a rank-r product has r (inputs + outputs) parameters, far fewer than inputs x outputs."""
    learning = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    assert learning == 2 * 3 * ((12 + 12) + (12 + 12) + (12 + 48))  # layers, rank, query and value and up


def test_L101_what_adapters_add_has_at_most_their_rank(adapted):
    """Life of a model: LoRA assumes that the change a task makes to a matrix has low rank."""
    model = drawn(adapted)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    merge_lora(model)
    matrices = {n: p for n, p in model.named_parameters() if n.startswith("blocks.0") and p.ndim == 2}
    ranks = {name: int(torch.linalg.matrix_rank(p - before[name], atol=1e-9)) for name, p in matrices.items()}
    targets = {f"blocks.0.{name}.weight" for name in ("attention.query", "attention.value", "mlp.layers.0")}
    assert ranks == {name: 3 if name in targets else 0 for name in matrices}


def test_L106_the_network_continues_its_prompt(shell, base):
    """Life of a model: a prompt is the beginning of a text, and the network continues it."""
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
    """Life of a model: a GPU is used if available, and the CPU always works."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: bool(gpu))
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: bool(apple))
    assert choose_device("auto") == fastest
    assert choose_device("cpu") == "cpu"


@pytest.mark.parametrize("position", ["learned", "sinusoidal", "rotary"])
def test_L113_a_network_computes_where_its_weights_are(position):
    """Life of a model: all tensors of a computation are on the device of the weights, whichever it is."""
    config = GPTConfig(n_layer=1, n_head=2, n_embd=8, vocab_size=5, context_length=4, position=position)
    model, tokens = GPT(config), torch.tensor([[3, 1, 4, 1]])
    logits = model(tokens)
    with torch.device("meta"):  # where a tensor that isn't told its place now goes, and is of no use
        torch.testing.assert_close(model(tokens), logits)

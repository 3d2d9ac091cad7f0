"""Weights in eight bits: how far they are from the weights, that nothing else is lost, and what their file weighs."""

import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from configs.errors import UserError
from model import GPT, GPTConfig
from model.generate import Sampling, grow, window_start
from model.quantize import bfloat16, dequantized, digits, quantize, quantize_rows
from training.evaluate import evaluate
from training.loss import cross_entropy
from training.prepare import open_data
from training.quantized import save_quantized
from training.restore import restore


def seeded(seed: int = 0) -> torch.Generator:
    """A source of luck."""
    return torch.Generator().manual_seed(seed)


def network(**settings) -> GPT:
    """A small GPT with weights of size one."""
    torch.manual_seed(0)
    sizes = {"n_layer": 2, "n_head": 2, "n_embd": 16, "vocab_size": 11, "context_length": 8, "init": "normal"}
    return GPT(GPTConfig(**{**sizes, **settings})).eval()


@settings(deadline=None)
@given(st.lists(st.lists(st.floats(-1e4, 1e4, width=32), min_size=3, max_size=3), min_size=1, max_size=5))
def test_a_weight_is_off_by_half_a_scale_at_most(rows):
    weight = torch.tensor(rows)
    numbers, scale = quantize_rows(weight)
    assert numbers.dtype == torch.int8 and numbers.abs().max() <= 127
    error = (numbers.double() * scale.double()[:, None] - weight.double()).abs()
    assert (error <= scale.double()[:, None] * (0.5 + 1e-5)).all()


@settings(deadline=None, max_examples=60)
@given(rows=st.integers(1, 9), n=st.integers(1, 40), k=st.integers(1, 70), size=st.sampled_from([1e-6, 1.0, 1e4]))
def test_the_product_is_that_of_the_whole_numbers_to_fourteen_bits(rows, n, k, size):
    luck = seeded(rows * n * k)
    numbers = torch.randint(-127, 128, (n, k), generator=luck, dtype=torch.int8)
    scale, x = torch.rand(n, generator=luck) + 0.1, torch.randn(rows, k, generator=luck) * size
    exact = (x.double() @ numbers.double().T) * scale.double()
    bound = x.abs().amax(dim=-1, keepdim=True) / (2 * 63 * 124) * numbers.abs().sum(dim=-1) * scale
    error = (digits(numbers, scale)(x).double() - exact).abs()
    assert (error <= 1.001 * bound + 1e-5 * exact.abs().max()).all()


def test_no_sum_of_the_largest_numbers_overflows():
    numbers = torch.full((3, 512), 127, dtype=torch.int8)
    numbers[1] = -127
    for x in (torch.ones(2, 512), -torch.ones(2, 512), torch.full((2, 512), 1e4)):
        torch.testing.assert_close(digits(numbers, torch.ones(3))(x), x @ numbers.float().T, rtol=2e-4, atol=0)


def test_zeros_stay_zero():
    assert digits(*quantize_rows(torch.zeros(3, 4)))(torch.randn(2, 4)).equal(torch.zeros(2, 3))
    assert digits(*quantize_rows(torch.randn(3, 4)))(torch.zeros(2, 4)).equal(torch.zeros(2, 3))


def test_a_row_does_not_depend_on_its_neighbours():
    weight, x = torch.randn(32, 48, generator=seeded()), torch.randn(9, 48, generator=seeded(1))
    x[3] *= 1000
    product = digits(*quantize_rows(weight))
    assert torch.cat([product(row[None]) for row in x]).equal(product(x))


@pytest.mark.parametrize("kernel", [digits, bfloat16, dequantized])
def test_every_kernel_computes_the_same(kernel):
    weight, x = torch.randn(96, 64, generator=seeded()), torch.randn(5, 64, generator=seeded(1))
    numbers, scale = quantize_rows(weight)
    wanted = F.linear(x, numbers * scale[:, None])
    assert (kernel(numbers, scale)(x) - wanted).norm() <= 0.01 * wanted.norm()


def test_making_and_using_the_kernel_warns_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        digits(*quantize_rows(torch.randn(4, 4)))(torch.randn(1, 4))


KINDS = [{}, {"tied": False}, {"bias": False}, {"norm": "post", "position": "sinusoidal"}, {"position": "rotary"}]


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("lengths", [[1], [8], [19], [1, 8, 3, 19, 7]], ids=str)
def test_with_a_cache_int8_says_what_it_says_without(kind, lengths):
    model = quantize(network(**kind))
    texts = [torch.randint(11, (length,), generator=seeded(length)).tolist() for length in lengths]
    for drawn in grow(model, texts, 12, Sampling(temperature=0)):
        for text, token, logits in drawn:
            view = texts[text][window_start(len(texts[text]), 8) :]
            expected = model.next_logits(torch.tensor([view]))[0]
            torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-3 * expected.abs().max().item())
            assert token == expected.argmax()
            texts[text].append(token)


def test_every_matrix_but_the_positions_is_int8_and_a_tied_one_stays_one():
    for tied in (True, False):
        model = quantize(network(tied=tied))
        kinds = {name: p.dtype for name, p in model.named_parameters() if p.ndim == 2}
        assert kinds.pop("embedding.position.weight") == torch.float32
        assert set(kinds.values()) == {torch.int8} and len(kinds) == 2 * 6 + 1 + (not tied)
        assert (model.unembedding.weight is model.embedding.token.weight) == tied


def test_a_quantised_network_is_the_one_with_rounded_weights():
    model, rounded = quantize(network()), network()
    with torch.no_grad():
        for layer in (m for m in rounded.modules() if isinstance(m, nn.Linear)):  # the embedding is tied to the last
            numbers, scale = quantize_rows(layer.weight)
            layer.weight.copy_(numbers * scale[:, None])
        tokens = torch.randint(11, (3, 8), generator=seeded())
        torch.testing.assert_close(
            model(tokens), rounded(tokens), rtol=2e-3, atol=2e-3 * rounded(tokens).abs().max().item()
        )


def test_a_layer_that_is_more_than_a_matrix_is_refused():
    class Adapted(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) + 1

    model = network()
    model.blocks[0].attention.query = Adapted(16, 16)
    with pytest.raises(ValueError, match="query has an adapter; merge it"):
        quantize(model)


def test_such_a_layer_is_read_as_it_is():
    class Adapted(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) + x

    model = network()
    model.blocks[0].attention.query = Adapted(16, 16)
    text = [1, 2, 3]
    for drawn in grow(model, [text], 12, Sampling(0)):
        view = text[window_start(len(text), 8) :]
        torch.testing.assert_close(drawn[0].logits, model.next_logits(torch.tensor([view]))[0], rtol=1e-4, atol=1e-4)
        text.append(drawn[0].token)


LEARNER = """
[model]
kind = "gpt"
n_layer = 2
n_head = 2
n_embd = 64
context_length = 32
[data]
path = "poem.txt"
[optim]
lr = 0.004
[train]
steps = 80
batch_size = 16
threads = 1
[log]
sample_tokens = 0
"""


@pytest.fixture
def learned(shell, poem) -> str:
    """A GPT that has learned the poem rather well."""
    (poem.parent / "learned.toml").write_text(LEARNER)
    assert shell("train.py", "learned.toml")[0] == 0
    return "learned"


def loss_of(run: str) -> float:
    """The validation loss of a run's best checkpoint."""
    restored = restore(run)
    config = restored.record.resolved
    data = open_data(config, restored.tokenizer)
    found = evaluate(restored.model, data, "val", cross_entropy, size=config.train.batch_size)
    assert found is not None
    return found.loss


def test_int8_costs_a_trained_network_less_than_two_hundredths_of_a_nat_and_weighs_a_quarter(shell, learned):
    saved = save_quantized(restore(learned), Path("runs/small"))
    before, after = loss_of(learned), loss_of("small")
    assert before < 1.5, "it has learned something that can be lost"
    assert after - before <= 0.02
    whole = restore(learned).checkpoint.folder / "model.safetensors"
    assert (saved / "model.safetensors").stat().st_size < 0.32 * whole.stat().st_size
    words = ["--prompt", "The ", "--seed", "3", "--max-tokens", "40"]
    assert shell("sample.py", "small", *words)[1] == shell("sample.py", learned, *words, "--quantize", "int8")[1]


def test_a_quantised_run_can_not_be_spoilt(shell, learned):
    save_quantized(restore(learned), Path("runs/small"))
    with pytest.raises(UserError, match="already has int8 weights"):
        save_quantized(restore("small"), Path("runs/smaller"))
    with pytest.raises(UserError, match="is not empty"):
        save_quantized(restore(learned), Path("runs/small"))
    code, out, err = shell("sample.py", "small", "--dtype", "bfloat16")
    assert (code, out) == (2, "") and "int8" in err and err.count("\n") == 1
    file = restore("small").checkpoint.folder / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert shell("sample.py", "small")[0] == 1

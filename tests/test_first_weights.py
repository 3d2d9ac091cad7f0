"""First weights: each parameter of both networks, and of adapters, falls as its definition says."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from configs.schema import LoRAConfig, MLPConfig
from model import GPTConfig, build_model
from model.lora import TARGETS, LoRALinear

SIZES = {"n_head": 2, "n_embd": 64, "vocab_size": 200, "context_length": 50}
RESIDUAL = ("attention.out.weight", "mlp.layers.1.weight")  # what is added to the residual stream


def is_normal(numbers: Tensor, std: float) -> None:
    """Mean, deviation and fourth moment of N(0, std), each within five standard errors."""
    n, z = numbers.numel(), numbers.detach().double().flatten() / std
    assert abs(float(z.mean())) < 5 / math.sqrt(n)
    assert abs(float(z.square().mean()) - 1) < 5 * math.sqrt(2 / n)
    assert abs(float(z.pow(4).mean()) - 3) < 5 * math.sqrt(96 / n)  # of a uniform distribution it is 1.8


def is_uniform(numbers: Tensor, bound: float) -> None:
    """All between -bound and bound, evenly: the edges are reached, mean and deviation within five standard errors."""
    n, u = numbers.numel(), numbers.detach().double().flatten() / bound
    assert u.abs().max() <= 1 + 1e-6 and u.max() > 1 - 20 / n and u.min() < -1 + 20 / n
    assert abs(float(u.mean())) < 5 * math.sqrt(1 / 3 / n)
    assert abs(float(u.square().mean()) - 1 / 3) < 5 * math.sqrt(4 / 45 / n)


def is_all(numbers: Tensor, value: float) -> None:
    """Every number is this one."""
    assert numbers.unique().tolist() == [value]


def network(config: MLPConfig | GPTConfig, seed: int = 0) -> dict[str, Tensor]:
    """The parameters of a new network by their names."""
    torch.manual_seed(seed)
    return dict(build_model(config).named_parameters())


@pytest.mark.parametrize("n_layer", [1, 2, 9])
@pytest.mark.parametrize(
    "settings", [{}, {"tied": False}, {"norm": "post"}, {"position": "rotary"}, {"activation": "relu"}], ids=str
)
def test_gpt_2_draws_matrices_from_n_0_02_and_what_feeds_the_residual_stream_over_the_root_of_its_terms(
    n_layer: int, settings: dict[str, Any]
):
    for name, p in network(GPTConfig(**SIZES, n_layer=n_layer, **settings)).items():
        if name.endswith("bias"):
            is_all(p, 0)
        elif "norm" in name:
            is_all(p, 1)
        else:
            is_normal(p, 0.02 / math.sqrt(2 * n_layer) if name.endswith(RESIDUAL) else 0.02)


@pytest.mark.parametrize(("init", "std"), [("normal", 1.0), ("zero", 0.0)])
def test_a_gpt_from_the_lessons_normal_distribution_or_from_zero_scales_no_matrix(init: str, std: float):
    for name, p in network(GPTConfig(**SIZES, n_layer=3, init=init)).items():
        if name.endswith("bias"):
            is_all(p, 0)
        elif "norm" in name:
            is_all(p, 1)
        elif std:
            is_normal(p, std)
        else:
            is_all(p, 0)


def test_a_digit_network_draws_weights_and_biases_from_one_over_the_root_of_its_inputs():
    found = network(MLPConfig(sizes=[784, 300, 200, 10]))
    for number, inputs in enumerate((784, 300, 200)):
        is_uniform(found[f"layers.{number}.weight"], 1 / math.sqrt(inputs))
        bias = found[f"layers.{number}.bias"]
        assert len(bias.unique()) == len(bias) and bias.abs().max() <= 1 / math.sqrt(inputs)
    is_uniform(torch.cat([network(MLPConfig(), seed)["layers.0.bias"] for seed in range(40)]), 1 / 28)


@pytest.mark.parametrize(("init", "std"), [("normal", 1.0), ("zero", 0.0)])
def test_a_digit_network_from_the_lessons_normal_distribution_or_from_zero_has_biases_like_its_weights(init, std):
    for p in network(MLPConfig(sizes=[784, 300, 200, 10], init=init)).values():
        if std and p.numel() > 100:
            is_normal(p, std)
        else:
            assert p.any() == bool(std)


@pytest.mark.parametrize("rank", [4, 16])
@pytest.mark.parametrize("target", TARGETS)
def test_an_adapters_a_is_drawn_as_a_layers_weights_are_and_b_is_zero(target: str, rank: int):
    found = network(GPTConfig(**SIZES, n_layer=2, lora=LoRAConfig(rank=rank, targets=[target])))
    inputs = 4 * 64 if target == "down" else 64
    drawn = [p for name, p in found.items() if name.endswith("lora_A")]
    assert [tuple(A.shape) for A in drawn] == [(rank, inputs)] * 2
    for A in drawn:
        is_uniform(A, 1 / math.sqrt(inputs))
    for name, p in found.items():
        if name.endswith("lora_B"):
            is_all(p, 0)


def test_an_adapters_a_falls_as_the_weights_of_pytorchs_layer_with_as_many_inputs():
    torch.manual_seed(0)
    layer = torch.nn.Linear(48, 32)
    A = torch.cat([LoRALinear(layer, 32, 1.0).lora_A.detach() for _ in range(30)]).flatten().sort().values
    W = torch.cat([torch.nn.Linear(48, 32).weight.detach() for _ in range(30)]).flatten().sort().values
    assert (A - W).abs().max() < 0.02 / math.sqrt(48) * 2  # the largest distance between two quantiles


def test_the_base_beside_adapters_is_drawn_as_if_there_were_none():
    plain = network(GPTConfig(**SIZES, n_layer=2))
    adapted = network(GPTConfig(**SIZES, n_layer=2, lora=LoRAConfig(rank=4)))
    assert {name for name in adapted if "lora" not in name} == plain.keys()
    assert all(torch.equal(p, adapted[name]) for name, p in plain.items())


@pytest.mark.parametrize(
    "config",
    [MLPConfig(), MLPConfig(init="normal"), GPTConfig(**SIZES, n_layer=3, lora=LoRAConfig(rank=4))],
    ids=["digits", "digits, normal", "text with adapters"],
)
def test_no_two_matrices_begin_alike_and_a_seed_is_all_that_they_depend_on(config):
    one, again, other = network(config), network(config), network(config, seed=1)
    assert all(torch.equal(p, again[name]) for name, p in one.items())
    drawn = {name: p.flatten() for name, p in one.items() if p.ndim == 2 and not name.endswith("lora_B")}
    assert not any(torch.equal(p, other[name].flatten()) for name, p in drawn.items())
    starts = {tuple(p[:8].div(p.abs().max()).tolist()) for p in drawn.values()}
    assert len(starts) == len(drawn)

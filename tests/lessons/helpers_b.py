"""Small networks with every weight drawn at random, and the four matrices of a head as the lessons draw them."""

import math
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from model import GPT, GPTConfig
from model.attention import CausalSelfAttention

Module = TypeVar("Module", bound=nn.Module)
SMALL = {"n_layer": 2, "n_head": 3, "n_embd": 12, "vocab_size": 11, "context_length": 8}


def small(**settings: Any) -> GPTConfig:
    """A GPT that runs in a millisecond: heads are narrower than the vectors, and no two sizes are equal."""
    return GPTConfig(**(SMALL | settings))


def drawn(module: Module) -> Module:
    """The module with every weight, bias and gain from N(0, 0.5): none is 0 or 1, so that none can go unnoticed.

    In float64, where two ways to the same number agree to 1e-7 and better.
    """
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5, generator=generator)
    return module.double().eval()


def small_gpt(**settings: Any) -> GPT:
    """A small GPT, drawn."""
    return drawn(GPT(small(**settings)))


def vectors(*shape: int, seed: int = 1) -> Tensor:
    """Random vectors in float64."""
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


class Head(NamedTuple):
    """One head's share of the four matrices; each is multiplied by a column vector, as in the lessons."""

    query: Tensor  # D x C
    key: Tensor  # D x C
    value_down: Tensor  # D x C
    value_up: Tensor  # C x D: the head's share of the output matrix


def heads_of(attention: CausalSelfAttention) -> list[Head]:
    """The heads one by one; biases are left out."""
    H = attention.n_head
    into = [layer.weight.chunk(H) for layer in (attention.query, attention.key, attention.value)]
    return [Head(*matrices) for matrices in zip(*into, attention.out.weight.chunk(H, dim=1), strict=True)]


def pattern_by_hand(head: Head, x: Tensor) -> Tensor:
    """Each word's weights on itself and the words before it, e to the power of the score over the row's sum."""
    queries, keys = x @ head.query.T, x @ head.key.T
    weights = (queries @ keys.T / math.sqrt(len(head.query))).exp().tril()
    return weights / weights.sum(dim=1, keepdim=True)

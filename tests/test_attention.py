"""Attention is the same whether its patterns are stored or not, and they are stored only where that is faster."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from configs.schema import GPTConfig
from model.attention import SHORT, CausalSelfAttention, attend

LENGTHS = [3, 7, SHORT, SHORT + 1]


def heads(length: int, dtype: torch.dtype = torch.bfloat16) -> list[Tensor]:
    """Queries, keys and values of two windows and two heads."""
    torch.manual_seed(length)
    return [torch.randn(2, 2, length, 16).to(dtype).requires_grad_() for _ in range(3)]


@pytest.mark.parametrize("length", LENGTHS)
def test_what_attention_finds_and_teaches_is_that_of_float64_but_for_bfloat16_s_rounding(length):
    rounded = heads(length)
    exact = [x.detach().double().requires_grad_() for x in rounded]
    found, expected = attend(*rounded), F.scaled_dot_product_attention(*exact, is_causal=True)
    direction = torch.randn(expected.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    taught = torch.autograd.grad(found, rounded, direction.bfloat16())
    for ours, theirs in zip(
        (found, *taught), (expected, *torch.autograd.grad(expected, exact, direction)), strict=True
    ):
        assert ours.dtype == torch.bfloat16
        assert (ours.double() - theirs).norm() <= 0.01 * theirs.norm()  # a rounding is 0.004 at the most


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_short_patterns_are_stored_for_the_way_back_in_bfloat16_and_no_others(length, dtype):
    largest = 0

    def keep(tensor: Tensor) -> Tensor:
        nonlocal largest
        largest = max(largest, tensor.numel() if tensor.shape[-2:] == (length, length) else 0)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        attend(*heads(length, dtype))
    assert largest == (4 * length**2 if dtype == torch.bfloat16 and length <= SHORT else 0)


def test_what_is_only_looked_at_takes_the_fused_kernel(monkeypatch):
    fused: list[int] = []
    kernel = F.scaled_dot_product_attention
    monkeypatch.setattr(
        F, "scaled_dot_product_attention", lambda *args, **more: fused.append(1) or kernel(*args, **more)
    )
    network = CausalSelfAttention(GPTConfig(vocab_size=9, n_layer=1, n_head=2, n_embd=8, context_length=4)).bfloat16()
    x = torch.randn(1, 4, 8).bfloat16()
    network(x).sum().backward()
    assert not fused
    with torch.no_grad():
        network(x)
    assert fused == [1]

"""Dropout on a CPU: the share that is asked for, each number on its own, and no other than training loses any."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.dropout import Dropout

COUNT = 2**18


def dropped(p: float, x: torch.Tensor, seed: int = 1) -> torch.Tensor:
    """What training makes of x."""
    torch.manual_seed(seed)
    return Dropout(p)(x)


@pytest.mark.parametrize("p", [2**-16, 0.1, 0.2, 0.5, 0.9, 0.99999])
def test_the_share_that_is_asked_for_is_zero_and_the_mean_stays(p):
    y = dropped(p, torch.ones(COUNT))
    spread = 5 * math.sqrt(COUNT * p * (1 - p))  # of a binomial distribution, five standard deviations
    assert abs(int((y == 0).sum()) - COUNT * p) < spread + COUNT * 2**-16  # p is rounded by less than 2^-16
    kept = y[y != 0]
    assert (kept == kept[:1]).all() and abs(float(y.double().sum()) - COUNT) < (spread + 1) / (1 - p)


def test_the_four_numbers_of_one_draw_fall_as_if_each_were_alone():
    zero = (dropped(0.5, torch.ones(COUNT)) == 0).view(-1, 4)
    codes = (zero * torch.tensor([1, 2, 4, 8])).sum(dim=1).bincount(minlength=16)
    draws = COUNT // 4
    assert (codes - draws / 16).abs().max() < 5 * math.sqrt(draws / 16 * 15 / 16)
    neighbours = zero[1:] == zero[:-1]  # of the next draw
    assert abs(int(neighbours.sum()) - neighbours.numel() / 2) < 5 * math.sqrt(neighbours.numel()) / 2


@given(shape=st.lists(st.integers(0, 5), max_size=4), seed=st.integers(0, 2**32))
def test_any_shape_keeps_it_and_a_seed_repeats_it(shape, seed):
    x = torch.ones(shape, dtype=torch.bfloat16)
    first, again = dropped(0.5, x, seed), dropped(0.5, x, seed)
    assert first.shape == x.shape and first.dtype == x.dtype and first.equal(again)
    assert set(first.flatten().tolist()) <= {0.0, 2.0}


def test_the_gradient_takes_the_way_of_what_was_kept():
    x = torch.randn(1000, requires_grad=True)
    y = dropped(0.3, x)
    y.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad * x, y)
    assert 0 < int((x.grad == 0).sum()) < 1000


def test_outside_of_training_and_where_nothing_is_to_fall_all_stays():
    x = torch.randn(64)
    assert Dropout(0.5).eval()(x) is x and dropped(0.0, x).equal(x)
    assert dropped(1.0, x).equal(torch.zeros(64))  # as torch's


def test_compiled_it_is_a_part_of_the_whole_graph():
    layers = torch.nn.Sequential(Dropout(0.25), torch.nn.Flatten(0))
    y = torch.compile(layers, backend="eager", fullgraph=True)(torch.ones(40, 1000))  # raises where the graph breaks
    assert 0.2 < float((y == 0).float().mean()) < 0.3

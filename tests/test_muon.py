"""Our Muon takes the steps of torch's, all matrices of a shape at once."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from torch import nn

from configs.schema import Config
from data.tokenizer import ByteTokenizer
from tests.conftest import text_of
from training import muon
from training.learner import build_learner
from training.muon import POLYNOMIALS, Muon, orthogonal, orthogonal_together

SHAPES = [(6, 6), (6, 6), (12, 6), (6, 12), (12, 6)]


def matrices() -> list[nn.Parameter]:
    """Some matrices, the same every time."""
    generator = torch.Generator().manual_seed(3)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


def test_with_torch_s_polynomial_five_steps_are_those_of_torch_within_its_bfloat16(torch_s_polynomial):
    ours, theirs = matrices(), matrices()
    a = Muon([{"params": ours, "lr": 0.02}], momentum=0.9, weight_decay=0.1)
    b = torch.optim.Muon(theirs, lr=0.02, momentum=0.9, weight_decay=0.1)
    generator = torch.Generator().manual_seed(4)
    for _ in range(5):
        for p, q in zip(ours, theirs, strict=True):
            p.grad = torch.randn(p.shape, generator=generator)
            q.grad = p.grad.clone()
        before = copy.deepcopy(theirs)
        a.step()
        b.step()
        for p, q, r in zip(ours, theirs, before, strict=True):
            # Eight bits, magnified by the iteration's slope: a twentieth of the step's length.
            assert (p - q).norm() < 0.05 * (q - r).norm() + 1e-6
            q.data.copy_(p.data)
        for p, q in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a.state[p]["momentum_buffer"], b.state[q]["momentum_buffer"])


def test_each_polynomial_is_the_closest_to_one_for_all_that_the_one_before_leaves():
    """Found again by linear programming: the least t with |1 - a x - b x³ - c x⁵| <= t all over it; then stretched."""
    low, high = 1e-3, 1.0
    for polynomial in POLYNOMIALS:
        x = np.concatenate([np.geomspace(low, high, 2000), np.linspace(low, high, 2000)])
        powers, one = np.stack([x, x**3, x**5], axis=1), np.ones((len(x), 1))
        bounds = np.block([[powers, -one], [-powers, -one]])
        best = linprog([0, 0, 0, 1], bounds, np.concatenate([one, -one]), bounds=(None, None)).x
        np.testing.assert_allclose(polynomial, best[:3] / 1.02 ** np.array([1, 3, 5]), rtol=2e-3)
        low, high = 1 - best[3], 1 + best[3]
    assert 0.45 < low < high < 1.55


@pytest.mark.parametrize("shape", [(1, 1, 64), (1, 8, 512), (1, 128, 128)])
@pytest.mark.parametrize("rank", [1, 2])
def test_in_bfloat16_no_matrix_explodes_however_low_its_rank(shape, rank):
    """Rank one means a singular value of 1, at the interval's end, and rounding leads beyond it."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        left, right = (
            torch.randn(1, shape[1], rank, generator=generator),
            torch.randn(1, rank, shape[2], generator=generator),
        )
        assert torch.linalg.matrix_norm(orthogonal((left @ right).bfloat16()).float(), 2) < 1.6


def test_a_step_in_bfloat16_is_that_of_float32_but_for_its_rounding():
    """Over matrices of a network's size, where it averages out: 0.02 to 0.04 of the step's length over 40 seeds."""
    generator = torch.Generator().manual_seed(5)
    for shape in [(128, 128), (512, 128), (256, 1024)]:
        gradient, steps = torch.randn(shape, generator=generator), []
        for dtype in (torch.float32, torch.bfloat16):
            p = nn.Parameter(torch.zeros(shape))
            p.grad = gradient.clone()
            Muon([{"params": [p], "lr": 1.0}], 0.9, 0.0, dtype).step()
            assert p.dtype == torch.float32
            steps.append(p.detach())
        assert 0 < (steps[1] - steps[0]).norm() < 0.05 * steps[0].norm()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_run_makes_its_steps_orthogonal_in_its_own_precision(monkeypatch, dtype):
    network = {"kind": "gpt", "n_layer": 1, "n_head": 1, "n_embd": 8, "context_length": 4, "vocab_size": 256}
    run = {"dtype": dtype, "threads": 1, "steps": 1, "device": "cpu"}
    config = Config.model_validate(
        {"model": network, "data": {"path": "none"}, "optim": {"name": "muon"}, "train": run}
    )
    learner = build_learner(config, text_of(["a few letters"], ByteTokenizer(), context_length=4))
    seen = []
    monkeypatch.setattr(muon, "orthogonal", lambda some: seen.append(some.dtype) or orthogonal(some))
    for p in learner.parameters:
        p.grad = torch.ones_like(p)
    for optimizer in learner.optimizers:
        optimizer.step()
    assert set(seen) == {getattr(torch, dtype)}


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 20, 5), (2, 5, 20)])
def test_singular_values_become_about_one_and_directions_stay(shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    u, s, v = torch.linalg.svd(x, full_matrices=False)
    y = orthogonal(x)
    inside = u.mT @ y @ v.mT
    assert torch.allclose(inside, torch.diag_embed(inside.diagonal(dim1=-2, dim2=-1)), atol=1e-9)
    found = inside.diagonal(dim1=-2, dim2=-1)[s > 1e-3 * s.norm(dim=-1, keepdim=True)]
    # Stretched by 2 %, they take 0.001 to 0.4205.
    assert len(found) >= 10 and found.min() > 0.42 and found.max() < 1.55


def test_one_matrix_doesnt_depend_on_its_neighbours():
    alone, among = matrices()[:1], matrices()
    for p in [*alone, *among]:
        p.grad = torch.ones_like(p).cumsum(0).sin()
    Muon([{"params": alone, "lr": 0.1}], 0.9, 0.0).step()
    Muon([{"params": among, "lr": 0.1}], 0.9, 0.0).step()
    torch.testing.assert_close(alone[0], among[0])


@pytest.mark.parametrize(("count", "size"), [(5, 2), (4, 4), (2, 3), (1, 2)])
def test_processes_divide_the_matrices_and_all_get_what_one_would_have_found(monkeypatch, count, size):
    """Their sum, which is what all_reduce leaves with each; test_parallel.py has real processes take the same step."""
    given = torch.randn(count, 6, 4, generator=torch.Generator().manual_seed(2))
    taken: list[int] = []
    monkeypatch.setattr(muon, "orthogonal", lambda some: taken.append(len(some)) or orthogonal(some))
    total = torch.zeros_like(given)
    for rank in range(size):
        process = {"is_available": True, "is_initialized": True, "get_rank": rank, "get_world_size": size}
        asked = {name: lambda answer=answer: answer for name, answer in process.items()}
        monkeypatch.setattr(muon, "dist", SimpleNamespace(**asked, all_reduce=total.add_))
        orthogonal_together(given)
    assert torch.equal(total, orthogonal(given))
    assert sum(taken) == count and max(taken) - min(taken) <= 1

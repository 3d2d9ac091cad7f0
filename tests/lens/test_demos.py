"""What the demos show is so: the lessons' numbers, the bounds, autograd."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from lens import demos
from tests.lessons import helpers_a as lessons


def test_softmax_of_the_lessons_scores_is_the_lessons_table():
    one, five = demos.softmax_at((1, 5))
    assert [round(p, 3) for p in one.tolist()] == [0.009, 0.000, 0.034, 0.092, 0.614, 0.002, 0.249]
    assert [round(p, 3) for p in five.tolist()] == [0.107, 0.046, 0.139, 0.170, 0.249, 0.080, 0.208]
    assert demos.softmax_at((0,))[0].tolist() == [0, 0, 0, 0, 1, 0, 0]


def test_each_step_goes_against_the_slope_that_finite_differences_measure():
    way = demos.descend((1.5, -1.0), 0.05, 5)
    assert way.shape == (6, 2)
    for w, after in pairwise(way):
        w, e = w.double(), 1e-5
        slope = [(demos.surface(w + e * d) - demos.surface(w - e * d)) / (2 * e) for d in torch.eye(2).double()]
        torch.testing.assert_close(after.double(), w - 0.05 * torch.stack(slope), atol=1e-5, rtol=1e-5)


def test_small_steps_go_down_steadily_and_end_in_the_valley_they_started_in():
    left, right = demos.descend((-1.8, -1.5), 0.02, 300), demos.descend((2.0, 1.5), 0.02, 300)
    for way in (left, right):
        costs = demos.surface(way)
        assert (costs[1:] <= costs[:-1]).all()
    assert left[-1].tolist() == pytest.approx([-1.03, 0], abs=0.01)
    assert right[-1].tolist() == pytest.approx([0.97, 0], abs=0.01)
    assert demos.surface(left[-1]) < demos.surface(right[-1]) - 0.4  # the valley is local


def test_steps_that_are_too_large_leap_from_side_to_side_or_away():
    costs = demos.surface(demos.descend((0.4, 1.8), 0.3, 40))
    assert (costs[1:] > costs[:-1]).any()
    assert len(demos.descend((2.5, 0), 0.3, 40)) == 1


@pytest.mark.parametrize(("dimensions", "degrees"), [(100, 5.73), (768, 2.07), (12_288, 0.52)])
def test_L86_random_directions_are_within_degrees_of_perpendicular(dimensions, degrees):
    """How LLMs store facts: in many dimensions nearly all directions are nearly perpendicular, so independent."""
    found = demos.random_angles(dimensions, vectors=120)
    assert len(found) == 120 * 119 // 2
    assert float(found.mean()) == pytest.approx(90, abs=0.3)
    assert float(found.std()) == pytest.approx(degrees, rel=0.05)


def test_angles_are_those_of_trigonometry():
    vectors = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0], [1.0, 1.0]])
    assert demos.angles(vectors).tolist() == pytest.approx([90, 180, 45, 90, 45, 135], abs=0.03)


def test_L86_at_most_103_vectors_in_100_dimensions_are_within_a_degree_of_perpendicular():
    """How LLMs store facts: more than d directions fit only with a few degrees of tolerance; one is too little."""
    assert demos.most_vectors(100, 1) == 103
    assert demos.welch_degrees(103, 100) < 1 < demos.welch_degrees(104, 100)
    assert demos.welch_degrees(10_000, 100) > 5.7
    assert demos.welch_degrees(100, 100) == 0 and demos.most_vectors(12_288, 1) == 0  # 1 / √d is below a degree


def test_the_bound_is_met_where_it_can_be():
    simplex = torch.eye(5) - 0.2  # five vectors in four dimensions, all equally far apart
    assert float((demos.angles(simplex) - 90).abs().max()) == pytest.approx(demos.welch_degrees(5, 4), abs=1e-3)
    assert demos.most_vectors(4, demos.welch_degrees(5, 4)) == 5


def worst(vectors: Tensor) -> float:
    """Degrees that the worst pair is off by."""
    return float((demos.angles(vectors) - 90).abs().max())


def test_the_first_cost_makes_nearly_all_pairs_perpendicular_and_some_the_same_line():
    random, hinged, packed = (
        demos.pack(120, 20, cost, steps=steps)
        for cost, steps in ((demos.hinge, 0), (demos.hinge, 200), (demos.high_power, 200))
    )
    near = [float(((demos.angles(v) - 90).abs() < 1).float().mean()) for v in (random, hinged, packed)]
    assert near[1] > 0.8 > 0.2 > max(near[0], near[2])  # a histogram of 89 to 91 degrees looks perfect
    assert worst(hinged) > 80  # the whole axis doesn't
    assert demos.welch_degrees(120, 20) < worst(packed) < worst(random) / 2 < worst(hinged)
    torch.testing.assert_close(packed.norm(dim=1), torch.ones(120))


def test_L85_the_fact_neuron_answers_to_michael_jordan_alone():
    """How LLMs store facts: one neuron can turn "Michael Jordan", but neither name alone, into "basketball"."""
    found = demos.fact_neuron(128, perpendicular=True)
    assert found.basketball.tolist() == pytest.approx([1, 0, 0, 0], abs=1e-5)
    assert found.activations.tolist() == pytest.approx([1, 0, 0, 0], abs=1e-5)


@pytest.mark.parametrize("dimensions", [128, 12_288])
def test_L85_with_random_directions_a_little_leaks_as_little_as_one_over_the_root_of_the_dimensions(dimensions):
    """How LLMs store facts: if directions are only nearly perpendicular, a fact leaks a little into others."""
    found = torch.stack([demos.fact_neuron(dimensions, False, seed).basketball for seed in range(20)])
    off = (found - torch.tensor([1.0, 0, 0, 0])).abs()
    assert 0.2 < float(off.mean()) * math.sqrt(dimensions) < 2


def some(count: int) -> tuple[Tensor, Tensor]:
    """Digits that are always at hand."""
    x, y = lessons.digits()["train"]
    return x[:count].float() / 255, y[:count].long()


def test_from_zero_all_neurons_of_a_layer_stay_the_same_to_the_last_bit():
    x, y = some(300)
    zero, uniform = (demos.learn(init, x, y, steps=60) for init in ("zero", "uniform"))
    for layer in zero.model.layers[:2]:
        assert layer.weight.any() and (layer.weight == layer.weight[:1]).all()
    assert len(uniform.model.layers[0].weight.unique(dim=0)) == 16
    assert zero.accuracy[-1] < 0.4 < 0.9 < uniform.accuracy[-1]


def test_weights_from_n01_leave_most_sigmoids_fully_on_or_off():
    x, _ = some(300)
    assert demos.saturated(demos.first_activations("normal", x)) > 0.6
    assert demos.saturated(demos.first_activations("uniform", x)) < 0.05
    assert demos.saturated(torch.tensor([0.04, 0.05, 0.5, 0.95, 0.96])) == pytest.approx(0.4)


@pytest.mark.parametrize("activation", ["sigmoid", "relu"])
def test_gradients_vanish_in_twenty_layers_and_residuals_carry_them(activation):
    without, carried = (demos.layer_lengths(activation, residual) for residual in (False, True))
    assert len(without) == 20
    assert without[0] < 1e-9 * without[-1] and math.isfinite(without[0])
    assert 0.3 < carried[0] / carried[-1] < 3

"""Gradient descent, backpropagation and its calculus: from a network's errors to a change of every weight."""

import json
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.nn.utils import parameters_to_vector, vector_to_parameters

import train
from configs.schema import OptimConfig
from data.dataset import IGNORED
from data.digits import Digits
from data.tokenizer import ByteTokenizer
from model import GPT, GPTConfig
from tests.conftest import text_of
from tests.lessons.helpers_a import (
    accuracy,
    double_mlp,
    examples,
    first_digits,
    gradients,
    learner,
    trained,
    update,
)
from training import evaluate
from training import loss as costs_of
from training.learner import Learner
from training.loss import LOSSES, cross_entropy, squared_error
from training.optim import build_optimizers
from training.plan import resolve


def sure(outputs: int, chosen: list[int]) -> torch.Tensor:
    """Scores so far apart that sigmoid and softmax both give exactly 1 for the chosen output, 0 for the rest."""
    return torch.where(F.one_hot(torch.tensor(chosen), outputs) == 1, 1000.0, -1000.0)


@pytest.mark.parametrize("loss", LOSSES)
def test_L14_the_cost_is_the_mean_over_all_examples(loss, monkeypatch):
    """Gradient descent: the cost is the average over all training examples, not just the last few."""
    data = first_digits(11)
    model = learner(data, {}).model
    one_by_one = [LOSSES[loss](model(x), y).item() for x, y in data.in_order("train", 1)]
    assert len(one_by_one) == 11
    monkeypatch.setattr(evaluate, "LOGITS_AT_ONCE", 40)  # batches of 4, the last one not full
    found = evaluate.evaluate(model, data, "train", LOSSES[loss])
    assert found is not None and found.loss == pytest.approx(sum(one_by_one) / 11, rel=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_L15_the_cost_is_zero_only_if_the_output_is_what_was_wanted(loss):
    """Gradient descent: the cost is small when the network is confidently right, large when confidently wrong."""
    wanted = torch.tensor([2])
    assert LOSSES[loss](sure(4, [2]), wanted) == 0
    undecided = torch.tensor([[-1000.0, 1000.0, 1000.0, -1000.0]])
    for confused in (sure(4, [1]), undecided, torch.zeros(1, 4)):
        assert LOSSES[loss](confused, wanted) > 0.69


def test_L16_squared_error_adds_up_the_squares_of_the_ten_differences():
    """Gradient descent: the cost of one example is the sum of (a - y)² over the ten output neurons."""
    z, y = examples(6, 10, 10)
    by_hand = 0.0
    for scores, digit in zip(z.tolist(), y.tolist(), strict=True):
        a = [1 / (1 + math.exp(-score)) for score in scores]
        by_hand += sum((a[k] - (1.0 if k == digit else 0.0)) ** 2 for k in range(10)) / 6
    assert squared_error(z, y).item() == pytest.approx(by_hand, rel=1e-12)
    mean_over_outputs = F.mse_loss(z.sigmoid(), F.one_hot(y, 10).double())
    assert squared_error(z, y).item() == pytest.approx(10 * mean_over_outputs.item(), rel=1e-12)


@pytest.mark.parametrize("at_once", [2**22, 20, 1])
def test_L17_cross_entropy_is_the_mean_of_minus_log_p_of_the_right_token(at_once, monkeypatch):
    """What is a GPT?: the cost of a prediction is -log of the probability it gave to the actual next word."""
    monkeypatch.setattr(costs_of, "AT_ONCE", at_once)  # all rows at once, two at a time, one by one
    logits, targets = examples(6, 9, 9)
    targets[4] = -100  # a place that is not to count
    p = np.exp(logits.numpy()) / np.exp(logits.numpy()).sum(axis=1, keepdims=True)
    by_hand = -sum(np.log(p[i, targets[i]]) for i in (0, 1, 2, 3, 5)) / 5
    assert cross_entropy(logits, targets).item() == pytest.approx(by_hand, rel=1e-12)


def test_L17_every_position_is_to_predict_the_token_after_it():
    """What is a GPT?: it trains on raw text, where each token is the target of the position before it."""
    text = "".join(chr(33 + i) for i in range(90))  # each character once, so a pair names its place
    data = text_of([text], ByteTokenizer(), context_length=8)
    x, y = data.batch("train", 0, 16)
    assert x.shape == y.shape == (16, 8)
    assert torch.equal(y, x + 1)
    x, y = next(data.in_order("train", 12))  # as a split is judged by, the last window filled up
    counts = y != IGNORED
    assert torch.equal(y[counts][:-1], x[counts][:-1] + 1) and int(counts.sum()) == 90  # and then end-of-text


@pytest.mark.parametrize("vocab_size", [65, 50257])
def test_L17_the_first_loss_is_nearly_that_of_a_blind_guess(vocab_size):
    """What is a GPT?: before training, all V next tokens are about equally likely, a loss of ln V."""
    torch.manual_seed(0)
    sizes = {"n_layer": 2, "n_head": 2, "n_embd": 64, "context_length": 32}
    model = GPT(GPTConfig(vocab_size=vocab_size, **sizes)).eval()
    with torch.inference_mode():
        loss = cross_entropy(model(torch.randint(vocab_size, (4, 32))), torch.randint(vocab_size, (4, 32)))
    assert loss.item() == pytest.approx(math.log(vocab_size) + 0.0002 * 64, abs=0.05)


def test_L19_the_gradient_is_the_slope_along_every_weight():
    """Gradient descent: the gradient has, for each weight, the rate at which the cost rises with it."""
    model, (x, y) = double_mlp([5, 4, 3, 3]), examples(8, 5, 3)
    weights, nudge, slopes = parameters_to_vector(model.parameters()).detach(), 1e-5, []
    found = parameters_to_vector(gradients(squared_error(model(x), y), model.parameters()))
    for direction in torch.eye(len(weights), dtype=torch.float64):
        costs = []
        for sign in (1, -1):
            vector_to_parameters(weights + sign * nudge * direction, model.parameters())
            costs.append(squared_error(model(x), y).item())
        slopes.append((costs[0] - costs[1]) / (2 * nudge))
    torch.testing.assert_close(found, torch.tensor(slopes, dtype=torch.float64), rtol=1e-6, atol=1e-9)


def test_L19_no_direction_goes_down_faster_than_minus_the_gradient():
    """Gradient descent: of all small steps of one length, the one against the gradient lowers the cost most."""
    model, (x, y) = double_mlp([5, 4, 3]), examples(8, 5, 3)
    start = parameters_to_vector(model.parameters()).detach().clone()
    squared_error(model(x), y).backward()
    steepness = math.sqrt(sum(p.grad.square().sum().item() for p in model.parameters()))
    length = 1e-4
    build_optimizers(model, OptimConfig(name="sgd", lr=length / steepness))[0].step()
    steepest = squared_error(model(x), y).item()
    assert (parameters_to_vector(model.parameters()) - start).norm().item() == pytest.approx(length)
    for direction in torch.randn(200, len(start), dtype=torch.float64):
        vector_to_parameters(start + length * F.normalize(direction, dim=0), model.parameters())
        assert squared_error(model(x), y).item() > steepest


def test_L20_the_length_of_the_gradient_is_the_steepness():
    """Gradient descent: the norm of the gradient over all weights is the steepness of the slope."""
    pupil = learner(first_digits(20), {"name": "sgd"}, batch_size=20)
    x, y = pupil.data.batch("train", 0, 20)
    by_hand = sum(g.square().sum().item() for g in gradients(cross_entropy(pupil.model(x), y), pupil.parameters))
    assert update(pupil, 0)[1] == pytest.approx(math.sqrt(by_hand), rel=1e-5)


def test_L20_every_step_writes_down_how_steep_it_was(shell, tiny, workplace, monkeypatch):
    """Gradient descent: training logs the gradient norm at every step."""
    lengths = {}

    def noted(pupil: Learner, step: int) -> tuple[float, float]:
        cost, lengths[step] = update(pupil, step)
        return cost, lengths[step]

    monkeypatch.setattr(train, "update", noted)
    assert shell("train.py", *tiny, "--train.steps", "3", "--log.sample_tokens", "0", "--run", "x")[0] == 0
    lines = [json.loads(line) for line in (workplace / "runs/x/log.jsonl").read_text().splitlines()]
    written = {line["step"]: line["grad_norm"] for line in lines if "grad_norm" in line}
    assert list(written) == [0, 1, 2] and all(written[step] == lengths[step] > 0 for step in written)


def test_L21_weights_are_nudged_in_proportion_to_what_they_matter():
    """Gradient descent: components of 3.2 and 0.1 mean that the cost is 32 times as sensitive to the first weight."""
    model, x, y = double_mlp([2, 1]), torch.tensor([[3.2, 0.1]], dtype=torch.float64), torch.tensor([0])
    weight, before = model.layers[0].weight, model.layers[0].weight.detach().clone()
    rises = []
    for nudge in (torch.tensor([[1e-6, 0]]), torch.tensor([[0, 1e-6]])):
        cost = squared_error(model(x), y).item()
        weight.data = before + nudge
        rises.append(squared_error(model(x), y).item() - cost)
        weight.data = before.clone()
    assert rises[0] / rises[1] == pytest.approx(32, rel=0.01)
    squared_error(model(x), y).backward()
    build_optimizers(model, OptimConfig(name="sgd", lr=0.1))[0].step()
    moves = (weight - before).flatten().tolist()
    assert moves[0] / moves[1] == pytest.approx(32, rel=0.01)
    assert all(move * rise < 0 for move, rise in zip(moves, rises, strict=True))  # each against its slope


def test_L22_learning_is_w_minus_rate_times_gradient_again_and_again():
    """Gradient descent: compute the gradient, take a small step against it, and repeat."""
    pupil = learner(first_digits(40), {"name": "sgd", "lr": 0.5}, batch_size=8, loss="squared_error")
    by_hand = learner(pupil.data, {}).model  # the same seed, the same first weights
    for step in range(6):
        update(pupil, step)
        x, y = pupil.data.batch("train", step, 8)
        slopes = gradients(squared_error(by_hand(x), y), by_hand.parameters())
        with torch.no_grad():
            for weight, slope in zip(by_hand.parameters(), slopes, strict=True):
                weight -= 0.5 * slope
    torch.testing.assert_close(list(pupil.model.parameters()), list(by_hand.parameters()), rtol=1e-5, atol=1e-6)


def test_L22_small_steps_go_down_steadily_and_large_ones_overshoot():
    """Gradient descent: the learning rate has to be small, or a step overshoots the valley."""

    def costs(rate: float) -> list[float]:
        pupil = learner(first_digits(20), {"name": "sgd", "lr": rate}, {"activation": "relu"}, batch_size=20)
        return [update(pupil, step)[0] for step in range(30)]  # every batch is the whole set

    assert (np.diff(costs(0.1)) < 0).all()
    assert max(costs(5.0)) > 2 * costs(5.0)[0]


def test_L23_learning_lowers_the_cost_and_teaches_unseen_digits():
    """Gradient descent: learning finds weights of lower cost, which then beat chance on unseen digits."""
    pupil = trained()
    blank = learner(pupil.data, {}, {"activation": "relu"}).model
    x, y = pupil.data.splits["train"]
    with torch.inference_mode():
        assert float(cross_entropy(pupil.model(x), y)) < 0.3 * float(cross_entropy(blank(x), y))
    assert accuracy(blank, *pupil.data.splits["test"]) < 0.3
    assert accuracy(pupil.model, *pupil.data.splits["test"]) > 0.8


def test_L24_other_beginnings_end_in_other_minima_that_are_about_as_good():
    """Gradient descent: which minimum is reached depends on the start, yet most minima are about as good."""
    starts = [learner(first_digits(1), {}, seed=seed).model.layers[0].weight for seed in (0, 1)]
    assert (starts[0] - starts[1]).abs().mean() > 0.01
    ends = [trained(seed).model for seed in (0, 1)]
    assert (ends[0].layers[0].weight - ends[1].layers[0].weight).abs().mean() > 0.01
    scores = [accuracy(model, *trained().data.splits["test"]) for model in ends]
    assert min(scores) > 0.8 and abs(scores[0] - scores[1]) < 0.05


def places(data: Digits, count: int, size: int) -> list[int]:
    """Which images the first batches hold; each image carries its own number as its label."""
    return torch.cat([data.batch("train", number, size)[1] for number in range(count)]).tolist()


def numbered(count: int, seed: int) -> Digits:
    """Blank images whose label is their place."""
    return Digits({"train": (torch.zeros(count, 784, dtype=torch.uint8), torch.arange(count))}, seed)


def test_L26_every_epoch_shows_every_example_once_in_a_new_order():
    """Gradient descent: shuffle, cut into mini-batches, use each example once, then shuffle again."""
    seen = places(numbered(10, seed=1), 5, size=4)
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10))
    assert list(range(10)) != seen[:10] != seen[10:]
    assert seen == places(numbered(10, seed=1), 5, size=4) != places(numbered(10, seed=2), 5, size=4)


@pytest.mark.parametrize(("batch_size", "accumulate"), [(1, 5), (5, 1), (1, 2), (2, 5), (3, 2)])
def test_L26_steps_show_every_example_once_an_epoch_however_many_batches_they_take(batch_size, accumulate, monkeypatch):
    """Gradient descent: even if mini-batches are computed in parts, each example occurs once per epoch."""
    data, seen = numbered(10, seed=1), []
    pupil = learner(data, {}, batch_size=batch_size, accumulate=accumulate)
    monkeypatch.setattr(data, "batch", lambda *which: seen.append(Digits.batch(data, *which)) or seen[-1])
    for step in range(30 // (batch_size * accumulate)):
        update(pupil, step)
    shown = torch.cat([labels for _, labels in seen]).tolist()
    assert [sorted(shown[first : first + 10]) for first in (0, 10, 20)] == 3 * [list(range(10))]
    assert shown == places(numbered(10, seed=1), 3, size=10)


@pytest.mark.parametrize(("batch_size", "accumulate"), [(4, 1), (2, 2), (1, 4)])
def test_L26_an_epoch_is_as_many_steps_as_it_has_mini_batches(batch_size, accumulate):
    """Gradient descent: N examples in mini-batches of B make N / B steps, rounded up, however they are split."""
    pupil = learner(numbered(10, seed=1), {}, batch_size=batch_size, accumulate=accumulate)
    for epochs, steps in [(1, 3), (2, 5), (4, 10)]:
        asked = pupil.config.model_copy(
            update={"train": pupil.config.train.model_copy(update={"steps": None, "epochs": epochs})}
        )
        assert resolve(asked, pupil.data, lambda config: 0.0)[0].train.steps == steps


def test_L27_backpropagation_is_the_chain_rule_layer_by_layer():
    """Backpropagation: the desired changes to the output are passed back through the weights, layer by layer."""
    model, (x, y) = double_mlp([7, 6, 5, 4]), examples(9, 7, 4)
    a = [x]
    for layer in model.layers:
        a.append(1 / (1 + torch.exp(-(a[-1] @ layer.weight.mT + layer.bias))))
    wish = 2 * (a[-1] - F.one_hot(y, 4)) / 9  # dC/da at the output
    by_hand: list[torch.Tensor] = []
    for layer, before, after in reversed(list(zip(model.layers, a[:-1], a[1:], strict=True))):
        delta = wish * after * (1 - after)  # dC/dz
        by_hand = [delta.mT @ before, delta.sum(dim=0), *by_hand]
        wish = delta @ layer.weight
    found = gradients(squared_error(model(x), y), model.parameters())
    torch.testing.assert_close(found, by_hand, rtol=0, atol=1e-10)


def test_L28_a_chain_of_single_neurons_multiplies_its_slopes():
    """Backpropagation calculus: dC/dw = dz/dw · da/dz · dC/da, with two more factors for each layer in between."""
    model, x = double_mlp([1, 1, 1, 1]), torch.tensor([[0.7]], dtype=torch.float64)
    w = [layer.weight.item() for layer in model.layers]
    b = [layer.bias.item() for layer in model.layers]
    a = [0.7]
    for weight, bias in zip(w, b, strict=True):
        a.append(1 / (1 + math.exp(-(weight * a[-1] + bias))))
    dC_da = 2 * (a[3] - 1)  # the one output is wanted to be 1
    slope = [activation * (1 - activation) for activation in a]  # da/dz
    by_hand = [
        a[0] * slope[1] * w[1] * slope[2] * w[2] * slope[3] * dC_da,
        a[1] * slope[2] * w[2] * slope[3] * dC_da,
        a[2] * slope[3] * dC_da,
    ]
    cost = squared_error(model(x), torch.tensor([0]))
    found = [g.item() for g in gradients(cost, [layer.weight for layer in model.layers])]
    assert found == pytest.approx(by_hand, rel=1e-10)


def test_L29_the_gradient_is_the_mean_of_what_every_example_wants():
    """Backpropagation: each example wants its own changes to the weights, and the average is applied."""
    pupil = learner(first_digits(12), {"name": "sgd", "lr": 1.0}, batch_size=3, accumulate=4, loss="squared_error")
    before = parameters_to_vector(pupil.parameters).detach().clone()
    wishes = [
        parameters_to_vector(gradients(squared_error(pupil.model(x), y), pupil.parameters))
        for x, y in pupil.data.in_order("train", 1)
    ]
    update(pupil, 0)
    step = before - parameters_to_vector(pupil.parameters).detach()
    torch.testing.assert_close(step, torch.stack(wishes).mean(dim=0), rtol=1e-4, atol=1e-6)

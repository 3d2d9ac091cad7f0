"""From how wrong a network is to its next weights: losses, optimisers, schedules, and evaluation."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from configs.schema import OptimConfig
from data.dataset import IGNORED
from data.digits import Digits
from model import GPT, MLP, GPTConfig
from training.evaluate import Evaluation, evaluate, outputs
from training.loss import READINGS, cross_entropy, squared_error
from training.optim import add_l1, build_optimizers, clip, learning_rate, set_learning_rate

thorough = settings(deadline=None, max_examples=60)
seeds = st.integers(0, 2**32)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    """Random numbers in double precision."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def targets_for(logits: Tensor, seed: int = 0) -> Tensor:
    """A target for each row."""
    return torch.randint(logits.size(-1), logits.shape[:-1], generator=torch.Generator().manual_seed(seed))


# How wrong is it?


@settings(thorough, max_examples=20)
@given(seeds, st.integers(1, 9), st.integers(2, 7))
def test_cross_entropy_is_log_loss(seed, count, vocabulary):
    from sklearn.metrics import log_loss

    logits = 3 * drawn(count, vocabulary, seed=seed)
    y = targets_for(logits, seed)
    wanted = log_loss(y, logits.softmax(dim=-1), labels=range(vocabulary))
    assert float(cross_entropy(logits, y)) == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("loss", [cross_entropy, squared_error])
def test_ignored_targets_count_for_nothing(loss):
    logits = drawn(6, 5)
    y = targets_for(logits)
    counted = torch.tensor([0, 2, 3])
    some = torch.full_like(y, IGNORED).scatter(0, counted, y[counted])
    assert float(loss(logits, some)) == pytest.approx(float(loss(logits[counted], y[counted])), rel=1e-12)


@pytest.mark.parametrize("loss", [cross_entropy, squared_error])
def test_a_loss_over_windows_is_the_mean_over_all_their_targets(loss):
    logits = drawn(2, 3, 5)
    y = targets_for(logits)
    each = [float(loss(logits[b, t : t + 1], y[b, t : t + 1])) for b in range(2) for t in range(3)]
    assert float(loss(logits, y)) == pytest.approx(np.mean(each), rel=1e-12)


@pytest.mark.parametrize("loss", [cross_entropy, squared_error])
def test_a_loss_is_zero_for_a_sure_and_right_answer_and_only_then(loss):
    sure = 1000 * (2 * torch.eye(4) - 1)
    assert float(loss(sure, torch.arange(4))) == 0
    assert float(loss(sure, torch.tensor([0, 1, 2, 2]))) > 0.1


def test_a_blind_guess_costs_the_logarithm_of_the_number_of_choices():
    assert float(cross_entropy(torch.zeros(3, 65), torch.arange(3))) == pytest.approx(4.174, abs=5e-4)


def test_squared_error_is_twice_nielsens_half_sum_of_squares():
    logits, cost = drawn(4, 10), 0.0
    y = targets_for(logits)
    for scores, digit in zip(logits.tolist(), y.tolist(), strict=True):
        neurons = [1 / (1 + math.exp(-z)) for z in scores]
        cost += sum((a - (j == digit)) ** 2 for j, a in enumerate(neurons)) / 2
    assert float(squared_error(logits, y)) == pytest.approx(2 * cost / 4, rel=1e-12)


def test_squared_error_is_ten_times_pytorchs_which_averages_over_the_outputs_too():
    logits = drawn(4, 10)
    y = targets_for(logits)
    theirs = nn.functional.mse_loss(logits.sigmoid(), nn.functional.one_hot(y, 10).double())
    assert float(squared_error(logits, y)) == pytest.approx(10 * float(theirs), rel=1e-12)


@pytest.mark.parametrize("loss", [cross_entropy, squared_error])
def test_the_gradient_of_a_loss_is_its_slope(loss):
    logits = drawn(3, 4).requires_grad_()
    y = torch.tensor([1, IGNORED, 3])
    assert torch.autograd.gradcheck(lambda z: loss(z, y), logits)


def test_outputs_are_read_as_the_loss_reads_them():
    logits = drawn(10)
    assert float(READINGS["cross_entropy"](logits).sum()) == pytest.approx(1)
    assert READINGS["squared_error"](logits).tolist() == pytest.approx([1 / (1 + math.exp(-z)) for z in logits])


# How does a gradient become a step?

Rule = Callable[[np.ndarray, np.ndarray, dict[str, Any], int, float], np.ndarray]
LR, DECAY = 0.03, 0.1


def sgd(w, g, memory, t, decay):
    memory["v"] = 0.9 * memory.get("v", 0) + (g + decay * w)
    return w - LR * memory["v"]


def rmsprop(w, g, memory, t, decay):
    g = g + decay * w
    memory["s"] = 0.95 * memory.get("s", 0) + 0.05 * g**2
    memory["v"] = 0.9 * memory.get("v", 0) + g / (np.sqrt(memory["s"]) + 1e-8)
    return w - LR * memory["v"]


def adam(w, g, memory, t, decay):
    g = g + decay * w
    memory["m"] = 0.9 * memory.get("m", 0) + 0.1 * g
    memory["s"] = 0.95 * memory.get("s", 0) + 0.05 * g**2
    return w - LR * (memory["m"] / (1 - 0.9**t)) / (np.sqrt(memory["s"] / (1 - 0.95**t)) + 1e-8)


def adamw(w, g, memory, t, decay):
    return adam(w, g, memory, t, 0.0) - LR * decay * w


def followed(rule: Rule, start: Tensor, gradients: list[Tensor], decay: float) -> np.ndarray:
    """Where a rule leads from `start`."""
    w, memory = start.numpy().copy(), {}
    for t, g in enumerate(gradients, start=1):
        w = rule(w, g.numpy(), memory, t, decay)
    return w


def train(model: nn.Module, config: OptimConfig, gradients: dict[str, list[Tensor]]) -> None:
    """Take one step for each of these gradients."""
    optimizers = build_optimizers(model, config)
    for t in range(len(next(iter(gradients.values())))):
        for name, p in model.named_parameters():
            p.grad = gradients[name][t].clone()
        for optimizer in optimizers:
            optimizer.step()


def steps_for(model: nn.Module, count: int = 6) -> dict[str, list[Tensor]]:
    """Random gradients for every parameter."""
    return {
        name: [drawn(*p.shape, seed=100 * i + t) for t in range(count)]
        for i, (name, p) in enumerate(model.named_parameters())
    }


def copied(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("rule", [sgd, rmsprop, adam, adamw], ids=lambda rule: rule.__name__)
def test_an_optimiser_goes_step_for_step_where_its_formula_leads(rule):
    model = MLP([3, 4, 2], "relu").double()
    momentum = 0.9 if rule in (sgd, rmsprop) else 0.0
    config = OptimConfig(name=rule.__name__, lr=LR, weight_decay=DECAY, momentum=momentum, betas=[0.9, 0.95])
    start, gradients = copied(model), steps_for(model)
    train(model, config, gradients)
    for name, p in model.named_parameters():
        wanted = followed(rule, start[name], gradients[name], DECAY if p.ndim == 2 else 0.0)
        np.testing.assert_allclose(p.detach().numpy(), wanted, rtol=1e-9, atol=1e-12)


def muon(w: np.ndarray, g: np.ndarray, memory: dict[str, Any], t: int, decay: float) -> np.ndarray:
    """Momentum with its singular values pushed towards 1 by five rounds of a quintic (Jordan 2024)."""
    memory["v"] = 0.9 * memory.get("v", 0) + 0.1 * g
    U, s, V = np.linalg.svd(0.1 * g + 0.9 * memory["v"], full_matrices=False)
    s = s / np.linalg.norm(s)
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return w * (1 - LR * decay) - LR * math.sqrt(max(1, w.shape[0] / w.shape[1])) * (U * s) @ V


def test_muon_takes_the_hidden_matrices_and_leaves_the_rest_to_adamw(torch_s_polynomial):
    torch.manual_seed(0)
    shape = GPTConfig(n_layer=1, n_head=2, n_embd=4, vocab_size=9, context_length=5, tied=False, init="normal")
    model = GPT(shape).double()
    config = OptimConfig(name="muon", lr=LR, muon_lr=LR, weight_decay=DECAY, momentum=0.9, betas=[0.9, 0.95])
    start, gradients = copied(model), steps_for(model, count=3)
    train(model, config, gradients)
    for name, p in model.named_parameters():
        hidden = name.startswith("blocks.") and p.ndim == 2
        wanted = followed(muon if hidden else adamw, start[name], gradients[name], DECAY if p.ndim == 2 else 0.0)
        # torch's Muon counts in bfloat16, with eight bits, and magnifies what is small: 1/32 of each step's length
        tolerance = 3 * LR * 2**-5 if hidden else 1e-10
        np.testing.assert_allclose(p.detach().numpy(), wanted, rtol=0, atol=tolerance, err_msg=name)


def test_muon_leaves_an_mlps_last_layer_to_adamw_too():
    model = MLP([3, 4, 5, 2], "relu")
    (hidden,), rest = (group_names(model, optimizer) for optimizer in build_optimizers(model, OptimConfig(name="muon")))
    assert hidden == {"layers.0.weight", "layers.1.weight"}
    assert set().union(*rest) == {name for name, _ in model.named_parameters()} - hidden


def group_names(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[set[str]]:
    """The names of the parameters in each group."""
    return [
        {name for name, p in model.named_parameters() if any(p is q for q in group["params"])}
        for group in optimizer.param_groups
    ]


@pytest.mark.parametrize("name", ["sgd", "rmsprop", "adam", "adamw", "muon"])
def test_a_parameter_that_does_not_learn_stays_where_it_is(name):
    model = MLP([3, 4, 4, 2], "relu").double()
    frozen = dict(model.named_parameters())["layers.1.weight"].requires_grad_(False)
    start = copied(model)
    train(model, OptimConfig(name=name, weight_decay=DECAY), steps_for(model))
    moved = {name for name, p in model.named_parameters() if not p.equal(start[name])}
    assert frozen.equal(start["layers.1.weight"])
    assert moved == set(start) - {"layers.1.weight"}


@pytest.mark.parametrize("name", ["sgd", "adamw", "muon"])
def test_the_rate_is_the_same_share_of_its_highest_for_every_group(name):
    model = MLP([3, 4, 2], "relu")
    optimizers = build_optimizers(model, OptimConfig(name=name, lr=0.5, muon_lr=0.02))
    for share in (0.25, 1.0, 0.1):
        set_learning_rate(optimizers, share)
        rates = {n: g["lr"] for o in optimizers for g in o.param_groups for n in map(id, g["params"])}
        for parameter, p in model.named_parameters():
            highest = 0.02 if name == "muon" and parameter == "layers.0.weight" else 0.5
            assert rates[id(p)] == pytest.approx(share * highest)


# How large is a step, and when?


def rates(steps: int, **settings: Any) -> list[float]:
    """The rate of every step, and what it would be at the end."""
    return [learning_rate(step, steps, OptimConfig(**settings)) for step in range(steps + 1)]


def theirs(steps: int, schedule: Callable[[torch.optim.Optimizer], Any], lr: float) -> list[float]:
    """What one of torch's schedules does."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr)
    plan, found = schedule(optimizer), []
    for _ in range(steps + 1):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        plan.step() if len(found) <= steps else None
    return found


@pytest.mark.parametrize("min_lr", [0.0, 0.02])
def test_cosine_is_torchs_cosine_annealing(min_lr):
    from torch.optim.lr_scheduler import CosineAnnealingLR

    wanted = theirs(37, lambda o: CosineAnnealingLR(o, T_max=37, eta_min=min_lr), 0.5)
    assert rates(37, schedule="cosine", lr=0.5, min_lr=min_lr) == pytest.approx(wanted, abs=1e-12)


def test_one_cycle_is_torchs_one_cycle():
    from torch.optim.lr_scheduler import OneCycleLR

    # torch's first phase ends at step pct_start * total_steps - 1 and its second at total_steps - 1; ours at
    # 30 % of the steps and at the end of the last.
    plan = {"total_steps": 51, "pct_start": (0.3 * 50 + 1) / 51, "div_factor": 25, "final_div_factor": 2}
    wanted = theirs(50, lambda o: OneCycleLR(o, max_lr=0.5, cycle_momentum=False, **plan), 0.5)
    assert rates(50, schedule="one_cycle", lr=0.5, min_lr=0.01) == pytest.approx(wanted, abs=1e-12)


def test_one_cycle_begins_at_a_25th_peaks_at_30_percent_and_ends_at_the_lowest():
    found = rates(100, schedule="one_cycle", lr=0.5, min_lr=0.001)
    assert (found[0], found[30], found[100]) == pytest.approx((0.02, 0.5, 0.001))
    assert max(found) == found[30]
    assert found[15] == pytest.approx((0.02 + 0.5) / 2) and found[65] == pytest.approx((0.5 + 0.001) / 2)


def test_constant_and_linear_are_what_they_are_called():
    assert rates(10, schedule="constant", lr=0.5, min_lr=0.1) == [0.5] * 11
    assert rates(10, schedule="linear", lr=0.5, min_lr=0.1) == pytest.approx(np.linspace(0.5, 0.1, 11))


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_warm_up_is_a_straight_line_from_zero_to_the_highest_rate(schedule):
    found = rates(20, schedule=schedule, lr=0.8, min_lr=0.1, warmup_steps=4)
    assert found[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8])
    assert found[4:] == pytest.approx(rates(16, schedule=schedule, lr=0.8, min_lr=0.1))


@thorough
@given(
    schedule=st.sampled_from(["constant", "linear", "cosine", "one_cycle"]),
    steps=st.integers(1, 200),
    warmup=st.integers(0, 250),
    low=st.floats(0, 0.3),
)
def test_every_rate_is_positive_until_the_end_and_never_above_the_highest(schedule, steps, warmup, low):
    found = rates(steps, schedule=schedule, lr=0.3, min_lr=low, warmup_steps=warmup)
    assert all(0 < rate <= 0.3 + 1e-12 for rate in found[:-1])


# Gradients are made shorter, weights smaller.


def with_gradients(seed: int, scale: float) -> list[nn.Parameter]:
    """Two parameters with gradients and one without."""
    parameters = [nn.Parameter(drawn(3, 4)), nn.Parameter(drawn(4)), nn.Parameter(drawn(2))]
    for i, p in enumerate(parameters[:2]):
        p.grad = scale * drawn(*p.shape, seed=seed + i)
    return parameters


def flat(parameters: list[nn.Parameter]) -> Tensor:
    """All gradients in a row."""
    return torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])


@thorough
@given(seeds, st.floats(1e-3, 1e3), st.floats(1e-3, 1e3))
def test_clipping_keeps_the_direction_and_at_most_that_length(seed, scale, longest):
    parameters = with_gradients(seed, scale)
    before = flat(parameters)
    length = float(clip(parameters, longest))
    after = flat(parameters)
    assert length == pytest.approx(float(before.square().sum().sqrt()), rel=1e-9)
    assert float(after.norm()) == pytest.approx(min(length, longest), rel=2e-3)  # torch adds 1e-6 to the length
    assert float(after.norm()) <= longest * (1 + 1e-9)
    torch.testing.assert_close(after / after.norm(), before / before.norm(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("longest", [0.0, 1e6])
def test_a_gradient_that_is_short_enough_is_left_to_the_bit(longest):
    parameters = with_gradients(0, 100.0)
    before = flat(parameters)
    clip(parameters, longest)
    assert flat(parameters).equal(before)


def test_a_length_that_is_no_number_is_reported():
    parameters = with_gradients(0, 1.0)
    parameters[0].grad = torch.full((3, 4), math.nan, dtype=torch.float64)
    assert math.isnan(float(clip(parameters, 1.0)))


def test_l1_is_the_gradient_of_the_sum_of_absolute_weights_of_the_matrices():
    parameters = with_gradients(0, 1.0)
    parameters[0].data[0, 0] = 0
    wanted = flat(parameters)
    slope = torch.autograd.grad(0.3 * parameters[0].abs().sum(), parameters[0])[0]
    wanted[: slope.numel()] += slope.flatten()
    add_l1(parameters, 0.3)
    torch.testing.assert_close(flat(parameters), wanted)


# How good is it?


class Forgetful(nn.Module):
    """A network that is another one whenever it isn't in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(784, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) if not self.training else torch.full((len(x), 10), math.nan)


@pytest.fixture
def judged() -> tuple[Forgetful, Digits]:
    """A network and 37 random images."""
    torch.manual_seed(0)
    images = torch.randint(256, (37, 784), dtype=torch.uint8)
    return Forgetful(), Digits({"val": (images, torch.randint(10, (37,)))})


@pytest.mark.parametrize("loss", [cross_entropy, squared_error])
@pytest.mark.parametrize("at_once", [30, 200, 370, 2**18])  # logits: batches of 3, 20, 37 and 26,214 images
def test_an_evaluation_is_the_mean_over_every_example_however_they_are_batched(judged, loss, at_once, monkeypatch):
    monkeypatch.setattr("training.evaluate.LOGITS_AT_ONCE", at_once)
    model, data = judged
    found = evaluate(model, data, "val", loss)
    x, y = data.splits["val"]
    with torch.no_grad():
        logits = model.layer(x)
    each = [float(loss(logits[i : i + 1], y[i : i + 1])) for i in range(37)]
    right = sum(int(logits[i].argmax()) == int(y[i]) for i in range(37))
    error = np.std(each, ddof=1) / math.sqrt(37)
    assert found == pytest.approx((np.mean(each), right / 37, 37, error), rel=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_dropout_is_off_during_an_evaluation_and_back_afterwards(judged, training):
    model, data = judged
    found = evaluate(model.train(training), data, "val", cross_entropy)
    assert found is not None and math.isfinite(found.loss)
    assert model.training == training


def test_an_evaluation_that_is_stopped_says_nothing(judged):
    model, data = judged
    assert evaluate(model.train(), data, "val", cross_entropy, stop=lambda: True) is None
    assert model.training


def test_an_evaluation_calls_the_network_as_training_does_and_needs_no_gradient(judged):
    model, data = judged
    seen: list[Tensor] = []

    def forward(x: Tensor) -> Tensor:
        seen.append(model(x))
        return seen[-1]

    evaluate(model, data, "val", cross_entropy, forward=forward, size=40_000)
    assert [len(logits) for logits in seen] == [40_000]
    assert not seen[0].requires_grad


def test_perplexity_is_the_number_of_equally_likely_choices():
    assert Evaluation(math.log(65), 0.0, 10).perplexity == pytest.approx(65)
    assert math.isfinite(Evaluation(1e9, 0.0, 10).perplexity)


@pytest.mark.parametrize("tied", [True, False])
def test_a_gpt_has_as_many_outputs_as_tokens(tied):
    config = GPTConfig(n_layer=1, n_head=2, n_embd=4, vocab_size=9, context_length=5, tied=tied)
    assert outputs(GPT(config)) == 9


def test_a_digit_network_has_ten_outputs():
    assert outputs(MLP([784, 16, 16, 10], "sigmoid")) == 10


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_large_vocabulary_taken_in_parts_has_the_loss_and_gradient_of_the_whole(monkeypatch, dtype):
    monkeypatch.setattr("training.loss.AT_ONCE", 3 * 50)
    targets = torch.randint(50, (4, 5))
    targets[1, 2:] = IGNORED
    given = torch.randn(4, 5, 50).to(dtype)
    ours, whole = given.clone().requires_grad_(), given.clone().requires_grad_()
    loss = cross_entropy(ours, targets)
    expected = nn.functional.cross_entropy(whole.float().flatten(0, 1), targets.flatten(), ignore_index=IGNORED)
    loss.backward(), expected.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(ours.grad, whole.grad)


class Largest(TorchDispatchMode):
    """Notes how large the largest float32 tensor was that anything gave while it was there."""

    size = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple) else (result,):
            if isinstance(tensor, Tensor) and tensor.dtype == torch.float32:
                self.size = max(self.size, tensor.numel())
        return result


@pytest.mark.parametrize("at_once", [10**9, 4 * 1000])
def test_the_logits_of_a_large_vocabulary_are_never_all_in_float32(monkeypatch, at_once):
    monkeypatch.setattr("training.loss.AT_ONCE", at_once)
    logits = torch.randn(64, 1000).bfloat16().requires_grad_()
    with Largest() as largest:
        cross_entropy(logits, torch.zeros(64, dtype=torch.int64)).backward()
    assert largest.size == min(64 * 1000, at_once)

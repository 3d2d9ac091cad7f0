"""Overfitting and chance level: told when the log shows it, once, and never where nothing was learned."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.command import parse
from configs.schema import Config
from tests.conftest import ROOT
from training.advice import Chance, at_chance, chance_level, constant_loss, overfitting, suspects, warm_after
from training.loss import EACH, cross_entropy, squared_error
from training.validation import Evaluated, evaluations

EPOCH = 5  # steps
TEXT = Chance(math.log(50), math.log(50), 0.1, 400)
DIGITS = Chance(math.log(10), math.log(10), 0.11, 500)


def log(vals: list[float], trains: list[float], stderr: float | None = 0.01, accuracy: float | None = None) -> list:
    """An evaluation every ten steps; between two of them two training losses with the given mean."""
    lines: list[dict] = []
    for number, val in enumerate(vals):
        line = {"step": 10 * number, "val_loss": val}
        line |= {} if stderr is None else {"val_loss_stderr": stderr}
        line |= {} if accuracy is None else {"val_accuracy": accuracy}
        lines.append(line)
        if number < len(trains):
            lines += [{"step": 10 * number + n, "loss": trains[number] + wiggle} for n, wiggle in ((3, 0.1), (6, -0.1))]
    return lines


def told(lines: list[dict], epoch: float = EPOCH, chance: Chance = TEXT) -> list[int]:
    """The steps at which overfitting is reported as the log grows."""
    seen = evaluations(lines)
    return [now.step for n, now in enumerate(seen, 1) if overfitting(seen[:n], epoch, chance)]


FALLING = [3.0, 2.5, 2.0, 1.5, 1.0, 0.8, 0.6]


def test_a_validation_loss_that_rises_while_training_loss_falls_is_overfitting_and_told_once():
    assert told(log([3.5, 3.0, 2.8, 2.9, 3.1, 3.3, 3.5], FALLING)) == [30]  # (2.8 + 2.9) / 2 is 0.05 above 2.8


def test_the_rise_is_that_of_the_mean_of_the_last_two():
    vals = [3.5, 3.0, 2.8, 2.83, 2.83, 2.83]  # one is 1.5 standard errors above, the mean of two is 3
    assert told(log(vals, FALLING)) == [40]
    assert told(log([3.5, 3.0, 2.8, 2.81, 2.81, 2.81, 2.81], FALLING)) == []


@pytest.mark.parametrize(("stderr", "steps"), [(0.024, [30]), (0.026, [40]), (0.19, [60]), (0.2, []), (None, [])])
def test_the_rise_must_exceed_two_standard_errors(stderr, steps):
    assert told(log([3.5, 3.0, 2.8, 2.9, 3.0, 3.1, 3.3], FALLING, stderr)) == steps


def test_the_standard_error_is_that_of_the_lowest_loss():
    lines = log([3.5, 3.0, 2.8, 2.9, 3.1], FALLING)
    for line in lines:
        if "val_loss" in line:
            line["val_loss_stderr"] = 0.2 if line["val_loss"] == 2.8 else 0.001
    assert told(lines) == []
    for line in lines:
        if "val_loss" in line:
            line["val_loss_stderr"] = 0.001 if line["val_loss"] == 2.8 else 0.9
    assert told(lines) == [30]


@pytest.mark.parametrize("trains", [[3.0] * 7, [1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6], []])
def test_it_is_no_overfitting_unless_training_loss_fell(trains):
    assert told(log([3.5, 3.0, 2.8, 2.9, 3.1, 3.3, 3.5], trains)) == []


def test_training_loss_is_compared_with_that_before_the_lowest_validation_loss():
    assert told(log([3.5, 3.0, 2.8, 2.9, 3.1, 3.3], [3.0, 1.5, 2.4, 2.0, 1.6])) == []  # up from 1.5
    assert told(log([3.5, 3.0, 2.8, 2.9, 3.1, 3.3], [3.0, 1.5, 2.4, 2.0, 1.4])) == [50]


def test_without_training_losses_between_evaluations_the_latest_count():
    lines = [line for line in log([3.5, 3.0, 2.8, 2.9, 3.1], FALLING) if "val_loss" in line or line["step"] in (3, 33)]
    assert [e.training for e in evaluations(lines)] == [None, 3.1, 3.1, 3.1, 1.6]
    assert told(lines) == [40]


def test_a_best_before_the_first_step_is_compared_with_the_first_training_losses():
    assert told(log([2.0, 2.1, 2.3, 2.5], [1.9, 1.7, 1.5])) == [20]


def test_a_new_lowest_loss_ends_a_rise_and_another_rise_is_told_again():
    assert told(log([3.0, 2.5, 2.8, 2.9, 2.0, 2.3, 2.6], FALLING)) == [20, 50]


@pytest.mark.parametrize(("epoch", "steps"), [(30, [30]), (31, [40]), (1000, [])])
def test_nothing_is_told_within_the_first_epoch(epoch, steps):
    assert told(log([3.5, 3.0, 2.8, 2.9, 3.1], FALLING), epoch) == steps


@pytest.mark.parametrize(("windows", "steps"), [(1, []), (3, []), (4, [40]), (5, [40]), (10, [30])])
def test_few_windows_prove_less(windows, steps):
    vals = [3.5, 3.0, 2.8, 2.85, 2.85]  # the means are 2.5 and then 5 standard errors above
    assert told(log(vals, FALLING), chance=TEXT._replace(examples=windows)) == steps


def test_a_loss_of_zero_is_no_overfitting():
    assert told(log([1.0, 1e-5, 2e-6, 9e-6, 4e-5], [1.0, 1e-4, 1e-5, 1e-6, 1e-7], stderr=1e-8)) == []


@pytest.mark.parametrize("accuracy", [0.098, 0.1, 0.125])
def test_at_ten_percent_accuracy_nothing_is_overfitted(accuracy):
    lines = log([2.31, 2.35, 2.6, 3.0, 4.0], [9.0, 7.0, 5.0, 3.0], accuracy=accuracy)
    assert told(lines, chance=DIGITS) == []
    assert told([line | {"val_accuracy": 0.9} if "val_loss" in line else line for line in lines], chance=DIGITS)


def test_random_labels_learned_by_heart_are_overfitting_though_validation_never_left_chance_level():
    assert told(log([2.3, 2.5, 3.0, 4.0], [2.3, 1.5, 0.3], accuracy=0.1), chance=DIGITS) == [20]


def test_the_warning_names_both_losses_and_the_checkpoint_that_is_kept():
    message = overfitting(evaluations(log([3.5, 3.0, 2.8, 2.9], FALLING)), EPOCH, TEXT)
    assert message is not None and "from 2.8000 (step 20) to 2.9000" in message
    assert "(step 20, loss 2.8000)" in message
    seen = evaluations(log([3.5, 3.0, 2.8, 2.9], FALLING, accuracy=0.91))
    message = overfitting([*seen[:-1], seen[-1]._replace(accuracy=0.92)], EPOCH, DIGITS)
    assert message is not None and "from 2.8000 (step 20)" in message and "(step 30, accuracy 92.00%)" in message


counts = st.lists(st.integers(0, 1000), min_size=2, max_size=12).filter(lambda found: sum(found) > 0)


@settings(deadline=None, max_examples=30)
@given(counts, st.integers(0, 2**32))
def test_no_constant_answer_scores_below_chance_level(found, seed):
    frequencies = torch.tensor(found, dtype=torch.float64)
    shares = frequencies / frequencies.sum()
    targets = torch.arange(len(found))
    noise = torch.randn(len(found), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    for cost, answer in (
        (cross_entropy, shares.log().clamp(min=-50)),
        (squared_error, torch.logit(shares, eps=1e-12)),
    ):
        best, worse = ((shares * EACH[cost](a.expand(len(found), -1), targets)).sum() for a in (answer, answer + noise))
        level = constant_loss(found, cost.__name__)
        assert level == pytest.approx(float(best), abs=1e-6)
        assert float(worse) >= level - 1e-6


def test_chance_level_of_ten_equally_frequent_digits():
    assert constant_loss([7] * 10, "cross_entropy") == pytest.approx(math.log(10))
    assert constant_loss([7] * 10, "squared_error") == pytest.approx(10 * 0.1 * 0.9)


@pytest.mark.parametrize(
    ("loss", "accuracy", "training", "so"),
    [
        (2.30, 0.10, 2.31, True),
        (2.30, 0.10, None, True),
        (2.26, 0.20, 2.3, True),
        (2.25, 0.20, 2.3, False),  # below 98 % of ln 10, and not at 11 %
        (49.0, 0.11, 50.0, True),
        (50.0, 0.20, 50.0, True),
        (50.0, 0.60, 50.0, False),  # sure of itself, but it has learned
        (2.00, 0.138, 2.3, False),
        (2.00, 0.137, 2.3, True),  # 11 % and less than two standard errors
        (2.30, 0.10, 1.0, False),
    ],
)
def test_digits_at_chance_level(loss, accuracy, training, so):
    assert at_chance(Evaluated(100, loss, 0.01, accuracy, training), DIGITS) == so


@pytest.mark.parametrize(
    ("loss", "training", "so"),
    [(3.92, 3.9, True), (3.83, 3.9, False), (3.84, 3.9, True), (20.0, 20.0, True), (6.0, 0.5, False)],
)
def test_text_at_chance_level(loss, training, so):
    assert at_chance(Evaluated(100, loss, 0.01, None, training), TEXT) == so


def config(*words: str, file: str = "digits_demo.toml") -> Config:
    """A shipped config with some settings changed."""
    from configs.command import check

    command = parse([str(ROOT / "configs" / file), *words])
    return check(command.settings, command.origins)


@pytest.mark.parametrize("file", sorted(p.name for p in (ROOT / "configs").glob("*.toml")))
def test_no_setting_of_a_shipped_config_is_suspicious(file):
    asked = config(file=file)
    if asked.model is not None:
        expected = ["model.init = normal, which saturates sigmoid"] if file == "digits.toml" else []
        assert suspects(asked) == expected


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        (["--model.init", "zero"], "model.init = zero"),
        (["--model.init", "normal", "--model.activation", "sigmoid"], "model.init = normal"),
        (["--optim.lr", "100"], "optim.lr = 100, above the usual"),
        (["--optim.lr", "1e-7"], "optim.lr = 1e-07, below the usual"),
        (["--optim.name", "muon", "--optim.muon_lr", "5"], "optim.muon_lr = 5, above"),
        (["--model.activation", "sigmoid", "--model.sizes", "[784,9,9,9,9,10]"], "4 hidden layers of sigmoid"),
        (["--model.dropout", "0.9"], "model.dropout = 0.9"),
        (["--optim.weight_decay", "30"], "optim.weight_decay = 30"),
        (["--optim.l1", "1"], "optim.l1 = 1"),
        (["--optim.name", "sgd", "--optim.grad_clip", "1e-6"], "optim.grad_clip = 1e-06"),
    ],
)
def test_settings_that_keep_a_network_from_learning_are_named(words, cause):
    found = suspects(config(*words))
    assert len(found) == 1 and found[0].startswith(cause)


def test_a_wide_first_draw_of_a_transformer_is_named():
    assert suspects(config("--model.init", "normal", file="shakespeare_adamw.toml"))[0].startswith(
        "model.init = normal"
    )


def test_without_a_suspicious_setting_the_three_likely_causes_are_named():
    asked = config("--optim.schedule", "constant", "--train.epochs", "20")
    message = chance_level([Evaluated(200, 2.31, 0.01, 0.1, 2.31)], DIGITS, asked)
    assert message is not None and "still at chance level: validation loss 2.3100, accuracy 10.00%" in message
    assert all(word in message for word in ("--optim.lr 0.01", "--model.init uniform", "--model.activation relu"))


def test_chance_level_is_told_once_and_only_after_the_rate_has_risen():
    asked = config("--optim.schedule", "constant", "--optim.warmup_steps", "80")
    seen = [Evaluated(step, 2.31, 0.01, 0.1, 2.31) for step in range(0, 400, 40)]
    assert [s.step for n, s in enumerate(seen, 1) if chance_level(seen[:n], DIGITS, asked)] == [160]


def test_a_network_that_falls_back_is_at_chance_level_again():
    seen = [Evaluated(0, 2.3, 0, 0.1, None), Evaluated(200, 1.0, 0, 0.7, 1), Evaluated(400, 9.0, 0, 0.1, 9.0)]
    message = chance_level(seen, DIGITS, config("--optim.schedule", "constant"))
    assert message is not None and "after 400 steps" in message and "again at chance level" in message


@pytest.mark.parametrize(
    ("words", "step"),
    [
        (["--optim.schedule", "constant"], 100),
        (["--optim.schedule", "cosine", "--optim.warmup_steps", "300"], 600),
        (["--train.epochs", "0.1"], 100),
    ],
)
def test_the_step_from_which_a_network_should_have_learned(words, step):
    assert warm_after(config(*words)) == step


def test_one_cycle_has_risen_after_three_tenths_of_the_run():
    asked = config()
    steps = asked.model_copy(update={"train": asked.train.model_copy(update={"steps": 2000, "epochs": None})})
    assert warm_after(steps) == 600

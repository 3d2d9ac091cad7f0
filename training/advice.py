"""Warnings after an evaluation: overfitting, or a loss at chance level and its likely cause. Does not import torch."""

import math
from itertools import pairwise
from typing import NamedTuple

from configs.schema import Config, MLPConfig
from training.validation import Evaluated, best_of

VISIBLE = 1e-4  # the last digit of a loss as it is printed
NEAR = 0.98  # of chance level: a loss above this is no better than a constant answer
LEARNED = 0.9  # of chance level: a training loss below this has learned something, if only its own examples
WARM = 100  # steps before which no network is said to be at chance level
RISE = 0.3  # of a run in which one_cycle's rate rises
USUAL = {  # learning rates by optimiser
    "sgd": (1e-3, 10.0),
    "rmsprop": (1e-5, 2e-2),
    "adam": (1e-5, 2e-2),
    "adamw": (1e-5, 2e-2),
    "muon": (1e-5, 2e-2),
}
USUAL_MUON = (1e-3, 0.2)  # of the hidden matrices
SQUASHING = ("sigmoid", "tanh")


class Chance(NamedTuple):
    """The scores of a constant answer: the frequencies of the targets."""

    loss: float
    """by the cost that validation reports"""
    training: float
    """by the cost that trains"""
    accuracy: float
    """of the most frequent target"""
    examples: int
    """in the validation split"""


def constant_loss(counts: list[int], cost: str) -> float:
    """The lowest loss of an answer that is the same for all targets, which occur so often.

    cross_entropy: their entropy, at most ln V; squared_error: the sum of p (1 - p).
    """
    shares = [count / sum(counts) for count in counts if count]
    if cost == "squared_error":
        return sum(p * (1 - p) for p in shares)
    return -sum(p * math.log(p) for p in shares)


def at_chance(evaluated: Evaluated, chance: Chance) -> bool:
    """Whether the network does no better than a constant answer, on the training split either."""
    if evaluated.training is not None and evaluated.training < LEARNED * chance.training:
        return False
    high = evaluated.loss >= NEAR * chance.loss
    if evaluated.accuracy is None:
        return high
    p = chance.accuracy
    guessed = evaluated.accuracy <= p + 2 * math.sqrt(p * (1 - p) / chance.examples)
    return guessed or (high and evaluated.accuracy < 2 * p)


def warm_after(config: Config) -> int:
    """The step at which a network should have learned something: well past the rise of the learning rate."""
    optim = config.optim
    rise = RISE * (config.train.steps or 0) if optim.schedule == "one_cycle" else 2 * optim.warmup_steps
    return max(WARM, math.ceil(rise))


def chance_level(found: list[Evaluated], chance: Chance, config: Config) -> str | None:
    """A warning at the first evaluation after warm-up that is at chance level, with what is likely to be the cause."""
    stuck = [e for e in found if e.step >= warm_after(config) and at_chance(e, chance)]
    if not found or stuck != found[-1:]:
        return None
    now = found[-1]
    still = "still" if all(at_chance(evaluated, chance) for evaluated in found) else "again"
    accuracy = "" if now.accuracy is None else f", accuracy {now.accuracy:.2%}"
    causes = suspects(config)
    if causes:
        why = f"likely cause{'s' * (len(causes) > 1)}: {'; '.join(causes)}"
    else:
        why = f"likely causes: {', '.join(settings_to_try(config))}; try other values"
    return (
        f"warning: after {now.step:,} steps the network is {still} at chance level: validation loss {now.loss:.4f}"
        f"{accuracy}, where a constant answer scores {chance.loss:.4f}. {why[0].upper()}{why[1:]}"
    )


def settings_to_try(config: Config) -> list[str]:
    """The rate, the initialisation and the activation, as options with their values."""
    assert config.model is not None
    rate = f"--optim.lr {config.optim.lr:g}"
    return [rate, f"--model.init {config.model.init}", f"--model.activation {config.model.activation}"]


def suspects(config: Config) -> list[str]:
    """Settings that can keep a network from learning anything, each with the reason."""
    model, optim = config.model, config.optim
    assert model is not None
    found = [unusual("optim.lr", optim.lr, USUAL[optim.name], optim.name)]
    if optim.name == "muon":
        found.append(unusual("optim.muon_lr", optim.muon_lr, USUAL_MUON, "muon"))
    if model.init == "zero" and config.train.start is None:
        found.append("model.init = zero, which keeps all neurons of a layer equal")
    if isinstance(model, MLPConfig) and model.activation in SQUASHING:
        hidden = len(model.sizes) - 2
        if model.init == "normal":
            found.append(f"model.init = normal, which saturates {model.activation}")
        if hidden > 3:
            found.append(f"{hidden} hidden layers of {model.activation}, through which gradients vanish (try relu)")
    if model.kind != "mlp" and model.init == "normal" and config.train.start is None:
        found.append("model.init = normal, 50 times as wide as gpt2")
    if model.dropout > 0.7:
        found.append(f"model.dropout = {model.dropout:g}, which drops most of the network")
    if optim.weight_decay > 1:
        found.append(f"optim.weight_decay = {optim.weight_decay:g}, which pulls all weights to zero")
    if optim.l1 > 0.01:
        found.append(f"optim.l1 = {optim.l1:g}, which pulls all weights to zero")
    if 0 < optim.grad_clip < 1e-3 and optim.name == "sgd":
        found.append(f"optim.grad_clip = {optim.grad_clip:g}, which makes every step tiny")
    return [cause for cause in found if cause]


def unusual(name: str, rate: float, usual: tuple[float, float], optimizer: str) -> str | None:
    """A cause if the rate is outside the usual range, else None."""
    low, high = usual
    if low <= rate <= high:
        return None
    where = "below" if rate < low else "above"
    return f"{name} = {rate:g}, {where} the usual {low:g} to {high:g} for {optimizer}"


def overfitted(found: list[Evaluated], epoch: float, chance: Chance) -> list[Evaluated]:
    """The evaluations since the lowest validation loss that show overfitting: it rose while training loss fell.

    It rose if the mean of an evaluation's loss and the one's before exceeds the lowest by more than two standard errors
    of the lowest (in units of Student's t, so that three windows prove nothing). None counts within the first epoch,
    which is `epoch` steps, or at chance level. Training losses are means between evaluations.
    """
    if not found or chance.examples <= 3:
        return []
    lowest = min(found, key=lambda e: e.loss)
    since = found[found.index(lowest) :]
    n, error = chance.examples, math.inf if lowest.stderr is None else lowest.stderr
    doubt = max(2 * error * math.sqrt((n - 1) / (n - 3)), VISIBLE)
    at_lowest = next((e.training for e in since if e.training is not None), 0.0)

    def shown(before: Evaluated, now: Evaluated) -> bool:
        rose = (before.loss + now.loss) / 2 - lowest.loss > doubt
        fell = now.training is not None and now.training < at_lowest
        return rose and fell and now.step >= epoch and not at_chance(now, chance)

    return [now for before, now in pairwise(since) if shown(before, now)]


def overfitting(found: list[Evaluated], epoch: float, chance: Chance) -> str | None:
    """A warning at the first evaluation of a rise that shows overfitting."""
    if not found or overfitted(found, epoch, chance) != found[-1:]:
        return None
    lowest, best, now = min(found, key=lambda e: e.loss), best_of(found), found[-1]
    return (
        f"warning: validation loss rose from {lowest.loss:.4f} (step {lowest.step:,}) to {now.loss:.4f} while "
        f"training loss fell: the network is overfitting. The best checkpoint (step {best.step:,}, {best.score}) is "
        "kept; use --train.patience to stop early, or add data or --model.dropout"
    )

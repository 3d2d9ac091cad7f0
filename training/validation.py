"""The evaluations of a run as its log records them, and which of them is the best. Does not import torch.

Everything is computed from log.jsonl alone, so a resumed run decides like an uninterrupted one.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

from configs.schema import Config, MLPConfig


class Evaluated(NamedTuple):
    """One evaluation on the validation split."""

    step: int
    loss: float
    """mean over all targets, by the cost that `judged_by` names"""
    stderr: float | None
    """standard error of `loss` over windows or images; None in logs of earlier versions and for a single window"""
    accuracy: float | None
    """None for text"""
    training: float | None
    """mean of the training losses logged since the evaluation before, or the latest mean there is; None if none was"""

    @property
    def score(self) -> str:
        """The score that decides which is best, such as "accuracy 98.61%" or "loss 1.2030"."""
        return f"loss {self.loss:.4f}" if self.accuracy is None else f"accuracy {self.accuracy:.2%}"


def judged_by(config: Config) -> str:
    """The cost that validation reports: cross-entropy for text, whatever trains it; for digits the cost that trains."""
    return config.train.loss if isinstance(config.model, MLPConfig) else "cross_entropy"


def costs(config: Config) -> str:
    """The cost that trains, and the one that validation reports where it is another."""
    trains, reports = config.train.loss.replace("_", " "), judged_by(config).replace("_", " ")
    return trains if trains == reports else f"{trains} (validation: {reports})"


def evaluations(log: Iterable[dict[str, Any]]) -> list[Evaluated]:
    """Every evaluation in these lines of log.jsonl, in order."""
    found: list[Evaluated] = []
    losses: list[float] = []
    latest = None
    for line in log:
        if "loss" in line:
            losses.append(line["loss"])
        if "val_loss" in line:
            latest = sum(losses) / len(losses) if losses else latest
            losses = []
            stderr, accuracy = line.get("val_loss_stderr"), line.get("val_accuracy")
            found.append(Evaluated(line["step"], line["val_loss"], stderr, accuracy, latest))
    return found


def rank(evaluated: Evaluated) -> tuple[float, float]:
    """Lower is better: digits by accuracy, then loss; text by loss."""
    return (-(evaluated.accuracy or 0.0), evaluated.loss)


def best_of(found: list[Evaluated]) -> Evaluated:
    """The best of at least one evaluation; of equals the earliest."""
    return min(found, key=rank)


def since_best(found: list[Evaluated]) -> int:
    """How many evaluations came after the best."""
    return len(found) - 1 - found.index(best_of(found)) if found else 0

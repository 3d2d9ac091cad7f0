"""Loss and accuracy over an entire split, never estimated from a few batches."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from data.dataset import IGNORED, Dataset
from training.loss import EACH
from training.world import ALONE, World

LOGITS_AT_ONCE = 2**18  # per batch: large enough to be fast, small enough to stay in the cache


class Evaluation(NamedTuple):
    """What a network scores on a split."""

    loss: float
    """mean over all targets; nats for cross-entropy"""
    accuracy: float
    """share of targets whose largest logit is the right one"""
    targets: int
    """how many there were"""
    stderr: float | None = None
    """standard error of `loss` over the examples (windows, images); None for a single one"""

    @property
    def perplexity(self) -> float:
        """exp(loss): how many equally likely tokens would be as hard to predict."""
        return math.exp(min(self.loss, 700))

    def bits_per_byte(self, byte_count: int) -> float:
        """The loss in a unit that doesn't depend on the tokenizer."""
        return self.loss * self.targets / math.log(2) / byte_count


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    data: Dataset,
    split: str,
    loss: Callable[[Tensor, Tensor], Tensor],
    *,
    forward: Callable[[Tensor], Tensor] | None = None,
    size: int = 1,
    stop: Callable[[], bool] = lambda: False,
    world: World = ALONE,
) -> Evaluation | None:
    """Loss, its standard error and accuracy over every example of the split; None if `stop` interrupted it.

    `loss` is a cost of training/loss.py; its values for single targets are summed in float64.

    `forward` is the model as it is called (by default itself), `size` the least number of examples in a
    batch. The model is in eval mode meanwhile, so that dropout is off. The processes of `world` take turns with
    the batches and all get the result, bit for bit that of a single process.
    """
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    sums: list[float] = []  # of the loss, one for each example, in order, whichever process computed it
    counts: list[int] = []  # of its targets
    right = 0
    fits = min(LOGITS_AT_ONCE // (data.positions * outputs(model)), data.count(split))
    for number, (x, y) in enumerate(data.in_order(split, max(size, fits))):
        turn = number % world.size
        if turn == 0 and stop():
            break
        counted = [n for n in (y != IGNORED).view(len(y), -1).sum(dim=1).tolist() if n]  # without what fills a batch up
        counts += counted
        if turn != world.rank:
            sums += [0.0] * len(counted)
            continue
        y = y.to(device)
        logits = (forward or model)(x.to(device))
        losses = EACH[loss](logits, y).view(len(y), -1)[: len(counted)]
        sums += losses.cpu().double().sum(dim=1).tolist()
        right += int((logits.argmax(dim=-1) == y).sum())
    model.train(training)
    if stop():
        return None
    *sums, right = world.reduced([*sums, right], "SUM")
    mean, targets = math.fsum(sums) / sum(counts), sum(counts)
    return Evaluation(mean, int(right) / targets, targets, standard_error(sums, counts, mean))


def standard_error(sums: list[float], counts: list[int], mean: float) -> float | None:
    """Of the mean loss per target, from each example's summed loss and number of targets; None for one example.

    s / sqrt(n) for examples of one length; a shorter one (a text's last window) weighs as much as it has targets.
    """
    n = len(sums)
    if n < 2:
        return None
    squares = math.fsum((total - count * mean) ** 2 for total, count in zip(sums, counts, strict=True))
    return math.sqrt(squares * n / (n - 1)) / sum(counts)


def outputs(model: nn.Module) -> int:
    """Number of logits per position: the rows of the last matrix."""
    return [p for _, p in model.named_parameters(remove_duplicate=False) if p.ndim == 2][-1].size(0)

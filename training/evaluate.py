"""How good a network is: measured over a whole split, never estimated from a few batches."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from data.dataset import IGNORED, Dataset
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

    @property
    def perplexity(self) -> float:
        """Between how many equally likely tokens the network hesitates."""
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
    """Loss and accuracy over every example of the split; None if `stop` asked to give up.

    `forward` is the model as it is called (by default itself), `size` the least number of examples in a
    batch. The model is in eval mode meanwhile, so that dropout is off. The processes of `world` take turns with the
    batches and all get the result, which is the same, bit for bit, as that of one process.
    """
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    totals: list[float] = []  # one for each batch, so that they are added up in order, whoever computed them
    right, count = 0, 0
    fits = min(LOGITS_AT_ONCE // (data.positions * outputs(model)), data.count(split))
    for number, (x, y) in enumerate(data.in_order(split, max(size, fits))):
        turn = number % world.size
        if turn == 0 and stop():
            break
        totals.append(0.0)
        if turn != world.rank:
            continue
        x, y = x.to(device), y.to(device)
        logits = (forward or model)(x)
        counted = int((y != IGNORED).sum())
        totals[-1] = float(loss(logits, y)) * counted
        right += int((logits.argmax(dim=-1) == y).sum())
        count += counted
    model.train(training)
    if stop():
        return None
    *totals, right, count = world.reduced([*totals, right, count], "SUM")
    return Evaluation(sum(totals) / count, int(right) / int(count), int(count))


def outputs(model: nn.Module) -> int:
    """How many logits the network gives: as many as its last matrix has rows."""
    return [p for _, p in model.named_parameters(remove_duplicate=False) if p.ndim == 2][-1].size(0)

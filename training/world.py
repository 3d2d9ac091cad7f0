"""Who shares a step: one process, or several that torchrun started, each of which takes some of the step's batches.

A step is the same however many share it, since its batches have numbers. What several processes need beyond that is
in `training/parallel.py`, which a process alone never loads.
"""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import distributed as dist
from torch import nn

from configs.errors import UserError
from configs.schema import TrainConfig
from training.run import Interruption


class World(NamedTuple):
    """Who am I among the processes that share a run? By default the only one."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    """among the processes of one machine, which is also the number of its GPU"""
    store: Any = None
    """what all can read and write before they are joined; None for a process alone"""

    @property
    def leads(self) -> bool:
        """Whether this process is the one that decides, writes and speaks."""
        return self.rank == 0

    def share(self, step: int, accumulate: int) -> range:
        """The numbers of those of the step's batches that are this process's to compute."""
        return range(step * accumulate + self.rank, (step + 1) * accumulate, self.size)

    def reduced(self, numbers: list[float], how: str) -> list[float]:
        """These numbers' "SUM" or "MAX" over all processes, one by one; every process waits for all others."""
        if self.size == 1:
            return numbers
        tensor = torch.tensor(numbers, dtype=torch.float64)
        dist.all_reduce(tensor, getattr(dist.ReduceOp, how))
        return tensor.tolist()

    def sum(self, number: float) -> float:
        """The sum over all processes."""
        return self.reduced([number], "SUM")[0]

    def any(self, flag: bool) -> bool:
        """Whether it is so for any process."""
        return self.reduced([float(flag)], "MAX")[0] > 0

    @torch.no_grad()
    def align(self, model: nn.Module) -> None:
        """Give every process the first one's weights."""
        for parameter in model.parameters() if self.size > 1 else ():
            dist.broadcast(parameter, src=0)


ALONE = World()


def together() -> AbstractContextManager[World]:
    """This process among those that torchrun started; ALONE if it started none."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return nullcontext(ALONE)
    from training.parallel import together

    return together()


class Agreed:
    """Whether any of the processes was asked to stop; all hear the same answer, and with it the exit code."""

    def __init__(self, stop: Interruption, world: World) -> None:
        self.stop, self.world, self.exit_code = stop, world, 0

    def __call__(self) -> bool:
        self.exit_code = int(self.world.reduced([self.stop.exit_code], "MAX")[0])
        return self.exit_code != 0


def batches(world: World, shared: nn.Module | None, step: int, accumulate: int) -> Iterator[int]:
    """The numbers of this process's batches; in the last one's backward pass gradients are summed over all processes.

    Until then they add up where they are: an exchange costs the same for one batch as for all.
    """
    mine = world.share(step, accumulate)
    with shared.no_sync() if shared else nullcontext():
        yield from mine[:-1]
    yield mine[-1]


def require_equal_shares(train: TrainConfig, world: World) -> None:
    """Raises UserError, with an equal setting, unless every process gets as many of a step's batches."""
    count, total = train.accumulate, train.batch_size * train.accumulate
    if count % world.size == 0:
        return
    equal = next((k for k in range(world.size, total + 1, world.size) if k > count and total % k == 0), None)
    way = (
        f"the same steps: --train.batch_size {total // equal} --train.accumulate {equal}"
        if equal
        else f"a step of {total} examples cannot be: start another number of processes"
    )
    raise UserError(f"train.accumulate={count} batches can't be shared equally by {world.size} processes; {way}")

"""Which process computes which micro-batches; parallel.py has what only several processes need.

Micro-batches are numbered, so a step is the same for any number of processes.
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
    """This process's rank among those that share a run; by default it is the only one."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    """rank among the processes of one machine, also the index of its GPU"""
    store: Any = None
    """key-value store shared by all processes; None for a single process"""

    @property
    def leads(self) -> bool:
        """Whether this is rank 0, which alone decides, writes and prints."""
        return self.rank == 0

    def share(self, step: int, accumulate: int) -> range:
        """The numbers of the step's micro-batches that this process computes."""
        return range(step * accumulate + self.rank, (step + 1) * accumulate, self.size)

    def reduced(self, numbers: list[float], how: str) -> list[float]:
        """The elementwise "SUM" or "MAX" over all processes; waits for every process."""
        if self.size == 1:
            return numbers
        tensor = torch.tensor(numbers, dtype=torch.float64)
        dist.all_reduce(tensor, getattr(dist.ReduceOp, how))
        return tensor.tolist()

    def sum(self, number: float) -> float:
        """The sum over all processes."""
        return self.reduced([number], "SUM")[0]

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        return self.reduced([float(flag)], "MAX")[0] > 0

    @torch.no_grad()
    def align(self, model: nn.Module) -> None:
        """Copy rank 0's weights to every process."""
        for parameter in model.parameters() if self.size > 1 else ():
            dist.broadcast(parameter, src=0)


ALONE = World()


def together() -> AbstractContextManager[World]:
    """Context of this process's World; ALONE unless torchrun started several."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return nullcontext(ALONE)
    from training.parallel import together

    return together()


class Agreed:
    """Whether any process was interrupted; every process gets the same answer and exit code."""

    def __init__(self, stop: Interruption, world: World) -> None:
        self.stop, self.world, self.exit_code = stop, world, 0

    def __call__(self) -> bool:
        self.exit_code = int(self.world.reduced([self.stop.exit_code], "MAX")[0])
        return self.exit_code != 0


def batches(world: World, shared: nn.Module | None, step: int, accumulate: int) -> Iterator[int]:
    """This process's micro-batch numbers; gradients are exchanged only in the last one's backward pass.

    Until then they accumulate locally: an exchange costs the same for one batch as for all.
    """
    mine = world.share(step, accumulate)
    with shared.no_sync() if shared else nullcontext():
        yield from mine[:-1]
    yield mine[-1]


def require_equal_shares(train: TrainConfig, world: World) -> None:
    """Raises UserError, with equivalent settings, unless a step's micro-batches divide evenly among the processes."""
    count, total = train.accumulate, train.batch_size * train.accumulate
    if count % world.size == 0:
        return
    equal = next((k for k in range(world.size, total + 1, world.size) if k > count and total % k == 0), None)
    way = (
        f"for the same steps, use --train.batch_size {total // equal} --train.accumulate {equal}"
        if equal
        else f"{total} examples cannot be split evenly: use a different number of processes"
    )
    raise UserError(f"train.accumulate={count} is not divisible by {world.size} processes; {way}")

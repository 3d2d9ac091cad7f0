"""One step shared by several processes: each takes some of its batches, and their gradients are added up.

torchrun starts the processes and tells each its rank. The first (rank 0) alone decides, writes and speaks; the others
follow. A step is the same however many share it, since its batches have numbers. Gradients travel by nccl between
GPUs and by gloo between CPUs; the few numbers that the processes agree on travel by gloo.
"""

import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from configs.errors import UserError, spoken_once
from configs.schema import TrainConfig
from training.run import Interruption, Run

PLAN, FAILURE = "plan", "failure"  # keys in the store that all processes see
POLL = 0.05  # seconds


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

    def join(self, device: str) -> None:
        """Meet the other processes; `cuda` is from now on this process's own GPU. Raises UserError if it has none."""
        cuda = device.startswith("cuda")
        if cuda:
            if device != "cuda" or self.local_rank >= torch.cuda.device_count():
                raise UserError(
                    f"train.device: {self.size} processes need a GPU each; this machine has {torch.cuda.device_count()}"
                    f", and {device} was asked for; start fewer, with --train.device cuda"
                )
            torch.cuda.set_device(self.local_rank)
        backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
        mine = torch.device("cuda", self.local_rank) if cuda else None
        dist.init_process_group(backend, store=self.store, rank=self.rank, world_size=self.size, device_id=mine)

    def tell(self, plan: str) -> None:
        """Say what the others wait for."""
        self.store.set(PLAN, plan)

    def told(self) -> str:
        """What the first process says, however long it takes. Ends this process if the first one fails meanwhile."""
        while not self.store.check([PLAN]):  # a blocking wait would be deaf to signals, and has a limit
            if self.store.check([FAILURE]):
                raise SystemExit(int(self.store.get(FAILURE).split()[0]))
            time.sleep(POLL)
        return self.store.get(PLAN).decode()


ALONE = World()


@contextmanager
def together() -> Iterator[World]:
    """This process among those that torchrun started; ALONE if it started none.

    Of several processes that fail, the first to do so says why, and all end with its exit code.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield ALONE
        return
    store, rank, size = next(dist.rendezvous("env://"))
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")  # the store outlives it, with what was told in it
    store = dist.PrefixStore(f"attempt {attempt}", store)
    world = World(rank, size, int(os.environ.get("LOCAL_RANK", rank)), store)
    try:
        with spoken_once():
            yield world
    except Exception as error:
        fail(world, error)
    if dist.is_initialized():
        dist.destroy_process_group()


def fail(world: World, error: Exception) -> None:
    """Raise the error if it is the first of all processes', else SystemExit with the exit code of the first."""
    lost = isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))
    code = 1 if lost else getattr(error, "exit_code", 1)
    try:
        first = world.store.compare_set(FAILURE, "", f"{code} {world.rank}").split()
    except RuntimeError:  # the store has gone with the process that kept it
        first = []
    if first and int(first[1]) != world.rank:
        raise SystemExit(int(first[0])) from error
    if lost:
        raise UserError(
            "another process of this run was lost; all is saved up to the last checkpoint, and the same command "
            "with --resume goes on from there", 1
        ) from error  # fmt: skip
    raise error


class Agreed:
    """Whether any of the processes was asked to stop; all hear the same answer, and with it the exit code."""

    def __init__(self, stop: Interruption, world: World) -> None:
        self.stop, self.world, self.exit_code = stop, world, 0

    def __call__(self) -> bool:
        self.exit_code = int(self.world.reduced([self.stop.exit_code], "MAX")[0])
        return self.exit_code != 0


class ReadOnlyRun(Run):
    """The run folder as all but the first process use it: what they would write has been written."""

    def __init__(self, folder: Any) -> None:
        self.folder, self.checkpoints = folder, folder / "checkpoints"

    def __exit__(self, *error: object) -> None:
        pass

    def write(self, name: str, content: str) -> None:
        """Nothing."""

    def add(self, name: str, line: str) -> None:
        """Nothing."""

    def cut_log(self, length: int) -> None:
        """Nothing."""


Forward = Callable[[Tensor], Tensor]


def replicate(model: nn.Module, train: TrainConfig, world: World) -> tuple[Forward, DistributedDataParallel | None]:
    """The model as training calls it, and what shares its gradients; the model stays plain, its names as they are.

    DDP adds gradients up while the rest of them is still being computed. Its own hook would take their mean, but every
    loss is divided by all batches of the step already. It is compiled from outside, as torch's documentation has
    it, so that the compiler leaves room for the exchange between its parts.
    """
    shared = None
    if world.size > 1:
        with warnings.catch_warnings(action="ignore", category=FutureWarning):  # its new name is not in torch 2.10 yet
            # Buffers are constants here; an exchange in evaluation would wait for processes that have no batch left.
            shared = DistributedDataParallel(model, broadcast_buffers=False, gradient_as_bucket_view=True)
        shared.register_comm_hook(None, add_up)
    forward = torch.compile(shared or model) if train.compile == "on" else shared or model
    if train.dtype == "bfloat16":
        return torch.autocast(str(train.device).partition(":")[0], torch.bfloat16)(forward), shared
    return forward, shared


def add_up(state: None, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
    """DDP's way to combine gradients: their sum over all processes."""
    work = dist.all_reduce(bucket.buffer(), async_op=True)
    assert work is not None
    return work.get_future().then(lambda done: done.value()[0])


def batches(world: World, shared: DistributedDataParallel | None, step: int, accumulate: int) -> Iterator[int]:
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

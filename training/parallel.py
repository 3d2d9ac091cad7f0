"""Data-parallel training: each process computes some of a step's micro-batches, and the gradients are summed.

torchrun starts the processes and sets their ranks. Rank 0 alone decides, writes and prints. Gradients go over nccl
between GPUs and gloo between CPUs; other values go over gloo.
"""

import math
import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

# Imported before there is a group: its functions have the group of that moment as their default, and one that they hold
# outlives destroy_process_group, until gloo's threads abort a process that is done (1 of 13). DDP imports it too late.
from torch.distributed.nn import functional  # noqa: F401
from torch.nn.parallel import DistributedDataParallel

from configs.errors import UserError, spoken_once
from configs.schema import Config, Settings
from data.dataset import Dataset
from training.plan import change
from training.prepare import Job, open_data
from training.restore import tokenizer_of
from training.run import Run, read_record
from training.world import World

PLAN, FAILURE = "plan", "failure"  # keys in the store that all processes see
POLL = 0.05  # seconds

TimeStep = Callable[[Dataset, Config], float]


@contextmanager
def together() -> Iterator[World]:
    """This process among those that torchrun started.

    Of several processes that fail, the first to do so says why, and all end with its exit code.
    """
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
            "another process died; progress up to the last checkpoint is saved. "
            "Rerun the same command with --resume", 1
        ) from error  # fmt: skip
    raise error


class Plan(Settings):
    """What the first of several processes tells the others, who then find all else in the run's folder."""

    folder: Path | None
    """none for --dry-run"""
    seconds: float | None = None
    """see Job; none for no limit"""


def prepare_together(lead: Callable[[TimeStep, World], Job | None], time_step: TimeStep, world: World) -> Job | None:
    """The first process prepares the run by `lead` and the others follow; then all are joined. Raises UserError."""
    job = lead(partial(time_share, time_step, world), world) if world.leads else follow(world)
    if world.leads:
        limit = job.seconds if job and job.seconds < math.inf else None
        tell(world, Plan(folder=job.run.folder if job else None, seconds=limit).model_dump_json())
    if job:
        join(world, str(job.config.train.device))
    return job


def follow(world: World) -> Job | None:
    """The run that the first process has prepared, as its folder describes it. Raises UserError for other data."""
    plan = Plan.model_validate_json(told(world))
    if plan.folder is None:
        return None
    record = read_record(plan.folder)
    data = open_data(record.resolved, tokenizer_of(plan.folder))
    if data.sha256 != record.data_sha256:
        raise UserError(f"rank {world.rank} sees different data from rank 0; all processes need the same files", 1)
    seconds = math.inf if plan.seconds is None else plan.seconds
    return Job(record.resolved, data, ReadOnlyRun(plan.folder), None, seconds, world)


def time_share(time_step: TimeStep, world: World, data: Dataset, config: Config) -> float:
    """Seconds of this process's share of a step; neither what exchanging gradients adds nor what dividing Muon's work
    saves is measured.
    """
    return time_step(data, change(config, accumulate=max(1, config.train.accumulate // world.size)))


def tell(world: World, plan: str) -> None:
    """Publish the plan that the other processes wait for."""
    world.store.set(PLAN, plan)


def told(world: World) -> str:
    """Wait for rank 0's plan, without a time limit. Ends this process if another one fails meanwhile."""
    while not world.store.check([PLAN]):  # a blocking wait would be deaf to signals, and has a limit
        if world.store.check([FAILURE]):
            raise SystemExit(int(world.store.get(FAILURE).split()[0]))
        time.sleep(POLL)
    return world.store.get(PLAN).decode()


def join(world: World, device: str) -> None:
    """Meet the other processes; `cuda` is from now on this process's own GPU. Raises UserError if it has none, or an
    Apple one."""
    cuda = device.startswith("cuda")
    if device == "mps":
        raise UserError("train.device: mps does not support several processes; use --train.device cpu")
    if cuda:
        if device != "cuda" or world.local_rank >= torch.cuda.device_count():
            raise UserError(
                f"train.device={device}: {world.size} processes need one GPU each, and this machine has "
                f"{torch.cuda.device_count()}; start fewer processes, with --train.device cuda"
            )
        torch.cuda.set_device(world.local_rank)
    backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
    mine = torch.device("cuda", world.local_rank) if cuda else None
    dist.init_process_group(backend, store=world.store, rank=world.rank, world_size=world.size, device_id=mine)


class ReadOnlyRun(Run):
    """The run folder as all but the first process use it: what they would write has been written."""

    def __init__(self, folder: Any) -> None:
        self.folder, self.checkpoints = folder, folder / "checkpoints"

    def __exit__(self, *error: object) -> None:
        pass

    def write(self, name: str, content: str) -> None:
        """Only rank 0 writes."""

    def add(self, name: str, line: str) -> None:
        """Nothing."""

    def cut(self, name: str, length: int | None = None) -> None:
        """Nothing."""


def shared_by_all(model: nn.Module) -> DistributedDataParallel:
    """The model with its gradients shared: added up over all processes while the rest of them is being computed.

    DDP's own hook would take their mean, but every loss is divided by all batches of the step already.
    """
    with warnings.catch_warnings(action="ignore", category=FutureWarning):  # its new name is not in torch 2.10 yet
        # Buffers are constants here; an exchange in evaluation would wait for processes that have no batch left.
        shared = DistributedDataParallel(model, broadcast_buffers=False, gradient_as_bucket_view=True)
    shared.register_comm_hook(None, add_up)
    return shared


def add_up(state: None, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
    """DDP communication hook: sum the gradients over all processes."""
    work = dist.all_reduce(bucket.buffer(), async_op=True)
    assert work is not None
    return work.get_future().then(lambda done: done.value()[0])

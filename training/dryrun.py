"""--dry-run: print what a run would take, timed on this machine if it fits, without writing anything."""

import json
import re
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path

import torch

from configs.errors import UserError
from configs.schema import Config, GPTConfig
from data.dataset import Dataset
from data.find import find_files
from training import checkpoint
from training.clock import duration
from training.cost import state_bytes
from training.device import choose_device, memory_explained
from training.footprint import memory_of
from training.forecast import (
    CPU_SHARE,
    Place,
    Time,
    flops,
    for_gpus,
    stands_alone,
    table,
    targets_in_a_step,
    with_known_vocabulary,
)
from training.gpus import GPU_SHARE, GPUS
from training.plan import change, memory, on_this_machine, resolve, run_seconds

TimeStep = Callable[[Config], float]
PATIENCE = 5.0  # seconds; slower micro-batches are estimated, not timed
PRODUCT = {"cpu": 1024, "mps": 4096, "cuda": 8192}  # rows of the matrices whose product is timed


def plan_without_data(asked: Config) -> str | None:
    """The plan from the config alone, if the text is missing and nothing has to be read from it; else None."""
    if not stands_alone(asked):
        return None
    try:
        find_files(asked.data.path, asked.data.extensions)
    except UserError as error:
        config = on_this_machine(with_known_vocabulary(asked))
        place, missing = this_place(config), f"{str(error).removeprefix('data.path: ')}; planned without it"
        if not has_room(config, place):
            return table(planned_for(config, place, asked.train.dtype), place, None, missing)
        seconds = by_arithmetic(config, place.speed)
        return table(config, place, Time(seconds, seconds * (config.train.steps or 0), timed=False), missing)
    return None


def plan_with_data(asked: Config, data: Dataset, time_step: TimeStep, processes: int = 1) -> str:
    """The plan from timed trial steps, or from arithmetic if a step does not fit or would take too long."""
    local = on_this_machine(asked)
    place = this_place(local, processes)
    fits = has_room(local, place)
    timed = fits and by_arithmetic(local, place.speed) / local.train.accumulate < PATIENCE
    measure = partial(by_micro_batch, time_step, processes) if timed else partial(by_arithmetic, speed=place.speed)
    with memory_explained(asked.train):
        config, seconds = resolve(asked, data, measure)
    examples = "images" if data.positions == 1 else "windows"
    counts = f"{data.count('train'):,} training {examples}, {data.count('val'):,} validation {examples}"
    if not fits:
        return table(planned_for(config, place, asked.train.dtype), place, None, counts)
    return table(config, place, Time(seconds, run_seconds(config, data, seconds), timed), counts)


def has_room(config: Config, place: Place) -> bool:
    """Whether the run fits in the device's memory; true if its size is unknown."""
    return not place.memory or memory_of(config).peak <= place.memory


def planned_for(config: Config, place: Place, dtype: str) -> Config:
    """The config to plan for a run that does not fit: for GPUs, or unchanged if only the batch is too large.

    `dtype` is the user's setting: `auto` means bfloat16 on GPUs, whatever it was resolved to on this machine.
    """
    network_too_large = place.memory and state_bytes(config) > place.memory
    return for_gpus(change(config, dtype=dtype)) if network_too_large else config


def by_micro_batch(time_step: TimeStep, processes: int, config: Config) -> float:
    """Seconds of a step, extrapolated from one micro-batch, so that a large `accumulate` does not slow the dry run.

    The optimiser's share, a small one, is counted once per micro-batch; communication between processes is not counted.
    """
    return config.train.accumulate / processes * time_step(change(config, accumulate=1))


def what_is_left(folder: Path, config: Config, same_pace: bool) -> str:
    """What --resume has left to do, in one line; with the time it takes if `same_pace`.

    Raises UserError for weights that cannot be trained (int8).
    """
    last, steps = checkpoint.last(folder / "checkpoints"), config.train.steps or 0
    if last:
        last.require_trainable()
    done = last.state.step if last else 0
    if done >= steps:
        return f"{folder} has finished all {steps:,} steps; raise --train.steps to continue"
    unit = "tokens" if isinstance(config.model, GPTConfig) else "images"
    left, targets = steps - done, (steps - done) * targets_in_a_step(config)
    seconds = pace(folder) if same_pace else None
    how_long = f"; {duration(left * seconds)} at the pace so far" if seconds else ""
    return f"{folder} resumes after step {done:,}: {left:,} of {steps:,} steps left, {targets:,} {unit}{how_long}"


def pace(folder: Path) -> float | None:
    """Median seconds per step from timing.jsonl, without evaluations; None if it records too few steps."""
    file = folder / "timing.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    rows = [row for line in lines if line.endswith("}") if "step" in (row := json.loads(line))]
    each = sorted(
        (later["at"] - before["at"]) / (later["step"] - before["step"])
        for before, later in pairwise(rows)
        if later["step"] > before["step"]
    )
    return each[len(each) // 2] if each else None


def by_arithmetic(config: Config, speed: float) -> float:
    """Estimated seconds of a step; `speed` in FLOP/s, of which training reaches a known share."""
    share = CPU_SHARE[config.train.dtype] if config.train.device == "cpu" else GPU_SHARE
    return flops(config) * targets_in_a_step(config) / (speed * share)


def this_place(config: Config, processes: int = 1) -> Place:
    """The run's device: its speed from the data sheet for a known GPU in bfloat16, else measured."""
    train = config.train
    threads = f", {train.threads} thread{'s' * (train.threads != 1)}" if train.device == "cpu" else ""
    several, capacity = f"{processes} x " * (processes > 1), memory(choose_device(train.device))
    name = f"{several}{train.device}, {train.dtype}{threads}"
    if train.device.startswith("cuda"):
        name = f"{several}{torch.cuda.get_device_name(train.device)}, {train.dtype}"
        sheet = next((gpu for known, gpu in GPUS.items() if re.search(rf"\b{known}\b", name)), None)
        if sheet and train.dtype == "bfloat16":
            return Place(name, processes * sheet.tflops * 1e12, "data sheet", capacity)
    torch.set_num_threads(int(train.threads))
    return Place(name, processes * product_speed(train.device, train.dtype), "measured", capacity)


def product_speed(device: str, dtype: str) -> float:
    """FLOP/s of a product of two square matrices, the best of ten."""
    n = PRODUCT[device.partition(":")[0]]
    a = torch.ones(n, n, device=device, dtype=getattr(torch, dtype))
    fastest = min(seconds_of_product(a) for _ in range(10))
    return 2 * n**3 / fastest


def seconds_of_product(a: torch.Tensor) -> float:
    """Seconds to multiply a matrix by itself."""
    start = time.perf_counter()
    float((a @ a)[0, 0])  # reading a value waits for the GPU to finish
    return time.perf_counter() - start

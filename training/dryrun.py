"""--dry-run: the plan of a run, on this machine if it can be, and nothing is written."""

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
PATIENCE = 5.0  # seconds that a micro-batch may take and still be timed; at least two are
PRODUCT = {"cpu": 1024, "mps": 4096, "cuda": 8192}  # rows of the matrices whose product is timed


def plan_without_data(asked: Config) -> str | None:
    """The plan by arithmetic alone, if the text isn't here yet and nothing has to be read from it."""
    if not stands_alone(asked):
        return None
    try:
        find_files(asked.data.path, asked.data.extensions)
    except UserError as error:
        config = on_this_machine(with_known_vocabulary(asked))
        place, missing = this_place(config), f"not here: {str(error).removeprefix('data.path: ')}"
        if not has_room(config, place):
            return table(planned_for(config, place, asked.train.dtype), place, None, missing)
        seconds = by_arithmetic(config, place.speed)
        return table(config, place, Time(seconds, seconds * (config.train.steps or 0), timed=False), missing)
    return None


def plan_with_data(asked: Config, data: Dataset, time_step: TimeStep, processes: int = 1) -> str:
    """The plan with some real steps timed, where they fit and don't take too long."""
    here = on_this_machine(asked)
    place = this_place(here, processes)
    room = has_room(here, place)
    timed = room and by_arithmetic(here, place.speed) / here.train.accumulate < PATIENCE
    how = partial(by_micro_batch, time_step, processes) if timed else partial(by_arithmetic, speed=place.speed)
    with memory_explained(asked.train):
        config, seconds = resolve(asked, data, how)
    examples = "images" if data.positions == 1 else "windows"
    lines = f"{data.count('train'):,} {examples} to learn from, {data.count('val'):,} to choose by"
    if not room:
        return table(planned_for(config, place, asked.train.dtype), place, None, lines)
    return table(config, place, Time(seconds, run_seconds(config, data, seconds), timed), lines)


def has_room(config: Config, place: Place) -> bool:
    """Whether it fits there, as far as that is known."""
    return not place.memory or memory_of(config).peak <= place.memory


def planned_for(config: Config, place: Place, dtype: str) -> Config:
    """The config whose plan is printed for a run that doesn't fit: as GPUs would train it, unless only the batch is too
    large. `dtype` is the one asked for: `auto` is bfloat16 there, whatever it became here.
    """
    alone_too_large = place.memory and state_bytes(config) > place.memory
    return for_gpus(change(config, dtype=dtype)) if alone_too_large else config


def by_micro_batch(time_step: TimeStep, processes: int, config: Config) -> float:
    """Seconds of a step, from steps of one micro-batch: however many it accumulates, the dry run takes no longer.

    The optimiser's part is counted with each of them, which is little beside the rest; what processes exchange is not.
    """
    return config.train.accumulate / processes * time_step(change(config, accumulate=1))


def what_is_left(folder: Path, config: Config, same_pace: bool) -> str:
    """What --resume would go on with, in a line; how long it takes if it goes on at the same pace.

    Raises UserError for weights that can't learn.
    """
    found, steps = checkpoint.last(folder / "checkpoints"), config.train.steps or 0
    if found:
        found.require_trainable()
    done = found.state.step if found else 0
    if done >= steps:
        return f"{folder} has made all of its {steps:,} steps; more with --train.steps"
    unit = "tokens" if isinstance(config.model, GPTConfig) else "images"
    left, targets = steps - done, (steps - done) * targets_in_a_step(config)
    seconds = pace(folder) if same_pace else None
    how_long = f"; {duration(left * seconds)} of steps at the pace so far" if seconds else ""
    return f"{folder} goes on after step {done:,}: {left:,} of {steps:,} steps left, {targets:,} {unit}{how_long}"


def pace(folder: Path) -> float | None:
    """Seconds of one of its steps, the median by timing.jsonl, evaluations left out; None if it made too few."""
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
    """Seconds of a step on a device of so many operations a second, by the share of them that training reaches."""
    share = CPU_SHARE[config.train.dtype] if config.train.device == "cpu" else GPU_SHARE
    return flops(config) * targets_in_a_step(config) / (speed * share)


def this_place(config: Config, processes: int = 1) -> Place:
    """The device of the run: its speed by its data sheet if it is a GPU that we have that of, else measured."""
    train = config.train
    threads = f", {train.threads} thread{'s' * (train.threads != 1)}" if train.device == "cpu" else ""
    many, room = f"{processes} x " * (processes > 1), memory(choose_device(train.device))
    name = f"{many}{train.device}, {train.dtype}{threads}"
    if train.device.startswith("cuda"):
        name = f"{many}{torch.cuda.get_device_name(train.device)}, {train.dtype}"
        found = next((gpu for known, gpu in GPUS.items() if re.search(rf"\b{known}\b", name)), None)
        if found and train.dtype == "bfloat16":
            return Place(name, processes * found.tflops * 1e12, "data sheet", room)
    torch.set_num_threads(int(train.threads))
    return Place(name, processes * product_speed(train.device, train.dtype), "measured", room)


def product_speed(device: str, dtype: str) -> float:
    """Operations a second in the product of two square matrices, the best of ten."""
    n = PRODUCT[device.partition(":")[0]]
    a = torch.ones(n, n, device=device, dtype=getattr(torch, dtype))
    fastest = min(seconds_of_product(a) for _ in range(10))
    return 2 * n**3 / fastest


def seconds_of_product(a: torch.Tensor) -> float:
    """Seconds until the product of a matrix with itself is there."""
    begin = time.perf_counter()
    float((a @ a)[0, 0])  # a GPU has to finish before a number can be read
    return time.perf_counter() - begin

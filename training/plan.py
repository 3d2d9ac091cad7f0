"""Plan a run: resolve every `auto` once, before the first step, and estimate what the run will cost."""

import math
import os
import time
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import torch

from configs.errors import UserError
from configs.schema import Config, GPTConfig, TrainConfig
from data.dataset import Dataset
from data.text import Text
from training.clock import duration
from training.cost import checkpoint_bytes, state_bytes
from training.device import choose_compile, choose_device, choose_dtype, choose_threads
from training.learner import Learner, build_learner, build_network
from training.validation import costs

EVALUATIONS = 10  # per run, unless eval_every is set
EVALUATION_SHARE = 0.1  # of train.minutes, at most: if ten evaluations take longer, there are fewer
TRIAL_SECONDS, TRIAL_STEPS = 1.0, 20
LONG = 5.0  # seconds; a step slower than this is timed only once
EVALUATING = 0.4  # of a step's time for the same batch in an evaluation, which has no backward pass
SAVING = 4 * 10**8  # bytes of a checkpoint written, hashed and synced per second
AROUND = 2.0  # seconds per run for the first memory allocation, the curves and the exit


def with_vocabulary(asked: Config, data: Dataset) -> Config:
    """The config with model.vocab_size set to the tokenizer's. Raises UserError if the config sets another."""
    if not (isinstance(data, Text) and isinstance(asked.model, GPTConfig)):
        return asked
    size, wanted = data.tokenizer.vocab_size, asked.model.vocab_size
    if "vocab_size" in asked.model.model_fields_set and wanted != size:
        raise UserError(f"model.vocab_size={wanted}, but the tokenizer has {size} tokens; omit it")
    return asked.model_copy(update={"model": asked.model.model_copy(update={"vocab_size": size})})


def resolve(asked: Config, data: Dataset, time_step: Callable[[Config], float]) -> tuple[Config, float]:
    """The config with a value for every `auto`, and the seconds per step that `time_step` measures."""
    train = asked.train
    if train.epochs is not None:
        asked = change(asked, steps=epochs_in_steps(train.epochs, train, data), epochs=None)
    config = on_this_machine(asked)
    seconds = time_step(config)
    evaluations = EVALUATIONS
    if train.minutes is not None:
        evaluations, steps = fit(60 * train.minutes, config, data, seconds)
        config = change(config, steps=steps)
    assert config.train.steps is not None
    eval_every = train.eval_every or max(1, math.ceil(config.train.steps / evaluations))
    return change(config, eval_every=eval_every, save_every=train.save_every or eval_every), seconds


def epochs_in_steps(epochs: float, train: TrainConfig, data: Dataset) -> int:
    """Steps that show every training example so many times; the last one may begin another epoch."""
    examples = Fraction(str(epochs)) * data.count("train")  # 1.1 as it is written: 1.1 * 10 is over 11
    return math.ceil(examples / (train.batch_size * train.accumulate))


def on_this_machine(asked: Config) -> Config:
    """The config with device, precision, threads and compilation resolved; train.minutes becomes one step."""
    train, device, size = asked.train, choose_device(asked.train.device), count_parameters(asked)
    return change(
        asked,
        device=device,
        dtype=choose_dtype(train.dtype, device, size),
        threads=choose_threads(train.threads, size),
        compile=choose_compile(train.compile, device, train.steps or 0),
        steps=train.steps if train.minutes is None else 1,
        minutes=None,
    )


def change(config: Config, **updates: Any) -> Config:
    """The config with some settings of [train] replaced."""
    return config.model_copy(update={"train": config.train.model_copy(update=updates)})


def seconds_per_step(update: Callable[[Learner, int], Any], data: Dataset, config: Config) -> float:
    """Median seconds of some trial steps, without the first; the network they train is thrown away."""
    learner = build_learner(config, data)
    update(learner, 0)
    times: list[float] = []
    while not enough(times):
        start = time.perf_counter()
        update(learner, len(times) + 1)
        times.append(time.perf_counter() - start)
    return sorted(times)[(len(times) - 1) // 2]


def enough(times: list[float]) -> bool:
    """Whether these times suffice: TRIAL_SECONDS or TRIAL_STEPS of them, at least two, or a single one above LONG.

    The first is slower, because it still allocates memory.
    """
    if len(times) < 2:
        return len(times) == 1 and times[0] > LONG
    return sum(times) >= TRIAL_SECONDS or len(times) == TRIAL_STEPS


def fit(budget: float, config: Config, data: Dataset, seconds: float) -> tuple[int, int]:
    """How many evaluations and steps fit into `budget` seconds; one more evaluation precedes the first step."""
    train = config.train
    each = evaluation_seconds(config, data, seconds)
    if train.eval_every:
        return EVALUATIONS, max(1, int((budget - each) / (seconds + each / train.eval_every)))
    evaluations = max(1, min(EVALUATIONS, int(EVALUATION_SHARE * budget / max(each, 1e-9))))
    return evaluations, max(1, int((budget - (evaluations + 1) * each) / seconds))


def evaluation_seconds(config: Config, data: Dataset, seconds: float) -> float:
    return data.count("val") / (config.train.batch_size * config.train.accumulate) * seconds * EVALUATING


def run_seconds(config: Config, data: Dataset, seconds: float) -> float:
    """Seconds of a run at `seconds` per step: steps, evaluations, checkpoints, start and exit."""
    train, evaluation = config.train, evaluation_seconds(config, data, seconds)
    assert train.steps is not None and train.eval_every and train.save_every
    evaluations, saves, both = (
        1 + math.ceil(train.steps / every)  # at step 0, after every `every` steps, and at the end
        for every in (train.eval_every, train.save_every, math.lcm(train.eval_every, train.save_every))
    )
    saves += evaluations - both  # each evaluation saves a checkpoint too
    return train.steps * seconds + evaluations * evaluation + saves * checkpoint_bytes(config) / SAVING + AROUND


def counts(config: Config) -> tuple[int, int]:
    """Number of parameters, and of trainable ones, of a network built on the meta device, which takes no memory."""
    with torch.device("meta"):
        parameters = list(build_network(config).parameters())
    return sum(p.numel() for p in parameters), sum(p.numel() for p in parameters if p.requires_grad)


def count_parameters(config: Config, learning: bool = False) -> int:
    """Number of parameters, or of the trainable ones."""
    return counts(config)[learning]


def require_memory(config: Config) -> None:
    """Raises UserError if weights, gradients and optimiser state alone exceed the device's memory."""
    need, have = state_bytes(config), memory(choose_device(config.train.device))
    if have and need > have:
        raise UserError(
            f"this network has {count_parameters(config):,} parameters; weights, gradients and optimiser state need "
            f"{need / 1e9:,.0f} GB, this machine has {have / 1e9:,.0f} GB; use a smaller model.n_embd or n_layer"
        )


def memory(device: str) -> int | None:
    """Bytes of the device's memory; None if unknown (Windows)."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else None


def describe(config: Config, data: Dataset, seconds: float) -> str:
    """The plan that is printed before a run, in three lines."""
    train = config.train
    assert train.steps is not None
    a_step = train.batch_size * train.accumulate
    examples, targets = ("images", "images") if data.positions == 1 else ("windows", "tokens")
    seen = train.steps * a_step
    count, learning = counts(config)
    share = f", {learning:,} of them trainable ({learning / count:.2%})" if learning < count else ""
    return (
        f"{count:,} parameters{share}, {costs(config)}, {config.optim.name}\n"
        f"{data.count('train'):,} training {examples}, {data.count('val'):,} validation {examples}\n"
        f"{train.steps:,} steps of {a_step} {examples} = {seen * data.positions:,} {targets}, "
        f"{seen / data.count('train'):.1f} epochs: about {duration(run_seconds(config, data, seconds))} "
        f"({train.device}, {train.dtype}, {train.threads} thread{'s' if train.threads != 1 else ''})"
    )

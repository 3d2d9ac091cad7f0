"""Everything before the first step: resolve the settings, open the data, print the plan, create the run folder."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from configs.command import Command, check, located
from configs.errors import UserError, about
from configs.schema import Config, DataConfig, MLPConfig
from data.dataset import Dataset
from data.find import NAMES, find_files
from data.text import Text, open_text
from data.tokenizer import Tokenizer
from training import checkpoint
from training.device import hardware, memory_explained
from training.plan import describe, require_memory, resolve, with_vocabulary
from training.report import say
from training.run import FORMAT, Record, Run, machine, open_run, read_record, require_elsewhere, run_folder
from training.world import ALONE, World, require_equal_shares

LATEST = 1.5  # times train.minutes: a run that takes longer is stopped


class Job(NamedTuple):
    """A run that is ready for its first step."""

    config: Config
    """resolved: no `auto` left"""
    data: Dataset
    run: Run
    weights: dict[str, Tensor] | None
    """initial weights by name; None for random initialisation"""
    seconds: float
    """time limit, after which it stops, finished or not"""
    world: World = ALONE
    """the processes that share its steps"""


def prepare(command: Command, time_step: Callable[[Dataset, Config], float], world: World = ALONE) -> Job | None:
    """The run that the command asks for, ready to train; None for --dry-run. Raises UserError.

    With several processes, rank 0 prepares it, the others read it from the run folder, and all join one group.
    """
    if world.size == 1:
        return lead(command, time_step, world)
    from training.parallel import prepare_together

    return prepare_together(partial(lead, command), time_step, world)


def lead(command: Command, time_step: Callable[[Dataset, Config], float], world: World) -> Job | None:
    """Start or resume a run; the part that only rank 0 does."""
    folder = run_folder(command.run)
    if command.resume and (folder / "run.json").exists():
        from training.resume import begun_before, go_on

        record = read_record(folder)
        if checkpoint.step_folders(folder / "checkpoints"):
            with located(dict.fromkeys(record.origins, f"{folder}/run.json") | command.origins):
                return go_on(command, folder, world)
        command = begun_before(command, record)
    with located(command.origins):
        return begin(command, folder, time_step, world)


def begin(command: Command, folder: Path, time_step: Callable[[Dataset, Config], float], world: World) -> Job | None:
    """Start a new run: plan it and print the plan before its folder is touched."""
    wanted = check(command.settings, command.origins)
    require_equal_shares(wanted.train, world)
    base = None
    if wanted.train.start:
        from training.adapt import fitted, with_base
        from training.start import find_base

        with about("train.start"):
            base = find_base(wanted.train.start)
        wanted = with_base(wanted, base)
    if command.overwrite:
        require_inputs_elsewhere(folder, wanted.data, base.folder if base else None)
    tokenizer = base.tokenizer if base else None
    if command.settings.get("model.kind") == "auto" and not isinstance(wanted.model, MLPConfig):
        from training.sizes import plan_text

        wanted, data = plan_text(wanted, tokenizer, time_step)
    else:
        if command.dry_run:
            from training.dryrun import plan_without_data

            if plan := plan_without_data(wanted):
                return print(plan)
        else:
            require_memory(wanted)
        data = open_data(wanted, tokenizer)
    if base:
        wanted, base = fitted(wanted, base, data)
    if command.dry_run:
        from training.dryrun import plan_with_data

        return print(plan_with_data(with_vocabulary(wanted, data), data, partial(time_step, data), world.size))
    with memory_explained(wanted.train):
        config, seconds = resolve(with_vocabulary(wanted, data), data, partial(time_step, data))
    say(describe(config, data, seconds))
    require_equal_shares(config.train, world)
    run = open_run(folder, command.resume, command.overwrite)
    record = Record(
        format=FORMAT,
        asked=command.settings,
        origins=command.origins,
        resolved=config,
        data_sha256=data.sha256,
        data_recipe=data.recipe,
        hardware=hardware(),
        machine=machine(),
    )
    run.describe(record)
    if isinstance(data, Text):
        run.write("tokenizer.json", data.tokenizer.file)
    longest = LATEST * 60 * (wanted.train.minutes or math.inf)
    return Job(config, data, run, base.weights if base else None, longest, world)


def require_inputs_elsewhere(folder: Path, data: DataConfig, base: Path | None) -> None:
    """Raises UserError if the run about to be overwritten contains the data or the base model."""
    try:
        files = find_files([path for path in data.path if path not in NAMES], data.extensions)
    except UserError:  # a path that doesn't exist is reported when the data is opened
        files = []
    require_elsewhere(folder, "data.path", [file.path for file in files])
    require_elsewhere(folder, "train.start", [base] if base else [])


def open_data(config: Config, tokenizer: Tokenizer | None = None) -> Dataset:
    """Images for an MLP, text for a GPT. Raises UserError if the data is unreadable or doesn't fit the network."""
    if isinstance(config.model, MLPConfig):
        from data.digits import open_digits

        return open_digits(config.data, config.model.sizes, config.train.seed)
    assert config.model is not None
    return open_text(config.data, config.model.context_length, config.train.seed, tokenizer)

"""All that happens before the first step: a command line becomes settings, data, a plan and a run folder."""

import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from configs.command import Command, check
from configs.errors import UserError
from configs.schema import Config
from data.dataset import Dataset, open_data
from data.text import Text
from training.device import memory_explained
from training.plan import continued, describe, require_memory, resolve, with_base, with_vocabulary
from training.report import say
from training.restore import Restored, restore, tokenizer_of
from training.run import Record, Run, open_run, read_record, run_folder

LATEST = 1.5  # times the budget of train.minutes: when a run is cut at the latest


class Job(NamedTuple):
    """A run that is ready for its first step."""

    config: Config
    """resolved: no `auto` left"""
    data: Dataset
    run: Run
    base: Restored | None
    """where the first weights come from, if not from chance"""
    seconds: float
    """after which it stops, finished or not"""


def prepare(command: Command, time_step: Callable[[Dataset, Config], float]) -> Job | None:
    """What the command asks for, ready to be trained; None for --dry-run. Raises UserError."""
    folder = run_folder(command.run)
    going_on = command.resume and (folder / "run.json").exists()
    return go_on(command, folder) if going_on else begin(command, folder, time_step)


def begin(command: Command, folder: Path, time_step: Callable[[Dataset, Config], float]) -> Job | None:
    """A new run: its plan is made and said before its folder is touched."""
    asked = check(command.settings, command.origins)
    base = restore(asked.train.start) if asked.train.start else None
    if base:
        asked = with_base(asked, base)
    require_memory(asked)
    data = open_data(asked, base.tokenizer if base else None)
    with memory_explained(asked.train):
        config, seconds = resolve(with_vocabulary(asked, data), data, partial(time_step, data))
    say(describe(config, data, seconds))
    if command.dry_run:
        return None
    run = open_run(folder, command.resume, command.overwrite)
    run.describe(Record.of(command.settings, command.origins, config, data.sha256))
    if isinstance(data, Text):
        run.write("tokenizer.json", json.dumps(data.tokenizer.to_json()))
    return Job(config, data, run, base, LATEST * 60 * (asked.train.minutes or math.inf))


def go_on(command: Command, folder: Path) -> Job | None:
    """A run that continues, with its own settings, tokenizer and data."""
    record = read_record(folder)
    config = continued(command.settings, record)
    data = open_data(config, tokenizer_of(folder))
    if data.sha256 != record.data_sha256:
        raise UserError(
            f"{config.data.path} has changed since {folder} began, so that can't go on exactly; begin a new run "
            f"with --train.start {folder}, which keeps what was learned"
        )
    if command.dry_run:
        return None
    run = open_run(folder, resume=True, overwrite=False)
    run.describe(record.model_copy(update={"resolved": config}))
    return Job(config, data, run, None, math.inf)

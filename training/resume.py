"""How a run goes on: with its own settings, tokenizer and data, and only what may change changed."""

import math
from contextlib import suppress
from pathlib import Path
from typing import Any

from configs.command import CLI, Command, check, flatten
from configs.errors import UserError, for_shell, one_line
from configs.files import Damaged
from configs.schema import Config, LogConfig
from training import checkpoint
from training.manifest import read_manifest
from training.prepare import Job, open_data
from training.report import say
from training.restore import tokenizer_of
from training.run import Record, open_run, read_record
from training.sane import require_size
from training.world import World, require_equal_shares

RESUMABLE = {f"train.{name}" for name in ("steps", "eval_every", "save_every", "keep", "patience", "threads")} | {
    f"log.{name}" for name in LogConfig.model_fields
}


def begun_before(command: Command, record: Record) -> Command:
    """The command that began a run which was stopped before its first checkpoint, and so begins again."""
    settings, origins = record.asked | command.settings, record.origins | command.origins
    return command._replace(settings=settings, origins=origins)


def go_on(command: Command, folder: Path, world: World) -> Job | None:
    """A run that continues, with its own settings, tokenizer and data."""
    record = read_record(folder)
    config = continued(command.settings, record)
    require_equal_shares(config.train, world)
    require_size(folder, config.model)
    for newest in checkpoint.step_folders(folder / "checkpoints")[:1]:
        with suppress(Damaged):  # it is looked for an older one later
            read_manifest(newest)  # a wrong tokenizer is named before it makes any tokens
    data = open_data(config, tokenizer_of(folder))
    if config.train.start and checkpoint.last(folder / "checkpoints") is None:
        raise UserError(f"{folder} has no checkpoint that is whole; begin it anew with --overwrite", 1)
    if data.sha256 != record.data_sha256:
        raise UserError(
            f"{' '.join(config.data.path)} has changed since {folder} began, so that can't go on exactly; begin a new "
            f"run with --train.start {for_shell(folder)}, which keeps what was learned"
        )
    if command.dry_run:
        from training.dryrun import what_is_left

        return print(one_line(what_is_left(folder, config)))
    run = open_run(folder, resume=True, overwrite=False)
    checkpoint.adopt(run.checkpoints)
    run.describe(record.model_copy(update={"resolved": config}))
    return Job(config, data, run, None, math.inf, world)


def continued(settings: dict[str, Any], record: Record) -> Config:
    """The resolved config of a run that goes on, with what may change changed.

    Raises UserError for a setting that may not.
    """
    resolved = flatten(record.resolved.model_dump(exclude_none=True))
    changed = {name: value for name, value in settings.items() if record.asked.get(name) != value}
    if changed.get("train.threads") == "auto":  # chosen when the run began
        del changed["train.threads"]
    before, now = resolved["train.threads"], changed.get("train.threads", resolved["train.threads"])
    if before != now:
        say(f"warning: train.threads was {before} and is {now} now; it goes on, but no longer exactly as it would have")
    for name, value in changed.items():
        if name not in RESUMABLE:
            raise UserError(
                f"--resume keeps the run's settings: {name} is {resolved.get(name)!r} and can't become {value!r}; "
                f"only {', '.join(sorted(RESUMABLE))} may change"
            )
    return check(resolved | changed, dict.fromkeys(changed, CLI))

"""--resume: continue a run with its own settings, tokenizer and data, on this or another machine."""

import math
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from configs.command import CLI, Command, check, explain, flatten, merge, unflatten
from configs.errors import UnfitData, UnknownCharacters, UserError, one_line
from configs.files import Damaged
from configs.schema import Config, LogConfig
from data.dataset import Dataset
from data.find import NAMES
from data.text import Text
from training import checkpoint
from training.device import (
    choose_compile,
    choose_device,
    choose_dtype,
    choose_threads,
    hardware,
    is_available,
)
from training.manifest import Manifest, read_manifest
from training.plan import change, count_parameters
from training.prepare import Job, open_data
from training.refusal import (
    LENGTHS,
    cannot_change,
    cannot_change_length,
    cannot_shorten,
    data_changed,
    data_too_small,
    does_not_apply,
    other_step,
)
from training.report import say
from training.restore import tokenizer_of
from training.run import FORMAT, Hardware, Record, open_run, read_record, run_folder
from training.sane import require_size
from training.world import World, require_equal_shares

FREE = {f"train.{name}" for name in ("steps", "eval_every", "save_every", "keep", "patience")} | {
    f"log.{name}" for name in LogConfig.model_fields
}
BATCH = ("train.batch_size", "train.accumulate")  # free at an equal product
MACHINE = ("train.device", "train.dtype", "train.compile", "train.threads")  # may differ between machines


def begun_before(command: Command, record: Record) -> Command:
    """The command to start a run again that was stopped before its first checkpoint: as requested then, updated now."""
    settings, _ = merge([("", record.asked), ("", command.settings)])
    origins = record.origins | command.origins
    device = asked_for("train.device", record)
    typed = command.origins.get("train.device") == CLI
    if settings.get("train.device") == device and not typed and not is_supported("train.device", device, hardware()):
        say(f"warning: starting without train.device={device}, which is not available on this machine")
        settings["train.device"] = "auto"
    return command._replace(settings=settings, origins={name: origins[name] for name in settings})


def go_on(command: Command, folder: Path, world: World) -> Job | None:
    """Resume a run; None for --dry-run. Raises UserError if its data, settings or checkpoints don't allow it."""
    record = read_record(folder)
    require_size(folder, record.resolved.model)
    data = open_unchanged(record, folder)  # before settings are compared: their advice is useless if the data changed
    here = hardware()
    config = continued(command, record, folder, data, here)
    require_equal_shares(config.train, world)
    if config.train.start and checkpoint.last(folder / "checkpoints") is None:
        raise UserError(f"{folder} has no intact checkpoint; start again with --overwrite", 1)
    if command.dry_run:
        from training.dryrun import what_is_left

        return print(one_line(what_is_left(folder, config, same_pace=not differences(record, config))))
    run = open_run(folder, resume=True, overwrite=False)
    checkpoint.adopt(run.checkpoints)
    now = {"format": FORMAT, "hardware": here, "data_sha256": data.sha256, "data_recipe": data.recipe}
    run.describe(record.model_copy(update={"resolved": config, **now}))
    return Job(config, data, run, None, math.inf, world)


def open_unchanged(record: Record, folder: Path) -> Dataset:
    """The run's data, with a warning if an old run's fingerprint can't be compared. Raises UserError if it changed."""
    manifest = newest_manifest(folder)  # refuses a wrong tokenizer before it is used
    try:
        data = open_data(record.resolved, tokenizer_of(folder))
    except UnknownCharacters as error:
        raise data_changed(record, folder, new_characters=True) from error
    except UnfitData as error:
        raise data_too_small(record, folder, error) from error
    if data.sha256 == record.data_sha256:
        return data
    if recipe_of(record, data, manifest) == data.recipe:
        raise data_changed(record, folder)
    say(
        f"warning: cannot check that the data is unchanged: {folder} was trained with another version of pellucid, "
        "and this version cannot compare its data fingerprint"
    )
    return data


def newest_manifest(folder: Path) -> Manifest | None:
    """The newest checkpoint's manifest; None if it is damaged (an older checkpoint is tried later)."""
    for newest in checkpoint.step_folders(folder / "checkpoints")[:1]:
        with suppress(Damaged):
            return read_manifest(newest)
    return None


def recipe_of(record: Record, data: Dataset, manifest: Manifest | None) -> int:
    """The recipe by which the run's data fingerprint was computed; 0 if unknown.

    Runs of format 0 record none: digits had no fingerprint; text has recipe 1 if its manifest lists the tokenizer.
    """
    if record.format:
        return record.data_recipe
    return 1 if isinstance(data, Text) and (manifest is None or manifest.tokenizer) else 0


def continued(command: Command, record: Record, folder: Path, data: Dataset, here: Hardware) -> Config:
    """The resolved config for the rest of the run: the recorded one with the allowed changes, and this machine's.

    Raises UserError for a setting that --resume cannot change.
    """
    given = changes(command, record, folder)
    done = max((int(step.name[5:]) for step in checkpoint.step_folders(folder / "checkpoints")[:1]), default=0)
    for name, value in given.items():
        if name in LENGTHS:
            raise cannot_change_length(name, value, record, folder, data, done)
        if name not in {*FREE, *BATCH, *MACHINE}:
            raise cannot_change(name, value_in(record.resolved, name), value, record, folder)
    require_equal_step(given, record, folder)
    if given.get("train.steps", done) < done:
        raise cannot_shorten(given["train.steps"], done, record, folder)
    resolved = flatten(record.resolved.model_dump(exclude_none=True))
    free = {name: value for name, value in given.items() if name not in MACHINE}
    if "train.save_every" not in record.asked and resolved["train.save_every"] == resolved["train.eval_every"]:
        free = {"train.save_every": free.get("train.eval_every", resolved["train.eval_every"])} | free
    config = with_machine_settings(check(resolved | free, command.origins), given, record, here)
    warn_of_differences(record, config, here)
    return config


def changes(command: Command, record: Record, folder: Path) -> dict[str, Any]:
    """The given settings that differ from the run's, validated; settings of MACHINE count whenever typed.

    A config file's value that is the same as when the run started is no change, even if --resume has changed it since.
    Raises UserError for an invalid value.
    """
    given = {}
    for name, value in command.settings.items():
        now, mistake = validated(name, value, record)
        if mistake and mistake["type"] == "extra_forbidden":
            raise does_not_apply(name, record, folder)
        if mistake:
            raise UserError(explain(mistake, command.origins))
        typed, as_asked = command.origins[name] == CLI, same_value(name, now, asked_for(name, record))
        if name in MACHINE:
            no_change = as_asked and not typed
        else:
            as_before = same_value(name, now, value_in(record.resolved, name))
            no_change = as_before or (as_asked and not (typed and name in {*FREE, *BATCH}))
        if not no_change:
            given[name] = now
    return given


def asked_for(name: str, record: Record) -> Any:
    """The value requested when the run started; if none was, "auto" for a setting of MACHINE, None for others."""
    value, mistake = validated(name, record.asked.get(name), record)
    missing = "auto" if name in MACHINE else None
    return missing if mistake or name not in record.asked else value


def validated(name: str, value: Any, record: Record) -> tuple[Any, Any]:
    """The value as pydantic converts it ("a.txt" -> ["a.txt"], 1 -> 1.0) and None, or the value and pydantic's error.

    A value that is valid but conflicts with the run's other settings is returned unconverted, without an error.
    """
    others = flatten(record.resolved.model_dump(exclude_none=True))
    others = {other: kept for other, kept in others.items() if not f"{other}.".startswith(f"{name}.")}
    try:
        return value_in(Config.model_validate(unflatten(others | {name: value})), name), None
    except ValidationError as error:
        found = {".".join(str(p) for p in e["loc"] if p not in ("mlp", "gpt")): e for e in error.errors()}
        inside = [e for setting, e in found.items() if f"{setting}.".startswith(f"{name}.")]
        return value, next(iter(inside), None)


def value_in(config: Config, name: str) -> Any:
    """A setting by its dotted name; None if the config has no such setting."""
    value: Any = config
    for part in name.split("."):
        value = getattr(value, part, None)
    return value.model_dump() if isinstance(value, BaseModel) else value


def same_value(name: str, one: Any, other: Any) -> bool:
    """Whether two values of a setting mean the same; paths and runs can be written in several ways."""
    if name == "data.path" and isinstance(one, list) and isinstance(other, list):
        return [*map(absolute, one)] == [*map(absolute, other)]
    if name == "train.start" and one != other and one and other:
        with suppress(UserError):  # not a valid run name
            return os.path.abspath(run_folder(one)) == os.path.abspath(run_folder(other))
    return one == other


def absolute(path: str) -> str:
    """The absolute path of an entry of data.path; the name of a built-in dataset is returned as it is."""
    return path if path in NAMES else os.path.abspath(os.path.expanduser(path))


def require_equal_step(given: dict[str, Any], record: Record, folder: Path) -> None:
    """Raises UserError if the number of examples in a step would change."""
    train = record.resolved.train
    sizes = {name: given[name] for name in BATCH if name in given}
    batch_size, accumulate = (sizes.get(name, value_in(record.resolved, name)) for name in BATCH)
    if batch_size * accumulate != train.batch_size * train.accumulate:
        raise other_step(batch_size, accumulate, sizes, record, folder)


def with_machine_settings(config: Config, given: dict[str, Any], record: Record, here: Hardware) -> Config:
    """The config with device, precision, compilation and threads for this machine.

    Settings given now come first. On the same machine and device, the others stay as they were; otherwise, explicitly
    requested settings stay if this machine supports them, and the rest are chosen again as for a new run.
    Raises UserError if the given device is not available.
    """
    old = record.resolved
    same = is_supported("train.device", old.train.device, here) and (
        record.hardware == here if record.hardware else is_supported("train.threads", old.train.threads, here)
    )

    def wanted(name: str) -> Any:
        if name in given:
            return given[name]
        asked = asked_for(name, record)
        return value_in(old, name) if same else asked if is_supported(name, asked, here) else "auto"

    device = choose_device(wanted("train.device"))
    same = same and device == old.train.device
    size = count_parameters(config)
    return change(
        config,
        device=device,
        dtype=choose_dtype(wanted("train.dtype"), device, size),
        compile=choose_compile(wanted("train.compile"), device, config.train.steps or 0),
        threads=choose_threads(wanted("train.threads"), size),
    )


def is_supported(name: str, value: Any, here: Hardware) -> bool:
    """Whether this machine supports a value of train.device or train.threads; True for other settings."""
    if name == "train.device":
        return value == "auto" or is_available(value)
    return name != "train.threads" or value == "auto" or value <= here.cores


def warn_of_differences(record: Record, config: Config, here: Hardware) -> None:
    """Warn if the machine, its settings or the micro-batches differ from before: rounding will, too."""
    was = record.hardware
    moved = f" on another machine (before: {describe(was)})" if was and was != here else ""
    changed = differences(record, config)
    if moved or changed:
        instead = f" with {', '.join(changed)}" if changed else ""
        say(f"warning: resuming{moved}{instead}; the rest of the run is no longer bit-exact")


def differences(record: Record, config: Config) -> list[str]:
    """The settings that change rounding and have changed, such as ["train.threads 2 instead of 1"]."""
    return [
        f"{name} {new} instead of {old}"
        for name in (*MACHINE, *BATCH)
        if (new := value_in(config, name)) != (old := value_in(record.resolved, name))
    ]


def describe(machine: Hardware) -> str:
    """A machine as a warning shows it: `Intel Xeon, 64 cores, NVIDIA H200`."""
    return ", ".join([machine.processor, f"{machine.cores} cores", *[machine.gpu] * bool(machine.gpu)])

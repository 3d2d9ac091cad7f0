"""What --resume cannot do, each with the command that works instead."""

import math
from pathlib import Path
from typing import Any

from configs.again import again, resume
from configs.command import check, merge, shown
from configs.errors import UserError
from configs.schema import GPTConfig, MLPConfig
from data.dataset import Dataset
from training.run import Record

# What a run that starts from this one's weights may have different. (All else makes another network, other tokens or
# other first weights, so it takes a run from scratch.)
FINE_TUNED = ("optim.", "data.path", "data.extensions", "data.field", "data.extend", "data.augment", "train.loss",
              "train.freeze", "train.batch_size", "train.accumulate", "model.dropout", "model.lora")  # fmt: skip
GIVEN = ("model.kind", "model.vocab_size")  # by the config as a whole, and by the tokenizer
LENGTHS = ("train.epochs", "train.minutes")


def cannot_change(name: str, old: Any, new: Any, record: Record, folder: Path) -> UserError:
    """A setting of the recipe that was given another value."""
    what = f"cannot change {name} ({plain(old)} to {plain(new)}) with --resume"
    fine_tune = name.startswith(FINE_TUNED)
    changes = {name: new} | ({"train.start": str(folder)} if fine_tune else {})
    if name == "data.path" and can_extend(record):
        changes["data.extend"] = True
    if name == "data.vocab_size":
        changes["data.tokenizer"] = "bpe"  # the others have a size of their own, and so has the network's vocabulary
    bound = record.resolved.train.start and name.startswith("model.") and not fine_tune  # to the network it began with
    if bound or name in GIVEN or not is_possible(record, changes):
        return UserError(f"{what}; resume without it: {resume(folder)}")
    how = "fine-tune from it in a new run" if fine_tune else "train a new run"
    return UserError(f"{what}; {how}: {again(record.asked, record.origins, changes, unused(folder))}")


def does_not_apply(name: str, record: Record, folder: Path) -> UserError:
    """A setting that this kind of network does not have."""
    kind = "digit" if isinstance(record.resolved.model, MLPConfig) else "text"
    return UserError(f"{name} does not apply to {folder} (a {kind} network); resume without it: {resume(folder)}")


def cannot_change_length(name: str, new: float, record: Record, folder: Path, data: Dataset, done: int) -> UserError:
    """Epochs or minutes, which became steps when the run started."""
    train = record.resolved.train
    steps = max(done, in_steps(name, new, record, folder, data))
    return UserError(
        f"cannot change {name} with --resume: the run's length was fixed at {train.steps:,} steps when it started; "
        f"for {new:g} {name.rpartition('.')[2]}: {resume(folder, {'train.steps': steps})}"
    )


def in_steps(name: str, new: float, record: Record, folder: Path, data: Dataset) -> int:
    """About how many steps so many epochs or minutes are."""
    from training.dryrun import pace

    train, asked = record.resolved.train, record.asked.get(name)
    assert train.steps is not None
    if name == "train.epochs":
        return math.ceil(new * data.count("train") / (train.batch_size * train.accumulate))
    if isinstance(asked, int | float) and asked > 0:
        return max(1, round(train.steps * new / asked))
    seconds = pace(folder)
    return max(1, round(60 * new / seconds)) if seconds else 2 * train.steps


def cannot_shorten(steps: int, done: int, record: Record, folder: Path) -> UserError:
    """Fewer steps than the run has made."""
    what = f"cannot lower train.steps to {steps:,}: {folder} has made {done:,} already"
    shorter = again(record.asked, record.origins, {"train.steps": steps}, unused(folder))
    return UserError(f"{what}; train a shorter run: {shorter}")


def other_step(batch_size: int, accumulate: int, given: dict[str, Any], record: Record, folder: Path) -> UserError:
    """Micro-batches that do not make up the run's step; the way out is one that does, nearest below what was given."""
    train = record.resolved.train
    total = train.batch_size * train.accumulate
    name, wanted = next(iter(given.items()))
    size = max(size for size in range(1, min(total, wanted) + 1) if total % size == 0)
    other = total // size
    equal = (size, other) if name == "train.batch_size" else (other, size)
    what = (
        f"cannot change the step from {total:,} to {batch_size * accumulate:,} examples (train.batch_size x "
        "train.accumulate) with --resume"
    )
    if len(given) > 1 or equal == (train.batch_size, train.accumulate):
        changes = {**given, "train.start": str(folder)}
        command = again(record.asked, record.origins, changes, unused(folder))
        return UserError(f"{what}; fine-tune from it in a new run: {command}")
    command = resume(folder, {"train.batch_size": equal[0], "train.accumulate": equal[1]})
    return UserError(f"{what}; an equal product is allowed: {command}")


def data_changed(record: Record, folder: Path, new_characters: bool = False) -> UserError:
    """The data is not what the run was trained on."""
    paths = " ".join(record.resolved.data.path)
    what = f"the data ({paths}) has changed since {folder} started, so it cannot be resumed"
    changes: dict[str, Any] = {"train.start": str(folder)}
    if new_characters:
        if not can_extend(record):
            return UserError(f"{what}: it has characters that the run has no tokens for; restore the original")
        changes["data.extend"] = True
    command = again(record.asked, record.origins, changes, unused(folder))
    return UserError(f"{what} exactly; fine-tune from it with: {command}")


def data_too_small(record: Record, folder: Path, error: UserError) -> UserError:
    """So little is left of the data that nothing can be trained on it."""
    paths = " ".join(record.resolved.data.path)
    return UserError(f"the data ({paths}) has changed since {folder} started: {error}")


def can_extend(record: Record) -> bool:
    """Whether a run that starts from this one can learn new characters: not beside adapters and frozen parts."""
    config = record.resolved
    text = isinstance(config.model, GPTConfig) and config.data.tokenizer in ("char", "auto")
    return bool(text and not config.model.lora and not config.train.freeze)


def is_possible(record: Record, changes: dict[str, Any]) -> bool:
    """Whether a new run with these changes has settings that fit together."""
    settings, origins = merge([("", record.asked), ("", changes)])
    try:
        check(settings, origins)
    except UserError:
        return False
    return True


def unused(folder: Path) -> Path:
    """A name for a new run beside this one: runs/a-2."""
    number = 2
    while folder.with_name(f"{folder.name}-{number}").exists():
        number += 1
    return folder.with_name(f"{folder.name}-{number}")


def plain(value: Any) -> str:
    """A value as a message shows it."""
    return "not set" if value is None else value if isinstance(value, str) else shown(value)

"""Error messages for what --resume cannot change, each with a command that works instead."""

from pathlib import Path
from typing import Any

from configs.again import again, resume
from configs.command import check, merge, shown
from configs.errors import UserError
from configs.schema import GPTConfig, MLPConfig
from data.dataset import Dataset
from training.plan import epochs_in_steps
from training.run import Record

# Settings that a fine-tuning run may change. (Any other gives a different network, tokenizer or initialisation, so it
# needs a run from scratch.)
FINE_TUNED = ("optim.", "data.path", "data.extensions", "data.field", "data.extend", "data.augment", "train.loss",
              "train.freeze", "train.batch_size", "train.accumulate", "model.dropout", "model.lora")  # fmt: skip
DERIVED = ("model.kind", "model.vocab_size")  # follow from the whole config, and from the tokenizer
LENGTHS = ("train.epochs", "train.minutes")


def cannot_change(name: str, old: Any, new: Any, record: Record, folder: Path) -> UserError:
    """The error for a setting that is fixed when the run starts."""
    what = f"cannot change {name} ({plain(old)} to {plain(new)}) with --resume"
    fine_tune = name.startswith(FINE_TUNED)
    changes = {name: new} | ({"train.start": str(folder)} if fine_tune else {})
    if name == "data.path" and can_extend(record):
        changes["data.extend"] = True
    if name == "data.vocab_size":
        changes["data.tokenizer"] = "bpe"  # the only tokenizer whose vocabulary size can be chosen
    bound = record.resolved.train.start and name.startswith("model.") and not fine_tune  # fixed by train.start
    if bound or name in DERIVED or not is_possible(record, changes):
        return UserError(f"{what}; resume without it: {resume(folder)}")
    how = "fine-tune from it in a new run" if fine_tune else "train a new run"
    return UserError(f"{what}; {how}: {again(record.asked, record.origins, changes, unused(folder))}")


def does_not_apply(name: str, record: Record, folder: Path) -> UserError:
    """The error for a setting that this kind of network does not have."""
    kind = "digit" if isinstance(record.resolved.model, MLPConfig) else "text"
    return UserError(f"{name} does not apply to {folder} (a {kind} network); resume without it: {resume(folder)}")


def cannot_change_length(name: str, new: float, record: Record, folder: Path, data: Dataset, done: int) -> UserError:
    """The error for a new number of epochs or minutes, which became steps when the run started."""
    train = record.resolved.train
    steps = max(done, in_steps(name, new, record, folder, data))
    return UserError(
        f"cannot change {name} with --resume: the run's length was fixed at {train.steps:,} steps when it started; "
        f"for {new:g} {name.rpartition('.')[2]}: {resume(folder, {'train.steps': steps})}"
    )


def in_steps(name: str, new: float, record: Record, folder: Path, data: Dataset) -> int:
    """Convert epochs or minutes to steps, approximately."""
    from training.dryrun import pace

    train, asked = record.resolved.train, record.asked.get(name)
    assert train.steps is not None
    if name == "train.epochs":
        return epochs_in_steps(new, train, data)
    if isinstance(asked, int | float) and asked > 0:
        return max(1, round(train.steps * new / asked))
    seconds = pace(folder)
    return max(1, round(60 * new / seconds)) if seconds else 2 * train.steps


def cannot_shorten(steps: int, done: int, record: Record, folder: Path) -> UserError:
    """The error for fewer steps than the run has finished."""
    what = f"cannot lower train.steps to {steps:,}: {folder} has already finished {done:,} steps"
    shorter = again(record.asked, record.origins, {"train.steps": steps}, unused(folder))
    return UserError(f"{what}; train a shorter run: {shorter}")


def other_step(batch_size: int, accumulate: int, given: dict[str, Any], record: Record, folder: Path) -> UserError:
    """The error for a changed step size; it suggests the nearest smaller micro-batches that keep the product."""
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
    return UserError(f"{what}; keep the product the same: {command}")


def data_changed(record: Record, folder: Path, new_characters: bool = False) -> UserError:
    """The error for data that is not what the run was trained on."""
    paths = " ".join(record.resolved.data.path)
    what = f"the data ({paths}) has changed since {folder} started, so it cannot be resumed"
    changes: dict[str, Any] = {"train.start": str(folder)}
    if new_characters:
        if not can_extend(record):
            return UserError(f"{what}: it has characters that are not in the vocabulary; restore the original data")
        changes["data.extend"] = True
    command = again(record.asked, record.origins, changes, unused(folder))
    return UserError(f"{what} exactly; fine-tune from it in a new run: {command}")


def data_too_small(record: Record, folder: Path, error: UserError) -> UserError:
    """The error for data that has changed and is now too small, or otherwise unfit, for training."""
    paths = " ".join(record.resolved.data.path)
    return UserError(f"the data ({paths}) has changed since {folder} started: {error}")


def can_extend(record: Record) -> bool:
    """Whether a fine-tuning run can add characters: not with another tokenizer, adapters or frozen parts."""
    config = record.resolved
    text = isinstance(config.model, GPTConfig) and config.data.tokenizer in ("char", "auto")
    return bool(text and not config.model.lora and not config.train.freeze)


def is_possible(record: Record, changes: dict[str, Any]) -> bool:
    """Whether a new run with these changes has valid settings."""
    settings, origins = merge([("", record.asked), ("", changes)])
    try:
        check(settings, origins)
    except UserError:
        return False
    return True


def unused(folder: Path) -> Path:
    """An unused name for a new run next to this one: runs/a -> runs/a-2."""
    number = 2
    while folder.with_name(f"{folder.name}-{number}").exists():
        number += 1
    return folder.with_name(f"{folder.name}-{number}")


def plain(value: Any) -> str:
    """A setting's value as a message shows it."""
    return "not set" if value is None else value if isinstance(value, str) else shown(value)

"""Copy a run with int8 weights: a new run folder, about a quarter of the size, that sample.py loads like any other."""

from pathlib import Path

from configs.errors import UserError
from configs.files import write_whole
from model import GPT
from model.quantize import quantize
from training import checkpoint
from training.checkpoint import State
from training.restore import Restored


def save_quantized(restored: Restored, folder: Path) -> Path:
    """Write a run with one int8 checkpoint and return that checkpoint's folder; quantizes `restored.model` in place.

    Raises UserError for a digit network, for weights that are already int8, and for a folder that is not empty.
    """
    if not isinstance(restored.model, GPT):
        raise UserError(f"--quantize int8 does not apply to {restored.folder} (a digit network)")
    if restored.checkpoint.state.quantized:
        raise UserError(f"{restored.folder} already has int8 weights; omit --quantize")
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder} is not empty; choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = (restored.folder / "tokenizer.json").read_bytes()  # byte for byte: the checkpoint records its hash
    write_whole(folder / "tokenizer.json", tokenizer)
    state = State(step=restored.checkpoint.state.step, log_bytes=0, quantized=True)
    saved = checkpoint.save(folder / "checkpoints", state, quantize(restored.model), [])
    resolved = restored.record.resolved.model_copy(update={"model": restored.model_config})
    record = restored.record.model_copy(update={"resolved": resolved})
    write_whole(folder / "run.json", record.to_json())
    return saved  # run.json is written last: it makes the folder a run

"""A run in eight bits: a folder of its own, a quarter of the size, that sample.py reads like any other."""

from pathlib import Path

from configs.errors import UserError
from configs.files import write_whole
from model import GPT
from model.quantize import quantize
from training import checkpoint
from training.checkpoint import State
from training.restore import Restored


def save_quantized(restored: Restored, folder: Path) -> Path:
    """Write a run whose one checkpoint holds int8 weights, and return that; `restored.model` is quantised in place.

    Raises UserError for a digit network, for weights that are int8 already, and for a folder that isn't empty.
    """
    if not isinstance(restored.model, GPT):
        raise UserError(f"--quantize int8 is for text networks; {restored.folder} is a digit network")
    if restored.checkpoint.state.quantized:
        raise UserError(f"the weights of {restored.folder} are int8 already")
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder} isn't empty and is left alone; choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = (restored.folder / "tokenizer.json").read_bytes()  # whose hash the checkpoint names
    write_whole(folder / "tokenizer.json", tokenizer)
    state = State(step=restored.checkpoint.state.step, log_bytes=0, quantized=True)
    saved = checkpoint.save(folder / "checkpoints", state, quantize(restored.model), [])
    resolved = restored.record.resolved.model_copy(update={"model": restored.model_config})
    record = restored.record.model_copy(update={"resolved": resolved})
    write_whole(folder / "run.json", record.to_json())
    return saved  # run.json came last: with it the folder is a run

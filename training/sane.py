"""Reject run folders whose file sizes do not match run.json, before hashing or allocating.

A damaged or hostile run could otherwise make us hash a huge file, or allocate a network far larger than its weights.
"""

from pathlib import Path

from configs.errors import UserError
from configs.files import Damaged
from configs.schema import AutoConfig, GPTConfig, MLPConfig
from data.tokenizer import LARGEST_TOKENIZER
from training.checkpoint import Checkpoint, step_folders
from training.parameters import count_weights

SLACK = 2**26  # bytes; a file that is only a little too large is caught by its hash
BYTES_EACH, COPIES = 4, {"model.safetensors": 1, "optimizer.safetensors": 2}  # per weight; Adam keeps two moments


def require_size(folder: Path, config: MLPConfig | GPTConfig | AutoConfig | None) -> None:
    """Raises UserError if one of the run's files is far larger than its network needs."""
    if not isinstance(config, MLPConfig | GPTConfig):
        raise UserError(f"{folder}/run.json does not describe a network", 1)
    weights = BYTES_EACH * count_weights(config)
    largest = {folder / "tokenizer.json": LARGEST_TOKENIZER, folder / "base/model.safetensors": weights + SLACK}
    for step in step_folders(folder / "checkpoints"):
        largest |= {step / name: copies * weights + SLACK for name, copies in COPIES.items()}
    for file, most in largest.items():
        if file.is_file() and file.stat().st_size > most:
            size = file.stat().st_size
            raise UserError(f"{file} is {size:,} bytes, far larger than the network in run.json needs", 1)


def require_weights(found: Checkpoint, config: MLPConfig | GPTConfig) -> None:
    """Raises Damaged if the weight files have less than one byte per parameter of the network in run.json."""
    files = [found.folder / "model.safetensors"]
    if isinstance(config, GPTConfig) and config.lora and not found.state.quantized:
        from training.base import base_weights

        files.append(base_weights(found))
    count = count_weights(config)
    if count > sum(file.stat().st_size for file in files):
        raise Damaged(found.folder, f"its weights are too small for the {count:,} parameters described in run.json")

"""Whether a run's files and the network in its run.json can belong together, by their sizes alone.

Files are hashed whole before they are trusted, and a network is built before its weights are read. Both take as long,
and as much memory, as files say, so sizes are looked at first.
"""

from pathlib import Path

from configs.errors import UserError
from configs.files import Damaged
from configs.schema import AutoConfig, GPTConfig, MLPConfig
from data.tokenizer import LARGEST_TOKENIZER
from training.checkpoint import Checkpoint, step_folders
from training.parameters import count_weights

SLACK = 2**26  # bytes; what is a little too large is damage, which its hash tells
BYTES_EACH, COPIES = 4, {"model.safetensors": 1, "optimizer.safetensors": 2}  # of a weight; Adam keeps two moments


def require_size(folder: Path, config: MLPConfig | GPTConfig | AutoConfig | None) -> None:
    """Raises UserError if one of the run's files is far larger than its network has any use for."""
    if not isinstance(config, MLPConfig | GPTConfig):
        raise UserError(f"{folder}/run.json describes no network", 1)
    weights = BYTES_EACH * count_weights(config)
    largest = {folder / "tokenizer.json": LARGEST_TOKENIZER, folder / "base/model.safetensors": weights + SLACK}
    for step in step_folders(folder / "checkpoints"):
        largest |= {step / name: copies * weights + SLACK for name, copies in COPIES.items()}
    for file, most in largest.items():
        if file.is_file() and file.stat().st_size > most:
            raise UserError(f"{file} has {file.stat().st_size:,} bytes, far more than the network in run.json", 1)


def require_weights(found: Checkpoint, config: MLPConfig | GPTConfig) -> None:
    """Raises Damaged unless the files are as large as the network in eight bits; then to build it is no risk."""
    files = [found.folder / "model.safetensors"]
    if isinstance(config, GPTConfig) and config.lora and not found.state.quantized:
        from training.base import base_weights

        files.append(base_weights(found))
    count = count_weights(config)
    if count > sum(file.stat().st_size for file in files):
        raise Damaged(found.folder, f"its weights are not those of run.json's network of {count:,} parameters")

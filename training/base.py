"""The base of a LoRA run: what adapters adapt never changes, so it is kept once, every checkpoint names its hash."""

from pathlib import Path

from pydantic import ValidationError
from torch import Tensor, nn

from data.fetch import sha256
from training import checkpoint
from training.checkpoint import Checkpoint
from training.manifest import Manifest, write
from training.tensorfile import Damaged, read_tensors, small

WEIGHTS = "model.safetensors"


def base_tensors(model: nn.Module) -> dict[str, Tensor]:
    """All of the network but its adapters."""
    own = checkpoint.own_tensors(model)
    return {name: tensor for name, tensor in checkpoint.model_tensors(model).items() if name not in own}


def base_folder(checkpoints: Path) -> Path:
    """Where a run keeps its base: beside its checkpoints."""
    return checkpoints.parent / "base"


def keep_base(checkpoints: Path, model: nn.Module) -> str:
    """The SHA-256 of the base's weights, which are written before the run's first checkpoint.

    Raises Damaged if they should be there and are not.
    """
    folder = base_folder(checkpoints)
    if not checkpoint.step_folders(checkpoints):
        write(folder, {WEIGHTS: base_tensors(model)}, {})
    return listed(folder)


def listed(folder: Path) -> str:
    """The SHA-256 of the base's weights according to its manifest. Raises Damaged if that can't be read."""
    try:
        return Manifest.model_validate_json(small(folder / "manifest.json")).sha256[WEIGHTS]
    except (OSError, ValidationError, KeyError, RecursionError) as error:
        raise Damaged(folder, f"its manifest.json can't be read ({type(error).__name__})") from error


def load_base(found: Checkpoint, model: nn.Module) -> None:
    """Copy the base of a checkpoint into the model.

    Raises Damaged if it is not, bit for bit, what the checkpoint's adapters learned beside, or doesn't fit the model.
    """
    folder, wanted = base_folder(found.folder.parent), base_tensors(model)
    if not (folder / WEIGHTS).is_file():
        raise Damaged(folder, f"{WEIGHTS} is missing, beside which the adapters in {found.folder.name} learned")
    # A checkpoint whose manifest has lost the hash is refused too: then it is None.
    if not found.base == listed(folder) == sha256(folder / WEIGHTS):
        raise Damaged(folder, f"{WEIGHTS} is not the one beside which the adapters in {found.folder.name} learned")
    for name, tensor in read_tensors(folder / WEIGHTS, wanted).items():
        wanted[name].copy_(tensor)

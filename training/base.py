"""The frozen base of a LoRA run, stored once; every checkpoint records its hash."""

from pathlib import Path

from torch import Tensor, nn

from configs.files import Damaged
from data.fetch import sha256
from training import checkpoint
from training.checkpoint import Checkpoint
from training.manifest import parse_manifest, write
from training.tensorfile import read_tensors

WEIGHTS = "model.safetensors"


def base_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Every parameter except the adapters, by name."""
    own = checkpoint.own_tensors(model)
    return {name: tensor for name, tensor in checkpoint.model_tensors(model).items() if name not in own}


def base_folder(checkpoints: Path) -> Path:
    """The run's base/ folder, next to checkpoints/."""
    return checkpoints.parent / "base"


def keep_base(checkpoints: Path, model: nn.Module) -> str:
    """Write the base's weights before the run's first checkpoint, and return their SHA-256.

    Raises Damaged if the run has checkpoints but its base is missing.
    """
    folder = base_folder(checkpoints)
    if not checkpoint.step_folders(checkpoints):
        write(folder, {WEIGHTS: base_tensors(model)}, {})
    return recorded_hash(folder)


def recorded_hash(folder: Path) -> str:
    """The SHA-256 of the base's weights according to its manifest. Raises Damaged if the manifest is unreadable."""
    try:
        return parse_manifest(folder).sha256[WEIGHTS]
    except (Damaged, KeyError) as error:
        raise Damaged(folder, f"cannot read manifest.json ({type(error).__name__})") from error


def base_weights(found: Checkpoint) -> Path:
    """The file of the base weights that a checkpoint's adapters were trained on. Raises Damaged if it is missing."""
    file = base_folder(found.folder.parent) / WEIGHTS
    if not file.is_file():
        raise Damaged(file.parent, f"{WEIGHTS} is missing: the adapters in {found.folder.name} were trained on it")
    return file


def load_base(found: Checkpoint, model: nn.Module) -> None:
    """Copy the base of a checkpoint into the model.

    Raises Damaged if it is not bit for bit the base that the adapters were trained on, or doesn't fit the model.
    """
    file, wanted = base_weights(found), base_tensors(model)
    folder = file.parent
    # found.base is None, and so refused too, if the checkpoint's manifest has lost the hash.
    if not found.base == recorded_hash(folder) == sha256(file):
        raise Damaged(folder, f"{WEIGHTS} is not the base that the adapters in {found.folder.name} were trained on")
    for name, tensor in read_tensors(file, wanted).items():
        wanted[name].copy_(tensor)

"""The base of a LoRA run: what adapters adapt never changes, so it is kept once, every checkpoint names its hash."""

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
        return parse_manifest(folder).sha256[WEIGHTS]
    except (Damaged, KeyError) as error:
        raise Damaged(folder, f"its manifest.json can't be read ({type(error).__name__})") from error


def base_weights(found: Checkpoint) -> Path:
    """The weights beside which a checkpoint's adapters learned. Raises Damaged if they are missing."""
    file = base_folder(found.folder.parent) / WEIGHTS
    if not file.is_file():
        raise Damaged(file.parent, f"{WEIGHTS} is missing, beside which the adapters in {found.folder.name} learned")
    return file


def load_base(found: Checkpoint, model: nn.Module) -> None:
    """Copy the base of a checkpoint into the model.

    Raises Damaged if it is not, bit for bit, what the checkpoint's adapters learned beside, or doesn't fit the model.
    """
    file, wanted = base_weights(found), base_tensors(model)
    folder = file.parent
    # A checkpoint whose manifest has lost the hash is refused too: then it is None.
    if not found.base == listed(folder) == sha256(file):
        raise Damaged(folder, f"{WEIGHTS} is not the one beside which the adapters in {found.folder.name} learned")
    for name, tensor in read_tensors(file, wanted).items():
        wanted[name].copy_(tensor)

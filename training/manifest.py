"""Folders that are whole or not there: written beside, hashed, renamed, and verified before they are used."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from configs.errors import UserError
from configs.files import Damaged, refuse_newer, small, whole_folder, write_whole
from configs.schema import Settings
from data.fetch import sha256

Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Manifest(Settings):
    """manifest.json: the SHA-256 of every other file."""

    format: Literal[1] = 1
    sha256: dict[str, Digest]
    tokenizer: Digest | None = None
    """of the run's tokenizer.json; a digit network has none"""
    base: Digest | None = None
    """of the weights in the run's base/ that adapters belong to"""


def write(folder: Path, tensors: dict[str, dict[str, Tensor]], texts: dict[str, str], **bound: str | None) -> None:
    """Make a folder of these files, and of a manifest of them and of what they are bound to; all of it or nothing.

    It takes the place of one left from before a resume; if the process is killed just then, `adopt` finishes that.
    Raises UserError (exit code 1), with the older one untouched, if the disk refuses; the folder above must be there,
    for where a run was deleted none is begun again by half.
    """
    try:
        folder.parent.mkdir(exist_ok=True)
        with whole_folder(folder) as beside:
            fill(beside, tensors, texts, **bound)
    except (OSError, SafetensorError) as error:
        size = sum(tensor.nbytes for content in tensors.values() for tensor in content.values())
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(
            f"{folder} ({size:,} bytes) can't be written: {reason}; what was saved before is good: "
            f"make room or give permission, then go on with --resume", 1
        ) from error  # fmt: skip


def fill(folder: Path, tensors: dict[str, dict[str, Tensor]], texts: dict[str, str], **bound: str | None) -> None:
    """Write the files and their manifest."""
    for name, content in tensors.items():
        save_file(content, folder / name)
    for name, text in texts.items():
        write_whole(folder / name, text)
    manifest = Manifest(sha256={name: sha256(folder / name) for name in sorted({**tensors, **texts})}, **bound)
    write_whole(folder / "manifest.json", manifest.model_dump_json(indent=1, exclude_none=True))
    for file in folder.iterdir():
        file.chmod(0o644)  # safetensors makes them private


def read_manifest(folder: Path) -> Manifest:
    """What manifest.json says. Raises Damaged, and UserError if a newer version wrote it, or if the run has another
    tokenizer than in training.
    """
    manifest = parse_manifest(folder)
    if manifest.tokenizer and manifest.tokenizer != tokenizer_hash(folder.parent):
        raise UserError(f"{folder} was trained with another tokenizer.json than the one there now; put that back", 1)
    return manifest


def parse_manifest(folder: Path) -> Manifest:
    """What manifest.json says, by itself. Raises Damaged, and UserError if a newer version wrote it."""
    content, file = b"", folder / "manifest.json"
    try:
        content = small(file)
        return Manifest.model_validate_json(content)
    except (OSError, ValidationError, RecursionError) as error:
        refuse_newer(content, file)
        raise Damaged(folder, str(error).splitlines()[0]) from error


def tokenizer_hash(checkpoints: Path) -> str | None:
    """The SHA-256 of the tokenizer.json of the run that these checkpoints belong to; None if it has none."""
    file = checkpoints.parent / "tokenizer.json"
    return sha256(file) if file.is_file() else None

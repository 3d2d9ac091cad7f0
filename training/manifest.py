"""Write a checkpoint folder atomically with a manifest of SHA-256 hashes, and read that manifest."""

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
    """of the run's tokenizer.json; None for a digit network"""
    base: Digest | None = None
    """of the weights in the run's base/ that the adapters were trained on"""


def write(folder: Path, tensors: dict[str, dict[str, Tensor]], texts: dict[str, str], **bound: str | None) -> None:
    """Write these files and their manifest to `folder`, atomically; `bound` are the hashes of files they depend on.

    Replaces an older folder of that name; if the process is killed while renaming, `checkpoint.adopt` finishes the job.
    Raises UserError (exit code 1) if writing fails, with the older folder untouched. The run's folder must exist, so
    that a run that was deleted meanwhile is not recreated in part.
    """
    try:
        folder.parent.mkdir(exist_ok=True)
        with whole_folder(folder) as beside:
            write_files(beside, tensors, texts, **bound)
    except (OSError, SafetensorError) as error:
        size = sum(tensor.nbytes for content in tensors.values() for tensor in content.values())
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(
            f"cannot write {folder} ({size:,} bytes): {reason}. Earlier checkpoints are intact; "
            "free space or fix permissions, then continue with --resume", 1
        ) from error  # fmt: skip


def write_files(
    folder: Path, tensors: dict[str, dict[str, Tensor]], texts: dict[str, str], **bound: str | None
) -> None:
    for name, content in tensors.items():
        save_file(content, folder / name)
    for name, text in texts.items():
        write_whole(folder / name, text)
    manifest = Manifest(sha256={name: sha256(folder / name) for name in sorted({**tensors, **texts})}, **bound)
    write_whole(folder / "manifest.json", manifest.model_dump_json(indent=1, exclude_none=True))
    for file in folder.iterdir():
        file.chmod(0o644)  # safetensors creates files that only their owner can read


def read_manifest(folder: Path) -> Manifest:
    """Read manifest.json and check the run's tokenizer against it.

    Raises Damaged if it is invalid; UserError if a newer version wrote it or the tokenizer has changed.
    """
    manifest = parse_manifest(folder)
    if manifest.tokenizer and manifest.tokenizer != tokenizer_hash(folder.parent):
        raise UserError(f"{folder} was trained with a different tokenizer.json; restore the original", 1)
    return manifest


def parse_manifest(folder: Path) -> Manifest:
    """Read manifest.json alone. Raises Damaged if it is invalid, UserError if a newer version wrote it."""
    content, file = b"", folder / "manifest.json"
    try:
        content = small(file)
        return Manifest.model_validate_json(content)
    except (OSError, ValidationError, RecursionError) as error:
        refuse_newer(content, file)
        raise Damaged(folder, str(error).splitlines()[0]) from error


def tokenizer_hash(checkpoints: Path) -> str | None:
    """The SHA-256 of the run's tokenizer.json; None if the run has none."""
    file = checkpoints.parent / "tokenizer.json"
    return sha256(file) if file.is_file() else None

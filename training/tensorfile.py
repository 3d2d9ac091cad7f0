"""Read and write safetensors files, checking header size, names and shapes before reading any tensor."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from configs.errors import UserError
from configs.files import Damaged, require_file

LARGEST_HEADER = 4 * 2**20  # bytes; a hostile header of 19 MB takes 8 s to parse


def read_tensors(file: Path, wanted: dict[str, Tensor] | None) -> dict[str, Tensor]:
    """The tensors of a safetensors file; with `wanted`, names and shapes must match it.

    Raises Damaged if they don't, or if the file is invalid.
    """
    with open_tensors(file) as tensors:
        if wanted is not None:
            found = {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}
            expected = {name: tuple(tensor.shape) for name, tensor in wanted.items()}
            if found != expected:
                strange = sorted(set(found.items()) ^ set(expected.items()))[0][0]
                raise Damaged(file.parent, f"{file.name}: {strange} does not fit this network")
        return {name: tensors.get_tensor(name) for name in tensors.keys()}


@contextmanager
def open_tensors(file: Path) -> Iterator[Any]:
    """Open a safetensors file. Raises Damaged if it is invalid or its header is too large to parse quickly."""
    try:
        require_file(file)
        with file.open("rb") as raw:
            if int.from_bytes(raw.read(8), "little") > LARGEST_HEADER:
                raise Damaged(file.parent, f"{file.name} has too large a header")
        with safe_open(file, framework="pt") as tensors:
            yield tensors
    except (OSError, SafetensorError) as error:
        raise Damaged(file.parent, f"{file.name}: {error}") from error


def write_tensors(file: Path, tensors: dict[str, Tensor]) -> None:
    """Write a world-readable safetensors file, marked as PyTorch's. Raises UserError if writing fails."""
    try:
        save_file(tensors, file, metadata={"format": "pt"})
    except SafetensorError as error:
        raise UserError(f"cannot write {file.name}: {error}", 1) from error
    file.chmod(0o644)

"""Download data files safely: https only, size and SHA-256 checked, never leaving a partial file."""

import hashlib
import http.client
import os
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import NamedTuple

from configs.errors import UserError
from configs.files import require_file, whole_file

FILES = Path(__file__).parent / "files"
TIMEOUT = 30  # seconds without receiving a byte
LARGEST = 2**28  # bytes; every file that we download is smaller


class Source(NamedTuple):
    """A file to download: its path in the data folder, its URL, and the SHA-256 and size it must have."""

    path: str
    url: str
    sha256: str
    size: int
    """in bytes"""


def folders() -> list[Path]:
    """The folders to search for data files: PELLUCID_DATA first, then data/files."""
    named = os.environ.get("PELLUCID_DATA")
    return [Path(named), FILES] if named else [FILES]


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    require_file(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def local(path: str, digest: str) -> Path | None:
    """The file at `path` in a data folder, or None. Raises UserError if its SHA-256 is not `digest`."""
    for folder in folders():
        found = folder / path
        if found.is_file():
            if found.stat().st_size > LARGEST or sha256(found) != digest:
                raise UserError(f"{found}: checksum mismatch, its SHA-256 should be {digest}; delete the file")
            return found
    return None


def fetch(source: Source) -> Path:
    """Path of the source's file, which is downloaded into data/files unless a data folder already has it.

    Raises UserError if the network fails (the message names the path for a manual download) and if the download
    has the wrong size or SHA-256; neither leaves a file behind.
    """
    found = local(source.path, source.sha256)
    return found if found else download(source, FILES / source.path)


def download(source: Source, target: Path) -> Path:
    """Download to a temporary file, check it, then rename it. Raises UserError as `fetch` does."""
    if not source.url.startswith("https://"):
        raise UserError(f"{source.url}: only https is allowed")
    print(f"downloading {source.url} ({source.size / 1e6:.1f} MB)", file=sys.stderr)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(source.url, timeout=TIMEOUT) as response, whole_file(target) as partial:
            if not response.url.startswith("https://"):
                raise UserError(f"{source.url} redirects to {response.url}: only https is allowed")
            with partial.open("wb") as file:
                copy(response, file, source)
            if sha256(partial) != source.sha256:
                raise UserError(f"{source.url}: checksum mismatch, its SHA-256 should be {source.sha256}")
            return target
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", error)
        raise UserError(
            f"cannot download {source.url} ({reason}); download it yourself to {target}, "
            f"or set PELLUCID_DATA to a folder that contains {source.path}"
        ) from error


def copy(response, file, source: Source) -> None:
    """Copy the response to the file. Raises UserError as soon as it exceeds the source's size, or if it falls short."""
    received = 0
    while block := response.read(1 << 16):
        received += len(block)
        if received > source.size:
            raise UserError(f"{source.url}: received more than the expected {source.size} bytes")
        file.write(block)
    if received < source.size:
        raise UserError(f"{source.url}: connection closed after {received} of {source.size} bytes; try again")

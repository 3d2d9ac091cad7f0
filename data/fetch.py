"""Downloads that can be trusted: https alone, bounded, checked by SHA-256, and complete or not there at all."""

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
TIMEOUT = 30  # seconds without a byte
LARGEST = 2**28  # bytes of any file that we know


class Source(NamedTuple):
    """A file on the web: where it goes below a data folder, where it comes from, and what it must be."""

    path: str
    url: str
    sha256: str
    size: int
    """bytes, exactly"""


def folders() -> list[Path]:
    """Where data files are looked for: PELLUCID_DATA first, then data/files."""
    named = os.environ.get("PELLUCID_DATA")
    return [Path(named), FILES] if named else [FILES]


def sha256(path: Path) -> str:
    """The file's SHA-256, in hexadecimal."""
    require_file(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def local(path: str, digest: str) -> Path | None:
    """The file of that name in one of the data folders, if there is one; it must have this SHA-256."""
    for folder in folders():
        found = folder / path
        if found.is_file():
            if found.stat().st_size > LARGEST or sha256(found) != digest:
                raise UserError(f"{found} is not the file it should be (SHA-256 {digest}); delete it")
            return found
    return None


def fetch(source: Source) -> Path:
    """The file of this source, downloaded into data/files unless a data folder has it already.

    Raises UserError when there is no network, naming the place for a copy made by hand, and when what
    arrives is not what it should be; nothing is left behind then.
    """
    found = local(source.path, source.sha256)
    return found if found else download(source, FILES / source.path)


def download(source: Source, target: Path) -> Path:
    """Fetch, check, then rename. Raises UserError as `fetch` does."""
    if not source.url.startswith("https://"):
        raise UserError(f"{source.url}: only https is trusted")
    print(f"downloading {source.url} ({source.size / 1e6:.1f} MB)", file=sys.stderr)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(source.url, timeout=TIMEOUT) as response, whole_file(target) as beside:
            if not response.url.startswith("https://"):
                raise UserError(f"{source.url} redirects to {response.url}: only https is trusted")
            with beside.open("wb") as file:
                copy(response, file, source)
            if sha256(beside) != source.sha256:
                raise UserError(f"{source.url} sent something else: its SHA-256 should be {source.sha256}")
            return target
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", error)
        raise UserError(
            f"cannot download {source.url} ({reason}); fetch it by hand and put it at {target}, "
            f"or set PELLUCID_DATA to a folder that has {source.path}"
        ) from error


def copy(response, file, source: Source) -> None:
    """Copy one stream into the other; raises UserError as soon as it is longer than promised, or shorter."""
    received = 0
    while block := response.read(1 << 16):
        received += len(block)
        if received > source.size:
            raise UserError(f"{source.url} sends more than the {source.size} bytes it should")
        file.write(block)
    if received < source.size:
        raise UserError(f"{source.url} broke off after {received} of {source.size} bytes; try again")

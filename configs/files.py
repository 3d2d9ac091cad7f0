"""Files: reading is bounded before anything is parsed, writing is atomic, and a lock keeps other processes out.

Nothing here needs torch.
"""

import errno
import json
import os
import re
import shutil
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from io import FileIO
from pathlib import Path

from configs.errors import UserError

LARGEST_JSON = 2**20  # bytes, unless the caller knows better
MOST_VALUES = 2**17  # in one JSON file
CONTAINER = 8  # values that a list or a table counts for, as that is what it takes: about 500 bytes
LONGEST_LINE = 2**16  # bytes, of a log
HELD = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES}  # what locking a file raises if another has it
UNSUPPORTED = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}  # what a file system cannot do
POLL = 0.1  # seconds between two looks whether a lock is free
STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)


class Damaged(UserError):
    """Something on disk that is not what was saved."""

    def __init__(self, folder: Path, reason: object) -> None:
        super().__init__(f"{folder} is damaged: {reason}", exit_code=1)


def small(path: Path, largest: int = LARGEST_JSON, values: int = MOST_VALUES) -> bytes:
    """The bytes of a file that has no reason to be large. Raises Damaged if it is, or if it is no file but a pipe.

    A megabyte of brackets becomes hundreds of megabytes when JSON is parsed, so their number is bounded too.
    """
    require_file(path)
    with path.open("rb") as file:
        content = file.read(largest + 1)
    if len(content) > largest:
        raise Damaged(path.parent, f"{path.name} is too large")
    if count_values(content, values) > values:
        raise Damaged(path.parent, f"{path.name} holds too many values")
    return content


def refuse_newer(content: str | bytes, file: object, known: int = 1) -> None:
    """Raises UserError if this JSON, which could not be read as `file`, has a format number above `known`,
    its own or its index's.

    A file that a newer version wrote is not damaged, and nothing may be deleted or rebuilt because of it.
    """
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return
    tables = [table for table in (found, isinstance(found, dict) and found.get("index")) if isinstance(table, dict)]
    newest = max((table["format"] for table in tables if type(table.get("format")) is int), default=0)
    if newest > known:
        raise UserError(
            f"{file} was written by a newer version of pellucid (format {newest}; this version reads up to {known}); "
            "update pellucid", 1
        )  # fmt: skip


def require_file(path: Path) -> None:
    """Raises Damaged for a pipe, a socket or a device, which could be read without end or not at all."""
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # a folder is an error of its own, which names itself
        raise Damaged(path.parent, f"{path.name} is not a file")


def count_values(content: bytes, most: int) -> int:
    """About how many values this JSON holds; beyond `most` the count is only right where it has to be."""
    if (crude := weight(content)) <= most:
        return crude
    return weight(STRING.sub(b"", content))


def weight(content: bytes) -> int:
    """Commas, and brackets for what they weigh; those inside texts are counted too."""
    return content.count(b",") + CONTAINER * (content.count(b"[") + content.count(b"{"))


def lines_of(path: Path) -> Iterator[bytes]:
    """The whole lines of a log; a last one that was cut off in mid-writing is left out.

    Raises Damaged for a line that no log has, and for what is no file.
    """
    require_file(path)
    with path.open("rb") as file:
        while (line := file.readline(LONGEST_LINE)).endswith(b"\n"):
            yield line
        if len(line) == LONGEST_LINE:
            raise Damaged(path.parent, f"{path.name} has too long a line")


# Writing


def partial_of(path: Path) -> Path:
    """Where a folder is written before it is renamed."""
    return path.with_name(f".{path.name}.partial")


@contextmanager
def whole_folder(folder: Path, remove: Callable[[Path], object] | None = None) -> Iterator[Path]:
    """An empty folder to fill; when the block ends it takes the place of `folder`, which is removed by `remove`.

    If the block raises, nothing is left of it. If the older folder cannot be removed, or the process is killed just
    then, the new one stays under the name that `partial_of` gives, complete.
    """
    beside = partial_of(folder)
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    try:
        yield beside
        for path in (*beside.rglob("*"), beside):
            sync(path)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)  # half of it would only keep the disk full
        raise
    if folder.exists():
        (remove or shutil.rmtree)(folder)
    beside.rename(folder)
    sync(folder.parent)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """The name of a file to write; when the block ends it takes the place of `path`, which is complete at any moment.

    If the block raises, nothing is left of it. A link is followed; what is no file, such as /dev/stdout, is written to
    directly.
    """
    if path.exists() and not path.is_file():
        yield path
        return
    path = Path(os.path.realpath(path))
    beside = path.with_name(f".{path.name[:50]}.{os.getpid()}.partial")  # no two processes write the same
    try:
        yield beside
        sync(beside)
        beside.replace(path)
    except BaseException:
        with suppress(OSError):
            beside.unlink()
        raise
    sync(path.parent)


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file (text as UTF-8): all of it or, if that raises OSError, none, and an older one stays as it was."""
    with whole_file(path) as beside:
        beside.write_bytes(content.encode() if isinstance(content, str) else content)


def append(path: Path, text: str) -> None:
    """Add text to the end of a file as UTF-8: all of it or, if that raises OSError, none."""
    content = text.encode()
    with path.open("ab", buffering=0) as file:
        before = file.seek(0, os.SEEK_END)
        try:
            while content:
                content = content[file.write(content) :]
        except OSError:
            with suppress(OSError):
                file.truncate(before)
            raise


def sync(path: Path) -> None:
    """Wait until the file or folder is on the disk itself, where the system can do that (Windows not for folders)."""
    if path.is_dir() and os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
    finally:
        os.close(descriptor)


# Locking


def open_lock(path: Path) -> FileIO:
    """A file that can be locked. Raises UserError if it cannot be written."""
    try:
        return FileIO(path, "a+")
    except OSError as error:
        raise UserError(f"cannot write to {path.parent}: {error.strerror}", 1) from error


def lock(file: FileIO, held: Callable[[], None]) -> None:
    """Lock a file until it is closed or the process ends. If another process has it, call `held`, then wait for it.

    A file system that has no locks, as some network disks, is warned about once; then nothing is locked.
    """
    try:
        if not try_lock(file):
            held()
            while not try_lock(file):
                time.sleep(POLL)
    except OSError as error:
        warn_of_no_locks(Path(os.fsdecode(file.name)).parent, error.strerror)


def try_lock(file: FileIO) -> bool:
    """Lock a file if no other process has. Raises OSError if the file system has no locks."""
    try:
        if os.name == "nt":
            import msvcrt

            file.seek(2**20)  # a byte that nobody reads: Windows' locks are mandatory
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in HELD:
            raise
        return False
    return True


@cache  # so that it is said once
def warn_of_no_locks(folder: Path, reason: str) -> None:
    """Warn that two processes could write to the folder at once."""
    print(
        f"warning: {folder} cannot be locked ({reason}); continuing without a lock: start no other process that "
        "writes there",
        file=sys.stderr,
    )

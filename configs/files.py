"""Safe file access: size limits before parsing, atomic writes, and locks between processes. Needs no torch."""

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

LARGEST_JSON = 2**20  # bytes, the default limit
MOST_VALUES = 2**17  # in one JSON file
CONTAINER = 8  # values that a list or a table counts as: parsed, it takes about 500 bytes
LONGEST_LINE = 2**16  # bytes in a line of a log
HELD = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES}  # the file is locked by another process
UNSUPPORTED = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}  # the file system lacks the operation
POLL = 0.1  # seconds between attempts to take a lock
STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)


class Damaged(UserError):
    """A saved file or folder that is damaged."""

    def __init__(self, folder: Path, reason: object) -> None:
        super().__init__(f"{folder} is damaged: {reason}", exit_code=1)


def small(path: Path, largest: int = LARGEST_JSON, values: int = MOST_VALUES) -> bytes:
    """The bytes of a file that should be small. Raises Damaged if it is too large, or not a regular file.

    The number of JSON values is limited too: a megabyte of brackets takes hundreds of megabytes once parsed.
    """
    require_file(path)
    with path.open("rb") as file:
        content = file.read(largest + 1)
    if len(content) > largest:
        raise Damaged(path.parent, f"{path.name} is too large: the limit is {largest:,} bytes")
    if count_values(content, values) > values:
        raise Damaged(path.parent, f"{path.name} contains too many values")
    return content


def refuse_newer(content: str | bytes, file: object, known: int = 1) -> None:
    """Raises UserError if the content of `file`, JSON that could not be read, or its index has a format above `known`.

    A file written by a newer version is not damaged, so nothing may be deleted or rebuilt because of it.
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
    """Raises Damaged for a pipe, a socket or a device, which might never end or never deliver anything."""
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # opening a folder raises an error that names it
        raise Damaged(path.parent, f"{path.name} is not a regular file")


def count_values(content: bytes, most: int) -> int:
    """About how many values this JSON contains; commas and brackets inside strings are excluded only if needed."""
    if (crude := weight(content)) <= most:
        return crude
    return weight(STRING.sub(b"", content))


def weight(content: bytes) -> int:
    """Number of commas, plus CONTAINER per opening bracket, including those inside strings."""
    return content.count(b",") + CONTAINER * (content.count(b"[") + content.count(b"{"))


def lines_of(path: Path) -> Iterator[bytes]:
    """The complete lines of a log, without a last one that was only partly written.

    Raises Damaged if a line is longer than LONGEST_LINE, or if `path` is not a regular file.
    """
    require_file(path)
    with path.open("rb") as file:
        while (line := file.readline(LONGEST_LINE)).endswith(b"\n"):
            yield line
        if len(line) == LONGEST_LINE:
            raise Damaged(path.parent, f"{path.name} has a line longer than {LONGEST_LINE:,} bytes")


# Writing


def partial_of(path: Path) -> Path:
    """The temporary name under which a folder is written."""
    return path.with_name(f".{path.name}.partial")


@contextmanager
def whole_folder(folder: Path, remove: Callable[[Path], object] | None = None) -> Iterator[Path]:
    """Write a folder atomically: yields an empty one to fill, which then replaces `folder`, removed by `remove`.

    If the block raises, the new folder is removed. If the old one cannot be removed, or the process is killed at that
    moment, the new one stays, complete, under its temporary name (`partial_of`).
    """
    beside = partial_of(folder)
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    try:
        yield beside
        for path in (*beside.rglob("*"), beside):
            sync(path)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)  # do not leave a partial folder on a disk that may be full
        raise
    if folder.exists():
        (remove or shutil.rmtree)(folder)
    beside.rename(folder)
    sync(folder.parent)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Write a file atomically: yields the name of a temporary file, which replaces `path` when the block ends.

    If the block raises, the temporary file is removed. Links are followed; anything that is not a regular file, such as
    /dev/stdout, is written directly.
    """
    if path.exists() and not path.is_file():
        yield path
        return
    path = Path(os.path.realpath(path))
    beside = path.with_name(f".{path.name[:50]}.{os.getpid()}.partial")  # unique to this process
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
    """Write a file (text as UTF-8). If that raises OSError, an existing file is unchanged."""
    with whole_file(path) as beside:
        beside.write_bytes(content.encode() if isinstance(content, str) else content)


def append(path: Path, text: str) -> None:
    """Append text to a file as UTF-8. If that raises OSError, the file is unchanged."""
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
    """fsync a file or folder, where the system supports it (Windows: files only)."""
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
    """Open a lock file. Raises UserError if it cannot be written."""
    try:
        return FileIO(path, "a+")
    except OSError as error:
        raise UserError(f"cannot write to {path.parent}: {error.strerror}", 1) from error


def lock(file: FileIO, held: Callable[[], None]) -> None:
    """Lock a file until it is closed or the process ends. If another process has the lock, call `held` and wait.

    On a file system without locks, such as some network disks, warn once and continue without a lock.
    """
    try:
        if not try_lock(file):
            held()
            while not try_lock(file):
                time.sleep(POLL)
    except OSError as error:
        warn_of_no_locks(Path(os.fsdecode(file.name)).parent, error.strerror)


def try_lock(file: FileIO) -> bool:
    """Lock a file; returns False if another process has locked it. Raises OSError if the file system has no locks."""
    try:
        if os.name == "nt":
            import msvcrt

            file.seek(2**20)  # a byte that is never read: Windows locks also block reading
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in HELD:
            raise
        return False
    return True


@cache  # warn once
def warn_of_no_locks(folder: Path, reason: str) -> None:
    """Warn that another process could write to the folder at the same time."""
    print(
        f"warning: {folder} cannot be locked ({reason}); continuing without a lock. Do not start another process "
        "that writes to it",
        file=sys.stderr,
    )

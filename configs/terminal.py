"""Keep scripts running when a standard stream is missing or can no longer be written (closed terminal, full disk)."""

import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, TextIO


class Lasting:
    """A text stream that drops what it cannot write: closed terminal, full disk, broken pipe."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):  # ValueError: the stream is closed
            self.stream.write(text)
        return len(text)

    def writelines(self, texts: Iterable[str]) -> None:
        for text in texts:
            self.write(text)

    def flush(self) -> None:
        """Flush, ignoring errors. Python calls this at exit, where an error would change the exit code to 120."""
        with suppress(OSError, ValueError):
            self.stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def secure_streams() -> None:
    """Make stderr ignore write errors, and open the null device for each missing standard stream.

    Each open takes the lowest free descriptor, the missing stream's. Otherwise the next file opened, such as a log,
    would take it, and whatever libraries print would end up in that file.
    """
    sys.stdin = sys.stdin or open(os.devnull, encoding="utf-8")
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")
    stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")
    sys.stderr = stderr if isinstance(stderr, Lasting) else Lasting(stderr)  # type: ignore[assignment]


def settle_stdout() -> None:
    """Flush stdout; if that fails, discard its buffer, or Python would retry at exit and print a traceback."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        drop_stdout()


def drop_stdout() -> None:
    """Redirect stdout, with whatever is still buffered, to the null device."""
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)

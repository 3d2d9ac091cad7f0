"""Standard streams that may be missing, full, or gone with their terminal: no reason for a script to stop or misbehave.

Nothing here needs torch.
"""

import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, TextIO


class Lasting:
    """A text stream that drops what it cannot write: the terminal is closed, the disk full, the pipe's reader gone."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """Write the text, or drop it."""
        with suppress(OSError, ValueError):  # ValueError: the stream is closed
            self.stream.write(text)
        return len(text)

    def writelines(self, texts: Iterable[str]) -> None:
        """Write the texts, or drop them."""
        for text in texts:
            self.write(text)

    def flush(self) -> None:
        """Write what is still in memory, or drop it. Python calls this at exit; code 120 is how it reports an error."""
        with suppress(OSError, ValueError):
            self.stream.flush()

    def __getattr__(self, name: str) -> Any:
        """All else is the stream's own."""
        return getattr(self.stream, name)


def secure_streams() -> None:
    """Let stderr last, and give a process that was started without stdin, stdout or stderr an empty one.

    Each open takes the lowest free descriptor, which is the one missing. Otherwise the next file, such as a log, would
    take it, and what libraries print would go into that file.
    """
    sys.stdin = sys.stdin or open(os.devnull, encoding="utf-8")
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")
    stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")
    sys.stderr = stderr if isinstance(stderr, Lasting) else Lasting(stderr)  # type: ignore[assignment]


def settle_stdout() -> None:
    """Drop what stdout cannot write: Python would try again at exit, and report the failure in a traceback."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        drop_stdout()


def drop_stdout() -> None:
    """Send what is still to be written to stdout nowhere."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)

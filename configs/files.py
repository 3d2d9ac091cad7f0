"""Files that may come from a stranger: how large they may be, how many things they may hold, and that they are files.

Reading is what is bounded here, before anything is parsed. Nothing needs torch.
"""

import json
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from configs.errors import UserError

LARGEST_JSON = 2**20  # bytes, unless the caller knows better
MOST_VALUES = 2**17  # in one JSON file
CONTAINER = 8  # values that a list or a table counts for, as that is what it takes: about 500 bytes
LONGEST_LINE = 2**16  # bytes, of a log
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

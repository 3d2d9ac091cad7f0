"""What every view gives back: text, one sentence that says what is seen, and a picture that is drawn if asked for."""

import textwrap
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from data.tokenizer import Tokenizer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 110
SIGNS = {" ": "␣", "\n": "↵", "\t": "⇥", "\r": "␍"}


class Seen(NamedTuple):
    """One view of one network."""

    text: str
    sentence: str
    """what is seen, and the lesson by name"""
    draw: Callable[[], "Figure"]


def table(head: Iterable[str], rows: Iterable[Iterable[Any]], left: int = 1) -> str:
    """Columns under their heads: the first `left` to the left, numbers to the right."""
    cells = [[*map(str, head)], *([str(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        for row in cells
    ]
    return "\n".join(line.rstrip() for line in lines)


def wrapped(text: str, columns: int = WIDTH) -> str:
    """The text in lines of at most so many characters."""
    return "\n".join(textwrap.wrap(text, columns))


def label(tokenizer: Tokenizer, token: int) -> str:
    """A token as it can be shown: spaces and line breaks as signs, bytes that are no text as \\xNN."""
    if token == tokenizer.end_of_text:
        return "<end>"
    content = tokenizer.token_bytes(token)
    text = content.decode("utf-8", errors="backslashreplace")
    return "".join(
        SIGNS.get(c, c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode()) for c in text
    )


def labels(tokenizer: Tokenizer, tokens: Iterable[int]) -> list[str]:
    """Each token as it can be shown."""
    return [label(tokenizer, int(token)) for token in tokens]

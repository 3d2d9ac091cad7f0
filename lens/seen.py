"""The result of a view (text, explanation, picture), and helpers that format tables and tokens."""

import textwrap
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from data.tokenizer import Tokenizer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 110
SIGNS = {" ": "␣", "\n": "↵", "\t": "⇥", "\r": "␍"}


class Seen(NamedTuple):
    """A view's output: text to print, one sentence that explains it, and a function that draws the picture."""

    text: str
    sentence: str
    """what the view shows, and which lesson explains it"""
    draw: Callable[[], "Figure"]


def table(head: Iterable[str], rows: Iterable[Iterable[Any]], left: int = 1) -> str:
    """A text table with a header: the first `left` columns left-aligned, the others right-aligned."""
    cells = [[*map(str, head)], *([str(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        for row in cells
    ]
    return "\n".join(line.rstrip() for line in lines)


def wrapped(text: str, columns: int = WIDTH) -> str:
    return "\n".join(textwrap.wrap(text, columns))


def label(tokenizer: Tokenizer, token: int) -> str:
    """A token as printable text: " the" -> "␣the", a newline -> "↵", bytes that are not UTF-8 -> \\xNN."""
    if token == tokenizer.end_of_text:
        return "<end>"
    content = tokenizer.token_bytes(token)
    text = content.decode("utf-8", errors="backslashreplace")
    return "".join(
        SIGNS.get(c, c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode()) for c in text
    )


def labels(tokenizer: Tokenizer, tokens: Iterable[int]) -> list[str]:
    return [label(tokenizer, int(token)) for token in tokens]

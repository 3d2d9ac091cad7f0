"""Shared drawing helpers: the matplotlib style, colour maps with white at zero, labels, saving.

The colours suit colour-blind readers: ColorBrewer's red and blue for signed values, blues for fractions, the eight
colours of Okabe and Ito for categories.
"""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.ticker import NullFormatter

from configs.files import whole_file
from lens.seen import wrapped

BLUE, RED, INK, GREY = "#0072B2", "#D55E00", "#222222", "#999999"
KINDS = (BLUE, "#E69F00", "#009E73", RED, "#CC79A7", "#56B4E9", "#F0E442", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
SIGNED, SHARE = "RdBu", "Blues"
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "text.color": INK,
    "text.parse_math": False,  # a prompt may contain dollar signs
    "legend.frameon": False,
    "figure.dpi": 110,
    "savefig.dpi": 110,
    "svg.hashsalt": "lens",
}


def save(draw: Callable[[], Figure], file: Path) -> None:
    """Draw a picture and write it to a file, in the format of its extension."""
    with matplotlib.rc_context(STYLE):
        figure = draw()
        with whole_file(file) as beside:
            figure.savefig(beside, format=file.suffix[1:].lower())


def canvas(width: float, height: float, title: str, sentence: str = "") -> Figure:
    """An empty figure (size in inches) with a title above and a sentence below."""
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(title, fontsize=14, fontweight="bold", x=0.01, ha="left")
    if sentence:
        figure.supxlabel(wrapped(sentence, int(width * 13.5)), fontsize=9, x=0.01, ha="left", color="#555555")
    return figure


def signed(axes: Axes, grid: np.ndarray, limit: float | None = None, **more) -> ScalarMappable:
    """Draw a grid of values in blue (positive) and red (negative), white at zero; infinities are grey."""
    grid = np.asarray(grid, dtype=float)
    finite = np.abs(grid[np.isfinite(grid)])
    limit = limit or (float(finite.max()) if finite.size else 0) or 1.0
    axes.set_facecolor("#dddddd")
    shown = np.where(np.isfinite(grid), grid, np.nan)
    return axes.imshow(shown, cmap=SIGNED, vmin=-limit, vmax=limit, **more)


def shares(axes: Axes, grid: np.ndarray, top: float = 1.0, **more) -> ScalarMappable:
    """Draw a grid of values from 0 (white) to `top` (dark blue)."""
    return axes.imshow(np.asarray(grid, dtype=float), cmap=SHARE, norm=Normalize(0, top or 1.0), **more)


SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def powers(axes: Axes, which: str = "y") -> None:
    """Make an axis logarithmic, with ticks at powers of ten."""
    axes.set(**{f"{which}scale": "log"})
    axis = getattr(axes, f"{which}axis")
    axis.set_major_formatter(lambda value, position: "10" + f"{np.log10(value):.0f}".translate(SUPERSCRIPT))
    axis.set_minor_formatter(NullFormatter())


def bare(axes: Axes) -> None:
    """Remove ticks and frame."""
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)


def written(axes: Axes, grid: np.ndarray, form: str, dark: Callable[[float], bool], size: float = 8) -> None:
    """Write each value of a grid into its cell, in white where the cell is dark."""
    for (row, column), value in np.ndenumerate(grid):
        color = "white" if dark(value) else INK
        axes.text(column, row, form.format(value), ha="center", va="center", fontsize=size, color=color)


def token_ticks(axes: Axes, labels: Sequence[str], along: str, size: float = 8, upright: bool = False) -> None:
    """Label the ticks of one axis with tokens; long ones along x are slanted unless `upright`."""
    labels = [drawable(label) for label in labels]
    if along == "x":
        upright = upright or all(len(label) <= 2 for label in labels)
        axes.set_xticks(range(len(labels)), labels, rotation=0 if upright else 60, ha="center" if upright else "right")
        axes.tick_params(axis="x", labelfontfamily="DejaVu Sans Mono", labelsize=size, length=0)
        if not upright:
            for label in axes.get_xticklabels():
                label.set_rotation_mode("anchor")
    else:
        axes.set_yticks(range(len(labels)), labels)
        axes.tick_params(axis="y", labelfontfamily="DejaVu Sans Mono", labelsize=size, length=0)


@cache
def known_characters() -> frozenset[int]:
    """The code points in the monospace font."""
    return frozenset(get_font(findfont("DejaVu Sans Mono")).get_charmap())


def drawable(text: str) -> str:
    """Replace each character missing from the font by a box."""
    return "".join(c if ord(c) in known_characters() else "□" for c in text)


def shortened(text: str, most: int = 10) -> str:
    """The drawable text, cut to `most` characters with an ellipsis."""
    text = drawable(text)
    return text if len(text) <= most else text[: most - 1] + "…"

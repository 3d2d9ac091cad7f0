"""Reading a picture as a person does: which number lies under which words, by the axes and not by the code."""

from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from lens.paint import STYLE
from lens.request import Request
from lens.seen import Seen
from lens.views import look

DEFAULTS = {"checkpoint": "best", "layout": "lesson", "token": [], "top": 10, "seed": 0, "lesson": False}


def seen(view: str, **more: Any) -> Seen:
    """What explore.py would show for these options, its picture in the style in which it is saved."""
    fields = dict.fromkeys(Request._fields) | DEFAULTS | {"no_browser": False, "view": view}
    shown = look(Request(**(fields | more)))
    return shown._replace(draw=rc_context(STYLE)(shown.draw))


def title(axes: Axes) -> str:
    """What stands above it."""
    return axes.get_title(loc="left")


def panels(figure: Figure) -> list[Axes]:
    """All axes but colour bars, in the order in which they were made."""
    return [axes for axes in figure.axes if axes.get_label() != "<colorbar>" and axes.get_visible()]


def ticks(axes: Axes, along: str) -> dict[float, str]:
    """The word at each tick of the x or the y axis."""
    axis = getattr(axes, f"{along}axis")
    pairs = zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=True)
    return {float(place): text.get_text() for place, text in pairs}


def cells(axes: Axes) -> np.ndarray:
    """The grid that is drawn, by row (y) and column (x) as the ticks count them; NaN where nothing is."""
    (image,) = axes.images
    grid = np.ma.filled(np.ma.asarray(image.get_array(), dtype=float), np.nan)
    edges = (-0.5, grid.shape[1] - 0.5, grid.shape[0] - 0.5, -0.5)
    assert image.origin == "upper" and tuple(image.get_extent()) == edges
    return grid


def words(axes: Axes) -> dict[tuple[float, float], str]:
    """What is written in the axes, by (x, y)."""
    return {tuple(round(float(v), 6) for v in text.get_position()): text.get_text() for text in axes.texts}


def bars(axes: Axes) -> dict[float, tuple[float, str]]:
    """(signed length, colour) of each bar by the place of its middle: along y if bars lie, along x if they stand."""
    found = {}
    for container in axes.containers:
        for bar in container:
            (x, y), width, height = bar.get_xy(), bar.get_width(), bar.get_height()
            lies = container.orientation == "horizontal"
            place, length = (y + height / 2, width) if lies else (x + width / 2, height)
            found[round(place, 6)] = (length, to_hex(bar.get_facecolor()))
    return found


def lines(axes: Axes) -> dict[str, list[tuple[float, float]]]:
    """The points of each curve under its word in the legend; by the colour and the dashes shown there."""
    legend, found = axes.get_legend(), {}
    assert legend is not None
    for handle, text in zip(legend.legend_handles, legend.get_texts(), strict=True):
        alike = [line for line in axes.lines if looks(line) == looks(handle)]
        alike = [line for line in alike if len(line.get_xdata()) > 1] or alike  # before points, which mark a place
        assert len(alike) == 1, f"{text.get_text()}: {len(alike)} curves look like this"
        found[text.get_text()] = [tuple(map(float, point)) for point in zip(*alike[0].get_data(), strict=True)]
    return found


def looks(line: Any) -> tuple:
    """By what a reader tells a curve from the others."""
    return to_hex(line.get_color()), line.get_linestyle(), line.get_marker(), line.get_linewidth()


def rows(text: str, head: str) -> list[list[str]]:
    """The cells of a table in a text, below the line that begins with these words, up to an empty line."""
    lines = text.split("\n")
    start = next(number for number, line in enumerate(lines) if " ".join(line.split()).startswith(head))
    body = lines[start + 1 :]
    return [line.split() for line in body[: body.index("") if "" in body else len(body)]]

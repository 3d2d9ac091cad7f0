"""Pictures of the parts of a GPT: embedding, heads, neurons."""

from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Rectangle

from lens.paint import (
    BLUE,
    GREY,
    INK,
    KINDS,
    MARKERS,
    RED,
    bare,
    canvas,
    drawable,
    shares,
    shortened,
    signed,
    token_ticks,
    written,
)

Bars = Sequence[tuple[str, float]]
MONO = "DejaVu Sans Mono"


def kind_of(name: str) -> int:
    """0 lower case, 1 upper case, 2 digit, 3 other, by the first character that is not a space."""
    first = (name.lstrip("␣") or " ")[0]
    return 2 if first.isdecimal() else 3 if not first.isalpha() else 1 if first.isupper() else 0


KIND_NAMES = ("lower case", "upper case", "digits", "other")


def embedding(
    points: Sequence[tuple[str, float, float]],
    share: Sequence[float],
    panels: dict[str, Bars],
    network: str,
    sentence: str,
) -> Figure:
    """The first two principal components, and one bar chart per list."""
    columns = -(-len(panels) // 2)
    figure = canvas(7.5 + 2.6 * columns, 6.6, f"Embedding ({network})", sentence)
    left, right = figure.subfigures(1, 2, width_ratios=(7.5, 2.6 * columns))
    axes = left.subplots()
    for kind, title in enumerate(KIND_NAMES):
        chosen = [point for point in points if kind_of(point[0]) == kind]
        if not chosen:
            continue
        names, x, y = zip(*chosen, strict=True)
        axes.scatter(x, y, s=14, color=KINDS[kind], marker=MARKERS[kind], label=title, alpha=0.55, linewidths=0)
        for name, *position in zip(names, x, y, strict=True):
            axes.annotate(drawable(name), position, (3, 2), textcoords="offset points", fontsize=8, family=MONO)
    axes.axhline(0, color="#dddddd", zorder=0)
    axes.axvline(0, color="#dddddd", zorder=0)
    axes.set(xlabel=f"first component ({share[0]:.1%} of the variance)", ylabel=f"second ({share[1]:.1%})")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, markerscale=1.6)
    grid = right.subplots(2, columns, squeeze=False).T.flat
    for axes, (title, bars) in zip(grid, panels.items(), strict=False):
        ranked(axes, title, bars)
    for axes in list(grid):
        axes.set_visible(False)
    return figure


def ranked(axes: Axes, title: str, bars: Bars) -> None:
    """Horizontal bars, first on top; blue is positive, red negative."""
    positions = range(len(bars))
    values = [value for _, value in bars]
    axes.barh(positions, values, color=[BLUE if value >= 0 else RED for value in values])
    axes.set_yticks(positions, [shortened(name, 12) for name, _ in bars], family=MONO, fontsize=9)
    axes.invert_yaxis()
    axes.axvline(0, color=GREY, linewidth=0.8)
    axes.tick_params(axis="y", length=0)
    axes.set_title(drawable(title).replace(": ", ":\n").replace(", ", ",\n"), fontsize=9)


def heads(
    scores: dict[str, np.ndarray],
    values: dict[str, np.ndarray],
    pairs: dict[str, np.ndarray],
    width: int,
    network: str,
    sentence: str,
) -> Figure:
    """Head scores, the singular values of each head's QK and OV maps, and the composition of pairs of heads."""
    layers, count = next(iter(scores.values())).shape
    heights = [0.32 * layers + 1.6, 4, 4.4][: 3 if layers > 1 else 2]
    figure = canvas(11.5, sum(heights) + 0.8, f"Heads ({network})", sentence)
    parts = figure.subfigures(len(heights), 1, height_ratios=heights)
    head_scores(parts[0], scores)
    spectra(parts[1], values, width)
    if layers > 1:
        composition(parts[2], pairs, count)
    return figure


def head_scores(figure: SubFigure, scores: dict[str, np.ndarray]) -> None:
    """One grid per score: layers down, heads across."""
    layers, count = next(iter(scores.values())).shape
    panels = figure.subplots(1, len(scores))
    for axes, (name, grid) in zip(panels, scores.items(), strict=True):
        painted = signed(axes, grid, 1, aspect="auto") if name == "copying" else shares(axes, grid, aspect="auto")
        if layers * count <= 64:
            written(axes, grid, "{:.2f}", lambda value: abs(value) > 0.6)
        axes.set(title=name, xlabel="head", xticks=range(0, count, -(-count // 12)), yticks=range(layers))
        axes.tick_params(length=0)
        figure.colorbar(painted, ax=axes, location="bottom", shrink=0.9, aspect=30)
    panels[0].set_ylabel("layer")


def spectra(figure: SubFigure, values: dict[str, np.ndarray], width: int) -> None:
    """One curve of singular values per head, with the bound on the rank."""
    for axes, (name, found) in zip(figure.subplots(1, len(values)), values.items(), strict=True):
        layers, count, D = found.shape
        for layer in range(layers):
            color = colormaps["viridis"](0.9 * layer / max(1, layers - 1))
            for head in range(count):
                curve = [*found[layer, head], 0]
                label = f"layer {layer}" if head == 0 and layers <= 24 else None
                axes.plot(range(1, D + 2), curve, color=color, linewidth=1.2, alpha=0.8, label=label)
        axes.axvline(D, color=INK, linestyle=":", linewidth=1.2)
        axes.text(D, axes.get_ylim()[1], f" rank at most {D}", va="top", fontsize=8)
        axes.set(title=f"singular values of {name}", xlabel=f"index (of {width:,})", xlim=(0, min(width, 2 * D)))
        axes.set_ylim(bottom=0)
    if layers <= 24:
        axes.legend(loc="center right", ncols=-(-layers // 8))


def composition(figure: SubFigure, pairs: dict[str, np.ndarray], count: int) -> None:
    """Grids of earlier heads (down) and later heads (across), by layer; impossible pairs are grey."""
    limit = max(float(np.nanmax(np.abs(grid))) for grid in pairs.values())
    panels = figure.subplots(1, len(pairs))
    for axes, (name, grid) in zip(panels, pairs.items(), strict=True):
        painted = signed(axes, grid[:-count, count:], limit)
        layers = len(grid) // count
        for layer in range(1, layers - 1):
            axes.axhline(layer * count - 0.5, color=GREY, linewidth=0.5)
            axes.axvline(layer * count - 0.5, color=GREY, linewidth=0.5)
        middles = [(layer + 0.5) * count - 0.5 for layer in range(layers - 1)]
        axes.set_xticks(middles, [f"{layer}" for layer in range(1, layers)])
        axes.set_yticks(middles, [f"{layer}" for layer in range(layers - 1)])
        axes.tick_params(length=0)
        axes.set(title=f"composition in the {name}", xlabel="layer of reading head")
    panels[0].set_ylabel("layer of writing head")
    figure.colorbar(painted, ax=list(panels), shrink=0.8, aspect=30, label="above chance level")


def neurons(
    shown: Sequence[tuple[int, Sequence[tuple[list[str], list[float], int]], Bars, Bars]],
    layer: int,
    network: str,
    sentence: str,
) -> Figure:
    """For each neuron, the text that activates it most, coloured by activation, and the logits that it changes."""
    figure = canvas(12, 1.45 * len(shown) + 1.7, f"Neurons of layer {layer} ({network})", sentence)
    panels = figure.subplots(len(shown), 2, width_ratios=(2.2, 1), squeeze=False)
    for (left, right), (neuron, snippets, adds, takes) in zip(panels, shown, strict=True):
        peak = max(max(values) for _, values, _ in snippets)
        top = max(abs(value) for _, values, _ in snippets for value in values)
        painted = signed(left, np.zeros((1, 1)), top, extent=(0, 0.001, 0, 0.001))
        widest = 1
        for row, (names, values, position) in enumerate(snippets):
            column = 0
            for number, (name, value) in enumerate(zip(names, values, strict=True)):
                edge = {"edgecolor": INK, "linewidth": 0.9, "zorder": 2} if number == position else {"linewidth": 0}
                left.add_patch(Rectangle((column, row), len(name), 0.94, facecolor=painted.to_rgba(value), **edge))
                ink = "white" if abs(value) > 0.65 * top else INK
                for offset, letter in enumerate(drawable(name)):
                    where = (column + offset + 0.5, row + 0.47)
                    left.text(*where, letter, ha="center", va="center", fontsize=8.5, family=MONO, color=ink, zorder=3)
                column += len(name)
            widest = max(widest, column)
        bare(left)
        left.set(facecolor="white", xlim=(0, max(widest, 40)), ylim=(len(snippets), 0), aspect="auto")
        left.set_title(f"neuron {neuron}: max {peak:.1f}", fontsize=10)
        bars = [*adds[:6], *takes[:6][::-1]]
        positions = range(len(bars))
        right.bar(positions, [v for _, v in bars], color=[BLUE if v >= 0 else RED for _, v in bars])
        token_ticks(right, [shortened(name, 8) for name, _ in bars], "x")
        right.axhline(0, color=GREY, linewidth=0.8)
        right.tick_params(axis="x", length=0)
    panels[0][0].set_title(panels[0][0].get_title(loc="left") + "; peak outlined, blue: active", fontsize=10)
    panels[0][1].set_title("change of logits per unit of activation", fontsize=10)
    return figure

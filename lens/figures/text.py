"""Pictures of a GPT on one text: attention, logit lens, surprise."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lens.paint import GREY, INK, bare, canvas, drawable, shares, shortened, signed, token_ticks

TITLES = {
    "scores": "scores, QKᵀ / √D",
    "masked": "masked: later tokens hidden",
    "pattern": "softmax: attention weights",
    "weighted": "attention weights x |value|",
}
Grids = dict[tuple[int, int, str], np.ndarray]


def attention(grids: Grids, names: Sequence[str], layout: str, network: str, sentence: str) -> Figure:
    """One grid per head and stage: large and labelled with tokens for a single head, small for many."""
    if len({key[:2] for key in grids}) == 1:
        return one_head(grids, names, layout, network, sentence)
    layers, heads = (sorted({key[i] for key in grids}) for i in (0, 1))
    side = min(2.6, max(0.8, 11 / len(heads)))
    stage = next(iter(grids))[2]
    figure = canvas(max(7, side * len(heads) + 1.6), side * len(layers) + 1.7, f"{TITLES[stage]} ({network})", sentence)
    panels = figure.subplots(len(layers), len(heads), squeeze=False)
    top = max(float(np.abs(grid[np.isfinite(grid)]).max()) for grid in grids.values())
    for row, layer in zip(panels, layers, strict=True):
        for axes, head in zip(row, heads, strict=True):
            painted = paint_grid(axes, grids[layer, head, stage], stage, top)
            if layer == layers[0]:
                axes.set_title(f"head {head}", fontsize=9)
        row[0].set_ylabel(f"layer {layer}")
    figure.colorbar(painted, ax=panels, shrink=0.5, aspect=30, label=UNITS[stage])
    return figure


UNITS = {"scores": "score", "masked": "score (grey: hidden)", "pattern": "weight", "weighted": "weight x |W_O v|"}


def one_head(grids: Grids, names: Sequence[str], layout: str, network: str, sentence: str) -> Figure:
    """The stages of a single head side by side, with tokens along both axes."""
    layer, head, _ = next(iter(grids))
    columns = min(2, len(grids))
    rows = -(-len(grids) // columns)
    side = min(8.0, max(4.2, 0.17 * len(names) + 1.4))
    figure = canvas(side * columns + 1, side * 0.9 * rows + 1.2, f"Layer {layer}, head {head} ({network})", sentence)
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for axes, ((*_, stage), grid) in zip(panels, grids.items(), strict=True):
        painted = paint_grid(axes, grid, stage)
        axes.set_title(TITLES[stage])
        if len(names) <= 64:
            for along in "xy":
                token_ticks(axes, names, along, size=min(8, 300 / len(names)))
        query, key = ("x", "y") if layout == "lesson" else ("y", "x")
        axes.set(**{f"{query}label": "query position", f"{key}label": "key position"})
        axes.figure.colorbar(painted, ax=axes, label=UNITS[stage], shrink=0.8)
    return figure


def paint_grid(axes: Axes, grid: np.ndarray, stage: str, top: float | None = None):
    """Scores in two colours (signed), attention weights in one."""
    bare(axes)
    if stage in ("scores", "masked"):
        return signed(axes, grid, top)
    return shares(axes, grid, float(top or grid.max()))


def logit_lens(
    guesses: Sequence[Sequence[str]],
    probabilities: np.ndarray,
    depths: Sequence[str],
    names: Sequence[str],
    network: str,
    sentence: str,
) -> Figure:
    """One row per depth, one column per position; each cell has the most likely next token."""
    longest = max(len(name) for row in [*guesses, names] for name in row)
    cell = 0.55 if longest < 4 else min(1.1, 0.1 * longest + 0.2)
    L, T = probabilities.shape
    figure = canvas(max(7.5, cell * T + 2.6), 0.42 * L + 2.3, f"Logit lens ({network})", sentence)
    axes = figure.subplots()
    painted = shares(axes, probabilities, aspect="auto")
    for (row, column), share in np.ndenumerate(probabilities):
        color = "white" if share > 0.6 else INK
        token = shortened(guesses[row][column])
        axes.text(
            column, row - 0.12, token, ha="center", va="center", fontsize=9, color=color, family="DejaVu Sans Mono"
        )
        axes.text(column, row + 0.3, f"{share:.0%}", ha="center", va="center", fontsize=6, color=color)
    axes.set_yticks(range(L), depths)
    axes.tick_params(length=0)
    token_ticks(axes, [shortened(name) for name in names], "x", size=9, upright=True)
    axes.xaxis.tick_top()
    axes.set_title("input token", fontsize=9)
    below = axes.secondary_xaxis("bottom")
    below.set_xticks(range(T), [shortened(name) for name in [*names[1:], "?"]], family="DejaVu Sans Mono", fontsize=9)
    below.set_xlabel("actual next token")
    below.tick_params(length=0)
    for spine in (*axes.spines.values(), *below.spines.values()):
        spine.set_visible(False)
    figure.colorbar(painted, ax=axes, label="probability", shrink=0.9)
    return figure


COLUMNS = 80
LETTER = {"ha": "center", "va": "center", "fontsize": 8.5, "family": "DejaVu Sans Mono"}


def surprise(names: Sequence[str], bits: np.ndarray, network: str, sentence: str) -> Figure:
    """The text in lines, the background of each token darker the higher its surprisal."""
    positions, row, column = [], 0, 0
    for name in names:
        if column and column + len(name) > COLUMNS:
            row, column = row + 1, 0
        positions.append((row, column))
        row, column = (row + 1, 0) if name.endswith("↵") else (row, column + len(name))
    rows = row + (column > 0)
    shown, columns = min(rows, 60), max(column + len(name) for name, (_, column) in zip(names, positions, strict=True))
    figure = canvas(max(7, 0.12 * columns + 1.2), 0.24 * shown + 1.9, f"Surprise ({network})", sentence)
    axes = figure.subplots()
    top = max(8.0, float(np.nanmax(bits)))
    painted = axes.imshow([[0, top]], cmap="YlOrRd", vmin=0, vmax=top, extent=(0, 0.001, 0, 0.001))
    for name, cost, (row, column) in zip(names, bits, positions, strict=True):
        if row >= shown:
            break
        color = "#eeeeee" if np.isnan(cost) else painted.to_rgba(cost)
        axes.add_patch(Rectangle((column, row), len(name), 0.94, facecolor=color, edgecolor="white", linewidth=0.4))
        for offset, character in enumerate(drawable(name)):
            dark = not np.isnan(cost) and cost > 0.7 * top
            ink = "white" if dark else GREY if character in "␣↵⇥" else INK
            axes.text(column + offset + 0.5, row + 0.48, character, color=ink, **LETTER)
    bare(axes)
    axes.set(xlim=(0, columns), ylim=(max(shown, 4), 0), aspect="auto")
    if shown < rows:
        axes.set_title(f"the first {shown} of {rows} lines", fontsize=9)
    figure.colorbar(painted, ax=axes, label="bits", shrink=max(0.4, min(1, 6 / shown)), pad=0.01)
    return figure

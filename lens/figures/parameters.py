"""Picture of a network's parameter counts."""

from collections.abc import Sequence

from matplotlib import colormaps
from matplotlib.figure import Figure

from lens.paint import INK, bare, canvas


def parameters(rows: Sequence[tuple[str, str, int]], network: str, sentence: str) -> Figure:
    """One stacked bar of all parameters; below it one bar per kind of matrix, labelled with its product of sizes."""
    total = sum(count for *_, count in rows)
    figure = canvas(12, 0.48 * len(rows) + 2.6, f"{total:,} parameters ({network})", sentence)
    top, bottom = figure.subplots(2, 1, height_ratios=(0.9, len(rows)))
    colors = [colormaps["cividis"](0.08 + 0.84 * n / max(1, len(rows) - 1)) for n in range(len(rows))]
    start = 0
    for (name, _, count), color in zip(rows, colors, strict=True):
        top.barh(0, count, left=start, color=color, edgecolor="white", linewidth=0.8)
        if count > 0.09 * total:
            ink = "white" if sum(color[:3]) < 1.6 else INK
            top.text(start + count / 2, 0, name, ha="center", va="center", fontsize=9, color=ink)
        start += count
    top.set_xlim(0, total)
    bare(top)
    positions = range(len(rows))
    bottom.barh(positions, [count for *_, count in rows], color=colors)
    bottom.set_yticks(positions, [name for name, *_ in rows])
    bottom.invert_yaxis()
    largest = max(count for *_, count in rows)
    for position, (_, product, count) in enumerate(rows):
        text = f"{product} = {count:,} ({count / total:.1%})"
        inside = count > 0.55 * largest
        ink = "white" if inside and sum(colors[position][:3]) < 1.6 else INK
        at = count - 0.01 * largest if inside else count + 0.01 * largest
        bottom.text(at, position, text, va="center", ha="right" if inside else "left", fontsize=8.5, color=ink)
    bottom.set(xlim=(0, largest * 1.02), xticks=[])
    bottom.spines["bottom"].set_visible(False)
    bottom.tick_params(axis="y", length=0)
    return figure

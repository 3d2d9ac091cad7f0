"""Pictures of a digit network: weights, activations, mistakes."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lens.paint import BLUE, RED, bare, canvas, shares, signed, written

SHOWN = 40  # most neurons drawn per layer


def weights(shown: dict[int, tuple[np.ndarray, float]], network: str, sentence: str) -> Figure:
    """The weights of each neuron as an image, all on one colour scale."""
    shown = dict(list(shown.items())[:SHOWN])
    columns = min(8, len(shown))
    rows = -(-len(shown) // columns)
    side = 3.4 if len(shown) == 1 else 1.25
    figure = canvas(max(6.5, side * columns + 1.4), side * rows + 1.4, f"First-layer weights ({network})", sentence)
    panels = figure.subplots(rows, columns, squeeze=False)
    limit = max(float(np.abs(image).max()) for image, _ in shown.values())
    for axes in panels.flat:
        bare(axes)
    for axes, (number, (image, bias)) in zip(panels.flat, shown.items(), strict=False):
        painted = signed(axes, image, limit)
        axes.set_title(f"{number}: bias {bias:+.1f}", fontsize=8)
    figure.colorbar(painted, ax=panels, label="weight", shrink=0.8)
    return figure


NIGHT, DAY = "#101418", "#f2f2f2"
UP, DOWN = (0.40, 0.75, 1.0), (1.0, 0.45, 0.30)  # bright enough on a dark background


def activations(
    layers: dict[str, list[np.ndarray]],
    matrices: Sequence[np.ndarray],
    scores: dict[str, np.ndarray],
    scored: str,
    network: str,
    sentence: str,
) -> Figure:
    """The network as the lessons draw it, once per image; below, histograms of its confidence on digits and noise."""
    figure = canvas(12, 10.2, f"Activations ({network})", sentence)
    top, bottom = figure.subfigures(2, 1, height_ratios=(3.4, 1))
    panels = top.subplots(2, 4, width_ratios=(1, 2.6, 1, 2.6)).reshape(4, 2)
    for (left, right), (name, values) in zip(panels, layers.items(), strict=True):
        left.imshow(values[0].reshape(28, 28), cmap="gray", vmin=0, vmax=1)
        bare(left)
        left.set_title(name, fontsize=10)
        lit_network(right, values[1:], matrices[1:])
        best = int(values[-1].argmax())
        right.set_title(f"predicted {best}, {scored} {values[-1][best]:.2f}", fontsize=10)
    axes = bottom.subplots()
    bins = np.linspace(0, 1, 51)
    for (name, values), color, hatch in zip(scores.items(), (BLUE, RED), ("", "///"), strict=True):
        share = np.full(len(values), 1 / len(values))
        axes.hist(values, bins, weights=share, color=color, alpha=0.55, hatch=hatch, edgecolor="white", label=name)
    axes.set(xlim=(0, 1), xlabel=f"highest output {scored}", ylabel="fraction of images")
    axes.legend(loc="upper left")
    axes.set_title("confidence", fontsize=10)
    return figure


def lit_network(axes: Axes, layers: Sequence[np.ndarray], matrices: Sequence[np.ndarray]) -> None:
    """One column of neurons per layer, brightness by activation; edges coloured by weight times activation."""
    bare(axes)
    axes.set_facecolor(NIGHT)
    kept = [layer[:SHOWN] for layer in layers]
    positions = [[(x, (len(layer) - 1) / 2 - i) for i in range(len(layer))] for x, layer in enumerate(kept)]
    tallest = max(len(layer) for layer in kept)
    spread = [[(x, y * tallest / max(len(column), tallest * 0.75)) for x, y in column] for column in positions]
    for before, after, matrix, values in zip(spread, spread[1:], matrices, kept, strict=False):
        pushes = matrix[: len(after), : len(before)] * values
        pushes = pushes / (np.abs(pushes).max() or 1)
        lines = [(start, end) for end in after for start in before]
        strength = np.abs(pushes.ravel())
        colors = [(*(UP if push > 0 else DOWN), alpha) for push, alpha in zip(pushes.ravel(), strength, strict=True)]
        axes.add_collection(LineCollection(lines, colors=colors, linewidths=1.0))
    for number, (column, values) in enumerate(zip(spread, kept, strict=True)):
        top = 1.0 if number == len(kept) - 1 else max(1.0, float(values.max()))
        light = np.clip(values / top, 0, 1)
        axes.scatter(
            *zip(*column, strict=True),
            s=70,
            c=light,
            cmap="gray",
            vmin=0,
            vmax=1,
            edgecolors=DAY,
            linewidths=0.9,
            zorder=3,
        )
    for digit, (x, y) in enumerate(spread[-1]):
        axes.text(x + 0.13, y, str(digit), color=DAY, fontsize=8, va="center")
    half = max(abs(y) for column in spread for _, y in column) + 1
    axes.set(xlim=(-0.2, len(kept) - 0.7), ylim=(-half, half))


def mistakes(
    answers: Sequence[tuple[int, int, float, np.ndarray]], confusion: np.ndarray, network: str, sentence: str
) -> Figure:
    """The most confident mistakes, and the confusion matrix."""
    right_, wrong = int(np.trace(confusion)), len(answers)
    figure = canvas(12.5, 6.3, f"Mistakes ({network}): {wrong:,} of {right_ + wrong:,}", sentence)
    left, right = figure.subfigures(1, 2, width_ratios=(1.25, 1))
    panels = left.subplots(5, 8)
    for axes in panels.flat:
        bare(axes)
    for axes, (label, answer, score, image) in zip(panels.flat, answers, strict=False):
        axes.imshow(image, cmap="gray_r", vmin=0, vmax=1)
        axes.set_title(f"{label} as {answer}, {score:.0%}", fontsize=8)
    axes = right.subplots()
    off = confusion.astype(float)
    np.fill_diagonal(off, np.nan)
    painted = shares(axes, off, float(np.nanmax(off)))
    axes.set_facecolor("#e8e8e8")
    dark = 0.6 * float(np.nanmax(off))
    written(axes, confusion, "{}", lambda count: dark < count <= np.nanmax(off), size=8)
    axes.set(xticks=range(10), yticks=range(10), xlabel="predicted", ylabel="label")
    axes.tick_params(length=0)
    right.colorbar(
        painted, ax=axes, label="misclassified images (grey: correct)", shrink=0.8, ticks=MaxNLocator(integer=True)
    )
    return figure

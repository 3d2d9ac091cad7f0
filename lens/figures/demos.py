"""Pictures of the demos."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from lens.paint import BLUE, GREY, INK, KINDS, MARKERS, RED, bare, canvas, powers, signed

STYLES = ("-", "--", "-.", ":")


def softmax(scores: Sequence[float], temperatures: Sequence[float], rows: np.ndarray, sentence: str) -> Figure:
    """One bar chart per temperature."""
    figure = canvas(11, 4.2, "Softmax at several temperatures", sentence)
    panels = figure.subplots(1, len(rows), sharey=True)
    for axes, T, row in zip(panels, temperatures, rows, strict=True):
        bars = axes.barh([f"{score:.1f}" for score in scores], row, color=BLUE)
        axes.bar_label(bars, [f"{p:.3f}" for p in row], padding=3, fontsize=8)
        axes.set(title=f"T = {T:g}", xlim=(0, 1.3), xticks=[0, 0.5, 1])
        axes.invert_yaxis() if axes is panels[0] else None
    panels[0].set_ylabel("score")
    panels[len(rows) // 2].set_xlabel("probability")
    return figure


def descent(surface: Callable[[Tensor], Tensor], paths: dict[str, np.ndarray], given: dict, sentence: str) -> Figure:
    """Contours of the cost, and every step of each path."""
    figure = canvas(9, 6.8, "Gradient descent on a small surface", sentence)
    axes = figure.subplots()
    x, y = torch.linspace(-2.2, 2.4, 200), torch.linspace(-2.1, 2.1, 160)
    grid = surface(torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)).numpy()
    levels = np.linspace(-0.5, 8, 18)
    filled = axes.contourf(
        x.numpy(), y.numpy(), grid, levels=levels, cmap="Greys", extend="max", alpha=0.5, antialiased=True
    )
    figure.colorbar(filled, ax=axes, label="cost", shrink=0.7, ticks=[0, 2, 4, 6, 8])
    for number, (name, path) in enumerate(paths.items()):
        label = f"{name} (rate {given[name][1]:g})"
        axes.plot(*path.T, color=KINDS[number], marker=MARKERS[number], markersize=4, linewidth=1.4, label=label)
        axes.plot(*path[0], color=KINDS[number], marker=MARKERS[number], markersize=10, markeredgecolor="white")
    axes.set(xlabel="one weight", ylabel="another weight", xlim=(-2.2, 2.4), ylim=(-2.1, 2.1))
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    return figure


def directions(
    drawn: dict[int, np.ndarray], packed: dict[str, np.ndarray], least: float, counts: tuple[int, int], sentence: str
) -> Figure:
    """Two histograms of angles over the full range from 0 to 180 degrees."""
    figure = canvas(11, 7.2, "Directions in high dimensions", sentence)
    top, bottom = figure.subplots(2, 1)
    bins = np.linspace(0, 180, 361)
    for number, (d, angles) in enumerate(drawn.items()):
        heights, _ = np.histogram(angles, bins, density=True)
        label = f"{d:,} dimensions: {angles.std():.2f} degrees standard deviation"
        top.stairs(heights, bins, color=KINDS[number], linestyle=STYLES[number], linewidth=1.8, label=label)
    top.set(title="angles between random vectors", ylabel="density", ylim=(1e-4, 3))
    powers(top)
    colors, fills = (GREY, RED, BLUE), (True, False, False)
    for color, fill, (name, angles) in zip(colors, fills, packed.items(), strict=True):
        heights, _ = np.histogram(angles, bins)
        far = np.abs(angles - 90).max()
        bottom.stairs(heights, bins, color=color, fill=fill, alpha=0.45 if fill else 1, linewidth=1.6,
                      label=f"{name}: worst pair off by {far:.1f}")  # fmt: skip
    for side in (90 - least, 90 + least):
        bottom.axvline(side, color=INK, linestyle=":", linewidth=1.2)
    vectors, space = counts
    bottom.plot(
        [], [], color=INK, linestyle=":", label=f"Welch bound: some pair is always outside ({least:.2f} degrees)"
    )
    powers(bottom)
    bottom.set(title=f"{vectors:,} vectors in {space} dimensions, optimised to spread out", ylim=(0.7, None))
    bottom.set(xlabel="angle between two vectors, degrees", ylabel="pairs")
    for axes in (top, bottom):
        axes.set(xlim=(0, 180), xticks=range(0, 181, 15))
        axes.legend(loc="upper left", fontsize=8)
    return figure


def fact(names: Sequence[str], spaces: dict[str, np.ndarray], sentence: str) -> Figure:
    """The neuron's output for each name."""
    figure = canvas(9.5, 4.4, "A neuron that stores one fact", sentence)
    axes = figure.subplots()
    positions = np.arange(len(names))
    for number, (space, values) in enumerate(spaces.items()):
        bars = axes.bar(positions + 0.27 * (number - 1), values, 0.25, color=KINDS[number], label=f"directions {space}")
        axes.bar_label(bars, [f"{v:.2f}" for v in values], fontsize=8, padding=2)
    axes.set_xticks(positions, names)
    axes.axhline(0, color=GREY, linewidth=0.8)
    axes.set(ylabel='"basketball" component of the output')
    axes.legend()
    return figure


def zero(weights: dict[str, np.ndarray], curves: dict[str, list[float]], sentence: str) -> Figure:
    """Eight first-layer neurons of each network, and both training curves."""
    figure = canvas(11, 3.6, "Zero initial weights never differentiate", sentence)
    left, right = figure.subfigures(1, 2, width_ratios=(1.7, 1))
    titles = {"zero": "zero start", "uniform": "random start"}
    panels = left.subplots(len(weights), 8)
    for row, (init, images) in zip(panels, weights.items(), strict=True):
        limit = float(np.abs(images).max())
        for axes, image in zip(row, images, strict=False):
            painted = signed(axes, image, limit)
            bare(axes)
        row[0].set_ylabel(titles[init])
    left.colorbar(painted, ax=panels, label="weight", shrink=0.6, ticks=[])
    axes = right.subplots()
    for number, (init, curve) in enumerate(curves.items()):
        axes.plot(curve, color=KINDS[3 * number], linestyle=STYLES[number], label=titles[init])
    axes.set(xlabel="step", ylabel="accuracy", ylim=(0, 1.02))
    axes.legend()
    return figure


def saturation(found: dict[str, np.ndarray], sentence: str) -> Figure:
    """Histograms of the activations."""
    figure = canvas(9.5, 4.2, "Weights from N(0, 1) saturate sigmoids", sentence)
    panels = figure.subplots(1, len(found), sharey=True)
    bins = np.linspace(0, 1, 41)
    for axes, (name, values) in zip(panels, found.items(), strict=True):
        share = float(((values < 0.05) | (values > 0.95)).mean())
        weights = np.full(values.size, 1 / values.size)
        axes.hist(values.ravel(), bins, weights=weights, color=BLUE)
        for edges in ((0, 0.05), (0.95, 1)):
            axes.axvspan(*edges, color=RED, alpha=0.15, linewidth=0, zorder=0)
        axes.set(title=f"{name}: {share:.0%} saturated", xlabel="activation before training", xlim=(0, 1))
    panels[0].set_ylabel("fraction of activations")
    panels[-1].plot([], [], color=RED, alpha=0.3, linewidth=8, label="below 0.05 or above 0.95")
    panels[-1].legend(loc="upper center")
    return figure


def vanishing(found: dict[str, list[float]], sentence: str) -> Figure:
    """The gradient norm at each depth, on a logarithmic scale."""
    figure = canvas(9.5, 4.8, "Vanishing gradients, with and without residuals", sentence)
    axes = figure.subplots()
    for number, (name, lengths) in enumerate(found.items()):
        depth = range(1, len(lengths) + 1)
        color = (BLUE, BLUE, RED, RED)[number]
        filled = "none" if "without" in name else color
        axes.plot(depth, lengths, color=color, linestyle=STYLES[number % 2], marker=MARKERS[number // 2],
                  markerfacecolor=filled, label=name)  # fmt: skip
    axes.set(xlabel="layer (1 is nearest the input)", ylabel="gradient norm", xticks=[1, 5, 10, 15, 20])
    powers(axes)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    return figure

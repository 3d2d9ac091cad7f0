"""Picture of a run's training curves."""

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lens.paint import BLUE, GREY, bare, canvas, powers

Series = dict[str, list[tuple[int, float]]]


def curves(log: Series, layers: Series, run: str, sentence: str, costs: tuple[str, str]) -> Figure:
    """Cost, accuracy or bits per byte, learning rate, and gradient norms (global and by layer).

    `costs` are the names of the training and validation loss; two different losses get one y axis each.
    """
    figure = canvas(11.5, 7.4, f"Training curves ({run})", sentence)
    (cost, quality), (rate, gradient) = figure.subplots(2, 2)
    differ = costs[0] != costs[1]
    trains, validates = (f" ({name.replace('_', ' ')})" if differ else "" for name in costs)
    right = cost.twinx() if differ else cost
    line(cost, log.get("loss"), GREY, f"training, one batch{trains}", linewidth=0.9)
    line(right, log.get("val_loss"), BLUE, f"validation, full split{validates}", marker="o", markersize=4)
    cost.set(title="cost", ylim=(0, None))
    if differ:
        cost.set_ylabel(f"training{trains}")
        right.set(ylabel=f"validation{validates}", ylim=(0, None))
    cost.legend(handles=[*cost.lines, *(right.lines if differ else ())])
    known = {"val_accuracy": "accuracy on the validation split", "val_bits_per_byte": "bits per byte, validation"}
    for name, title in known.items():
        if name in log:
            line(quality, log[name], BLUE, title, marker="o", markersize=4)
            quality.set_title(title)
    if not any(name in log for name in known):
        bare(quality)
        quality.set_title("no validation split: evaluated on test images only")
    line(rate, log.get("lr"), BLUE, "learning rate")
    rate.set(title="learning rate", xlabel="step", ylim=(0, None))
    line(gradient, log.get("grad_norm"), GREY, "global, at each logged step", linewidth=0.9)
    for number, (name, points) in enumerate(layers.items()):
        color = colormaps["viridis"](0.9 * number / max(1, len(layers) - 1))
        marker = "os^DvPX*"[number % 8]
        line(gradient, points, color, name, marker=marker, markersize=4, linewidth=1.2)
    gradient.set(title="gradient norm", xlabel="step")
    powers(gradient)
    if len(layers) <= 24:
        gradient.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def line(axes: Axes, points: list[tuple[int, float]] | None, color, label: str, **more) -> None:
    if points:
        axes.plot(*zip(*points, strict=True), color=color, label=label, **more)

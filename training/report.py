"""Progress bar, messages on stderr, and the loss curves in curves.png."""

import sys
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from configs.files import whole_file
from training.run import read_log
from training.validation import best_of, evaluations

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TURNS = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")


def say(message: str) -> None:
    """Print a message on stderr, above any progress bar, without terminal control characters."""
    tqdm.write(visible(message), file=sys.stderr)


def visible(text: str) -> str:
    """The text with terminal control characters replaced."""
    return "".join("\N{REPLACEMENT CHARACTER}" if steers(c) and c not in "\n\t" else c for c in text)


def steers(c: str) -> bool:
    """Whether a character is a control character, changes the writing direction, or is a surrogate."""
    return unicodedata.category(c) in ("Cc", "Cs") or unicodedata.bidirectional(c) in TURNS


class Bar(tqdm):
    """Steps done, speed, time left and the last step's loss, redrawn at most ten times a second."""

    loss: float | None = None

    @property
    def format_dict(self) -> dict[str, Any]:
        """The values to draw; the loss is formatted only here, so a step that is not drawn costs almost nothing."""
        shown = {} if self.loss is None else {"postfix": f"loss {self.loss:.4f}"}
        return {**super().format_dict, **shown}


def progress_bar(first: int, steps: int) -> Bar:
    """A progress bar that starts at step `first`; disabled if stderr is not a terminal."""
    return Bar(initial=first, total=steps, unit="step", disable=None, dynamic_ncols=True, smoothing=0.05, miniters=1)


def show_step(bar: Bar, step: int, loss: float, every: int) -> None:
    """Advance the bar by a step; without a terminal, print a line every `every` steps instead."""
    if not bar.disable:
        bar.loss = loss
        bar.update()
    elif step % every == 0:
        print(f"step {step:,} of {bar.total:,}: loss {loss:.4f}", file=sys.stderr)


def draw_curves(folder: Path) -> None:
    """Draw log.jsonl as curves.png; only warns if that fails, since the picture is optional."""
    try:
        from matplotlib.figure import Figure

        log = read_log(folder)
        figure = Figure(figsize=(8, 5), layout="constrained")
        top, bottom = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
        draw_losses(top, log)
        rates = [(line["step"], line["lr"]) for line in log if "lr" in line]
        if rates:
            bottom.plot(*zip(*rates, strict=True), color="grey")
        top.set_title(visible(folder.name), parse_math=False)
        bottom.set(xlabel="step", ylabel="learning rate")
        with whole_file(folder / "curves.png") as beside:
            figure.savefig(beside, format="png", dpi=110)
    except Exception as error:  # matplotlib may be missing or broken, or the folder read-only
        say(f"warning: could not draw curves.png: {error}")


def draw_losses(axes: "Axes", log: list[dict]) -> None:
    """Plot training and validation loss and the best evaluation; if the two costs differ, each gets its own axis."""
    found = evaluations(log)
    costs = next(((line["train_cost"], line["val_cost"]) for line in log if "val_cost" in line), None)
    names = [f" ({cost.replace('_', ' ')})" for cost in costs] if costs else ["", ""]
    right = axes.twinx() if costs else axes
    lines = []
    if losses := [(line["step"], line["loss"]) for line in log if "loss" in line]:
        lines += axes.plot(*zip(*losses, strict=True), label=f"training, one batch{names[0]}", linewidth=1)
    if found:
        points = zip(*((e.step, e.loss) for e in found), strict=True)
        lines += right.plot(*points, label=f"validation, whole split{names[1]}", linewidth=2, color="C1")
        best = best_of(found)
        lines += right.plot(best.step, best.loss, "o", label=f"best: step {best.step:,}, {best.score}", color="C1")
    axes.set_ylabel(f"training loss{names[0]}" if costs else "loss")
    if costs:
        right.set_ylabel(f"validation loss{names[1]}")
    axes.legend(handles=lines)

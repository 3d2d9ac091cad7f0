"""What a run tells the person who watches it: progress, advice in plain words, curves. All on stderr."""

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
    """A message on stderr, above the progress bar if there is one; nothing in it steers the terminal."""
    tqdm.write(visible(message), file=sys.stderr)


def visible(text: str) -> str:
    """The text without what could steer a terminal."""
    return "".join("\N{REPLACEMENT CHARACTER}" if steers(c) and c not in "\n\t" else c for c in text)


def steers(c: str) -> bool:
    """Whether it is a control character, turns the direction of writing, or is half of a character (a surrogate)."""
    return unicodedata.category(c) in ("Cc", "Cs") or unicodedata.bidirectional(c) in TURNS


class Bar(tqdm):
    """Steps made, speed, time left and the loss of the last step. It is drawn ten times a second at most."""

    loss: float | None = None

    @property
    def format_dict(self) -> dict[str, Any]:
        """What is drawn; the loss becomes text here, so that a step that is not drawn costs next to nothing."""
        shown = {} if self.loss is None else {"postfix": f"loss {self.loss:.4f}"}
        return {**super().format_dict, **shown}


def progress_bar(first: int, steps: int) -> Bar:
    """A bar on a terminal; elsewhere nothing. `first` steps were made before a resume."""
    return Bar(initial=first, total=steps, unit="step", disable=None, dynamic_ncols=True, smoothing=0.05, miniters=1)


def show_step(bar: Bar, step: int, loss: float, every: int) -> None:
    """Count this step on the bar; where there is no terminal, print a line every so many steps."""
    if not bar.disable:
        bar.loss = loss
        bar.update()
    elif step % every == 0:
        print(f"step {step:,} of {bar.total:,}: loss {loss:.4f}", file=sys.stderr)


def draw_curves(folder: Path) -> None:
    """Draw log.jsonl as curves.png; a warning if it can't be done, for a picture is no reason to stop."""
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
    except Exception as error:  # matplotlib may be missing, broken, or without a place to write
        say(f"warning: no curves.png ({error})")


def draw_losses(axes: "Axes", log: list[dict]) -> None:
    """Training and validation loss, and the best evaluation. Two different costs get an axis each, with its name."""
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

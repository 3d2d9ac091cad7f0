"""What a run tells the person who watches it: progress, advice in plain words, curves. All on stderr."""

import sys
import unicodedata
from pathlib import Path
from typing import Any

from tqdm import tqdm

from configs.files import whole_file
from training.run import read_log

TURNS = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
PATIENCE = 2  # evaluations in a row without a new best before we say so


def say(message: str) -> None:
    """A line on stderr, above the progress bar if there is one."""
    tqdm.write(message, file=sys.stderr)


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


def rising(losses: list[float]) -> str | None:
    """Advice on the moment when validation has had no new best for a while."""
    behind = len(losses) - 1 - losses.index(min(losses))
    if behind != PATIENCE:
        return None
    return (
        "warning: the validation loss has turned up; from here on the network learns its data by heart. The "
        "best checkpoint is kept; --train.patience stops training, more data or --model.dropout help"
    )


def draw_curves(folder: Path) -> None:
    """Draw log.jsonl as curves.png; a warning if it can't be done, for a picture is no reason to stop."""
    try:
        from matplotlib.figure import Figure

        log = read_log(folder)
        figure = Figure(figsize=(8, 5), layout="constrained")
        top, bottom = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
        for key, label in (("loss", "training, one batch"), ("val_loss", "validation, whole split")):
            points = [(line["step"], line[key]) for line in log if key in line]
            if points:
                top.plot(*zip(*points, strict=True), label=label, linewidth=1 if key == "loss" else 2)
        rates = [(line["step"], line["lr"]) for line in log if "lr" in line]
        if rates:
            bottom.plot(*zip(*rates, strict=True), color="grey")
        top.set(ylabel="loss", title=folder.name)
        top.legend()
        bottom.set(xlabel="step", ylabel="learning rate")
        with whole_file(folder / "curves.png") as beside:
            figure.savefig(beside, format="png", dpi=110)
    except Exception as error:  # matplotlib may be missing, broken, or without a place to write
        say(f"warning: no curves.png ({error})")

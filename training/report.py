"""What a run tells the person who watches it: progress, advice in plain words, curves. All on stderr."""

import sys
import unicodedata
from pathlib import Path

from tqdm import tqdm

from training.run import read_log

TURNS = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
PATIENCE = 2  # evaluations in a row without a new best before we say so


def say(message: str) -> None:
    """A message on stderr, above the progress bar if there is one; nothing in it steers the terminal."""
    tqdm.write(visible(message), file=sys.stderr)


def visible(text: str) -> str:
    """The text without what could steer a terminal."""
    return "".join("\N{REPLACEMENT CHARACTER}" if steers(c) and c not in "\n\t" else c for c in text)


def steers(c: str) -> bool:
    """Whether it is a control character, turns the direction of writing, or is half of a character (a surrogate)."""
    return unicodedata.category(c) in ("Cc", "Cs") or unicodedata.bidirectional(c) in TURNS


def progress_bar(first: int, steps: int) -> tqdm:
    """A bar with speed and time left on a terminal; elsewhere nothing."""
    return tqdm(initial=first, total=steps, unit="step", disable=None, dynamic_ncols=True, smoothing=0.05)


def show_step(bar: tqdm, step: int, steps: int, loss: float) -> None:
    """Where training stands: on the bar, or in a line of its own where there is no terminal."""
    if bar.disable:
        print(f"step {step:,} of {steps:,}: loss {loss:.4f}", file=sys.stderr)
    else:
        bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
        bar.update(step - bar.n)


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
        top.set(ylabel="loss")
        top.set_title(visible(folder.name), parse_math=False)
        top.legend()
        bottom.set(xlabel="step", ylabel="learning rate")
        figure.savefig(folder / "curves.png", dpi=110)
    except Exception as error:  # matplotlib may be missing, broken, or without a place to write
        say(f"warning: no curves.png ({error})")

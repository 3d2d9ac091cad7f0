"""How much a trained network helps on a new text: python -m benchmarks.finetune [--markdown FOLDER].

The base is python.toml's network after 1,200 steps. The new texts are the first 100 kB of Tiny Shakespeare and a folder
of Markdown. Measured for each text and each of three seeds: the loss over the whole validation split, in nats per byte,
of the untouched base, of python.toml's recipe from scratch with the same and with three times the steps, of
finetune.toml and of lora.toml. For each run its best evaluation counts, the one `sample.py` would load.
"""

import argparse
import math
import os
import sys
import tempfile
from pathlib import Path

from benchmarks.figures import ROOT, Rows, learn, write
from configs.errors import answer
from data.fetch import fetch
from data.find import SHAKESPEARE
from training.plan import count_parameters
from training.restore import restore
from training.run import read_log

STEPS = 200
KILOBYTES = 100


def losses(run: str) -> list[float]:
    """The validation losses of a run, in nats per byte."""
    return [line["val_bits_per_byte"] * math.log(2) for line in read_log(Path("runs") / run) if "val_loss" in line]


def megabytes(run: str) -> float:
    """Size on disk of a run's best checkpoint, optimiser included."""
    folder = restore(run).checkpoint.folder
    return sum(file.stat().st_size for file in folder.iterdir()) / 1e6


def trainable(run: str) -> float:
    """Share of the network's parameters that were trained."""
    config = restore(run).record.resolved
    return count_parameters(config, learning=True) / count_parameters(config)


def beginning_of_shakespeare() -> Path:
    """The first 100 kB, in a file in the current folder."""
    play = Path("shakespeare.txt")
    play.write_bytes(fetch(SHAKESPEARE).read_bytes()[: 1000 * KILOBYTES])
    return play


def compare(path: Path, name: str, seed: int, length: int = STEPS, *options: object) -> dict[str, object]:
    """One row: every way to learn a text, with one seed, in `length` steps (`scratch_3x`: three times as many)."""
    common = ("--data.path", path, "--train.seed", seed, "--data.val_fraction", 0.1, "--log.sample_tokens", 0, *options)
    row: dict[str, object] = {"seed": seed}
    for way, config, steps, more in (
        ("scratch", "python", length, ()),
        ("scratch_3x", "python", 3 * length, ()),
        ("finetuned", "finetune", length, ("--train.start", "base")),
        ("lora", "lora", length, ("--train.start", "base")),
    ):
        run = f"{name}-{way}"
        learn(config, run, *common, *more, "--train.steps", steps, "--train.eval_every", steps // 10)
        row[way] = min(losses(run))
        if more:
            row |= {"untouched": losses(run)[0], f"{way}_megabytes": megabytes(run)}
    return row | {"lora_trainable": trainable(f"{name}-lora")}


def main() -> None:
    """Measure, print and write results/finetune_TEXT.json."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--markdown", type=Path, help="a folder with Markdown files (default: only Shakespeare)")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds (default: 3)")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        texts = {"shakespeare": beginning_of_shakespeare()} | (
            {"markdown": asked.markdown.resolve()} if asked.markdown else {}
        )
        learn("python", "base", "--train.steps", 1200, "--train.eval_every", 400)
        for name, path in texts.items():
            rows: Rows = []
            for seed in range(asked.seeds):
                rows.append(compare(path, f"{name}-{seed}", seed))
                write(f"finetune_{name}", rows)  # after each row, because it takes long
        os.chdir(ROOT)


if __name__ == "__main__":
    sys.exit(answer(main))

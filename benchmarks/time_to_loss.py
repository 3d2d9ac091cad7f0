"""Time to reach a loss, compared across recipes: python -m benchmarks.time_to_loss [--seeds 3].

Three recipes on Tiny Shakespeare (4 layers, 4 heads, 128 wide, context 64): AdamW as most scripts use it
(configs/shakespeare_adamw.toml, in float32, as they run on a CPU); AdamW on the modern network, tuned, with less effort
than Muon; and Muon on the modern network. The last two use the precision that `auto` chooses. All three train in one
process and take turns, each a fiftieth of its schedule, so that noise affects them equally; evaluating the whole
validation split is not timed. Then `configs/shakespeare.toml`, with whatever network it has, trains for as long as the
first recipe took, including evaluations and checkpoints, and its loss is reported. The results go to
benchmarks/results/time_to_loss.json.
"""

import argparse
import io
import json
import os
import sys
import tempfile
import time
from contextlib import redirect_stderr
from dataclasses import dataclass
from typing import Any

import train
from benchmarks.figures import RESULTS, ROOT, Rows, about, final, learn, summary
from configs.errors import answer
from training.evaluate import evaluate
from training.learner import Learner, build_learner
from training.loss import cross_entropy
from training.optim import learning_rate, set_learning_rate
from training.prepare import prepare
from training.run import understand

TARGET = 1.898
TURNS = 50  # the number of turns a schedule is split into
MODERN = "--model.position rotary --model.activation gelu --model.bias false --optim.weight_decay 0 --optim.min_lr 0"
SHARE = 0.85  # requested share of the seconds: torch has to start, and a busy machine takes longer than forecast
RECIPES = {  # options added to shakespeare_adamw.toml
    "adamw": "--train.dtype float32",
    "adamw_tuned": f"{MODERN} --optim.schedule linear --optim.lr 4e-3 --optim.warmup_steps 50 --optim.betas [0.9,0.95] "
    "--train.steps 900",
    "muon": f"{MODERN} --optim.name muon --optim.schedule linear --optim.lr 2e-2 --optim.muon_lr 4e-2 "
    "--optim.momentum 0.85 --optim.warmup_steps 0 --train.steps 260",
}


@dataclass
class Contender:
    """A recipe in the race, with its progress."""

    learner: Learner
    steps: int
    step: int = 0
    seconds: float = 0.0
    loss: float = float("inf")

    def turn(self) -> None:
        """Make a fiftieth of the steps, timed; near the end of the schedule also evaluate, not timed."""
        optim = self.learner.config.optim
        begin = time.perf_counter()
        for _ in range(self.steps // TURNS):
            rate = learning_rate(self.step, self.steps, optim)
            set_learning_rate(self.learner.optimizers, rate / optim.lr)
            train.update(self.learner, self.step)
            self.step += 1
        self.seconds += time.perf_counter() - begin
        if self.step >= 0.8 * self.steps:
            self.loss = self.validation_loss()

    def validation_loss(self) -> float:
        """The loss over the whole validation split."""
        result = evaluate(self.learner.model, self.learner.data, "val", cross_entropy, size=32)
        assert result is not None
        return result.loss

    @property
    def ended(self) -> bool:
        """Whether the target loss is reached or the schedule is over."""
        return self.loss <= TARGET or self.step >= self.steps


def contender(words: list[str], run: str, seed: int) -> Contender:
    """A recipe before its first step."""
    file = str(ROOT / "configs" / "shakespeare_adamw.toml")
    with redirect_stderr(io.StringIO()):
        job = prepare(understand([file, "--run", run, "--train.seed", str(seed), *words]), lambda *_: 1.0)
    assert job is not None and job.config.train.steps
    with job.run:
        return Contender(build_learner(job.config, job.data), job.config.train.steps)


def race(seed: int, *options: str) -> dict[str, Any]:
    """Train all recipes from one seed until each reaches the loss or the end of its schedule."""
    racing = {name: contender([*words.split(), *options], f"{name}{seed}", seed) for name, words in RECIPES.items()}
    while waiting := [one for one in racing.values() if not one.ended]:
        for one in waiting:
            one.turn()
    row: dict[str, Any] = {"seed": seed}
    for name, one in racing.items():
        result = {"steps": one.step, "seconds": round(one.seconds, 2), "loss": round(one.loss, 4)}
        row |= {f"{name}_{key}": value for key, value in result.items()}
    row["muon_of_adamw"] = round(row["muon_seconds"] / row["adamw_seconds"], 4)
    row["muon_of_adamw_tuned"] = round(row["muon_seconds"] / row["adamw_tuned_seconds"], 4)
    return row


def in_the_same_time(seed: int, seconds: float) -> dict[str, Any]:
    """The loss of shakespeare.toml after `seconds` seconds, including evaluations and checkpoints."""
    log, taken = learn("shakespeare", f"best{seed}", "--train.seed", seed, "--train.minutes", SHARE * seconds / 60)
    return {"same_time_loss": final(log, "val_loss"), "same_time_seconds": round(taken, 1)}


def main() -> None:
    """Run the races and write the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds (default: 3)")
    seeds = parser.parse_args().seeds
    rows: Rows = []
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for seed in range(seeds):
            row = race(seed)
            rows.append(row | in_the_same_time(seed, row["adamw_seconds"]))
            write(rows)
        os.chdir(ROOT)


def write(rows: Rows) -> None:
    """Print the last row, and write the rows so far with a summary."""
    result = {"figure": "time_to_loss", "target": TARGET, "rows": rows, "summary": summary(rows), "machine": about()}
    (RESULTS / "time_to_loss.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(rows[-1]), flush=True)


if __name__ == "__main__":
    sys.exit(answer(main))

"""Repeat the measurements in the README: python -m benchmarks.figures [NAME...] [--seeds 3].

Each measurement prints a summary and writes its rows to benchmarks/results/NAME.json with the machine it ran on. Runs
go to a temporary folder, so nothing in runs/ changes. Timings that are compared alternate in one process.
"""

import argparse
import ast
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

import train
from configs.errors import answer
from configs.schema import Config
from data.seeds import seed_for
from data.text import Text
from data.tokenizer import decode, first_token
from model.generate import Sampling, generate
from model.quantize import quantize
from training.evaluate import evaluate
from training.learner import Learner, build_learner
from training.loss import cross_entropy
from training.plan import seconds_per_step
from training.prepare import open_data, prepare
from training.restore import restore
from training.run import Interruption, machine, read_log, understand

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
SINGLE = ("--train.dtype", "float32")  # like the loop they are compared with

Rows = list[dict[str, Any]]


def about() -> dict[str, Any]:
    """The machine, for the results: Python, packages, processors, threads."""
    found = machine()
    return {name: found[name] for name in ("python", "packages", "processors")} | {"threads": torch.get_num_threads()}


def learn(config: str, run: str, *options: object) -> tuple[list[dict], float]:
    """Train as from the command line; returns the log and the seconds of everything after the plan."""
    words = [str(ROOT / "configs" / f"{config}.toml"), "--run", run, *map(str, options)]
    job = prepare(understand(words), partial(seconds_per_step, train.update))
    assert job is not None
    begin = time.perf_counter()
    with job.run, Interruption() as stop:
        code = train.train(job, stop)
    seconds = time.perf_counter() - begin
    assert code == 0
    return read_log(Path("runs") / run), seconds


def final(log: list[dict], key: str) -> float:
    """The last value of a key in a log."""
    return next(line[key] for line in reversed(log) if key in line)


def shakespeare_adamw(seeds: int) -> Rows:
    """shakespeare_adamw.toml against a bare eager float32 loop with the same network and number of steps."""
    rows = []
    for seed in range(seeds):
        log, ours = learn("shakespeare_adamw", f"s{seed}", "--train.seed", seed, "--train.eval_every", 500, *SINGLE)
        loss, bare = bare_loop(f"s{seed}")
        row = {"seed": seed, "val_loss": final(log, "val_loss"), "seconds": ours}
        rows.append(row | {"bare_val_loss": loss, "bare_seconds": bare, "ratio": ours / bare})
    return rows


def bare_loop(run: str) -> tuple[float, float]:
    """Loss and seconds of a short script with the same network: AdamW, clipping, one evaluation at the end."""
    config, data, learner, bare_step = bare_script(run)
    begin = time.perf_counter()
    for step in range(config.train.steps or 0):
        bare_step(step)
    result = evaluate(learner.model, data, "val", cross_entropy, size=config.train.batch_size)
    assert result is not None
    return result.loss, time.perf_counter() - begin


def bare_script(run: str) -> tuple[Config, Text, Learner, Callable[[int], None]]:
    """A run's settings and data, a new network, and a function that makes one bare training step with them."""
    restored = restore(run)
    config = restored.record.resolved
    data = open_data(config, restored.tokenizer)
    assert isinstance(data, Text) and config.train.steps
    steps, T = config.train.steps, data.positions
    learner = build_learner(config, data)
    tokens = torch.from_numpy(data.tokens["train"][:])
    decay = [p for p in learner.parameters if p.ndim >= 2]
    rest = [p for p in learner.parameters if p.ndim < 2]
    groups = [{"params": decay, "weight_decay": config.optim.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=config.optim.lr, betas=(config.optim.betas[0], config.optim.betas[1]))

    def bare_step(step: int) -> None:
        for group in optimizer.param_groups:
            group["lr"] = train.learning_rate(step, steps, config.optim)
        starts = torch.randint(len(tokens) - T, (config.train.batch_size,))
        x = torch.stack([tokens[i : i + T] for i in starts])
        y = torch.stack([tokens[i + 1 : i + 1 + T] for i in starts])
        loss = F.cross_entropy(learner.model(x).flatten(0, 1), y.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learner.parameters, config.optim.grad_clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return config, data, learner, bare_step


def step(seeds: int) -> Rows:
    """One step of shakespeare_adamw.toml against one of the bare loop, alternating, so noise affects both."""
    learn("shakespeare_adamw", "s", "--train.steps", "2", "--train.eval_every", "100", *SINGLE)
    config, data, _, bare_step = bare_script("s")
    ours = partial(train.update, build_learner(config, data))
    rows = []
    for number in range(40 * seeds):
        times = [clock_call(partial(move, number)) for move in (ours, bare_step)]
        rows.append({"run": number, "ours": times[0], "bare": times[1], "ratio": times[0] / times[1]})
    return rows


def clock_call(function: Callable[[], Any]) -> float:
    """Seconds that a call takes, including the work it queues on a GPU."""
    wait()
    begin = time.perf_counter()
    function()
    wait()
    return time.perf_counter() - begin


def wait() -> None:
    """Wait for the GPU, if one is in use: calls return before their work on it is done."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def scores(config: str, keys: tuple[str, ...], seeds: int, *options: object) -> Rows:
    """One row per seed: the final values of `keys` in the log of a config's run, and its seconds."""
    rows = []
    for seed in range(seeds):
        log, seconds = learn(config, f"{config}{seed}", "--train.seed", seed, *options)
        rows.append({"seed": seed, **{key: final(log, key) for key in keys}, "seconds": seconds})
    return rows


def python(seeds: int) -> Rows:
    """The demo's GPT: bits per byte on held-out files, and how many of 20 generated snippets parse as Python."""
    rows = []
    for seed in range(seeds):
        log, seconds = learn("python", f"python{seed}", "--train.seed", seed)
        parsed = sum(map(is_python, snippets(f"python{seed}", 20)))
        keys = ("val_loss", "val_bits_per_byte")
        rows.append({"seed": seed, **{k: final(log, k) for k in keys}, "parsed_of_20": parsed, "seconds": seconds})
    return rows


def snippets(run: str, count: int, length: int = 400) -> list[str]:
    """Generated beginnings of files (temperature 0.8, top-k 50), cut after their last complete line."""
    restored = restore(run)
    tokenizer = restored.tokenizer
    assert tokenizer is not None
    texts = []
    for number in range(count):
        generator = torch.Generator().manual_seed(seed_for(0, number))
        tokens = generate(restored.model, [first_token(tokenizer)], length, Sampling(0.8, 50), generator)
        text = decode(tokenizer, tokens)
        texts.append(text[: text.rfind("\n") + 1])
    return texts


def is_python(text: str) -> bool:
    """Whether Python itself can parse the text."""
    try:
        return bool(ast.parse(text).body)
    except (SyntaxError, ValueError):
        return False


def startup(seeds: int) -> Rows:
    """Seconds from the shell to --help, and to the first training step."""
    return [startup_row(number) for number in range(max(5, seeds))]


def startup_row(number: int, *options: str) -> dict[str, Any]:
    """One measurement of startup; `options` are passed to the run that makes a step."""
    words = {"train_help": ["train.py", "--help"], "sample_help": ["sample.py", "--help"]}
    row: dict[str, Any] = {"run": number}
    for name, command in words.items():
        row[name] = clock(command)
    short = ["--train.steps", "1", "--train.eval_every", "1000", "--log.sample_tokens", "0"]
    config = ROOT / "configs" / "digits_demo.toml"
    row["first_step"] = clock(["train.py", str(config), "--run", f"first{number}", *short, *options])
    return row


def clock(words: list[str]) -> float:
    """Seconds that a command takes."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, str(ROOT / words[0]), *words[1:]], check=True, capture_output=True)
    return time.perf_counter() - begin


def int8(seeds: int) -> Rows:
    """What int8 weights cost a network trained on Shakespeare: nats of loss over the whole validation split."""
    rows = []
    for seed in range(seeds):
        log, _ = learn("shakespeare_adamw", f"int8-{seed}", "--train.seed", seed, *SINGLE)
        restored = restore(f"int8-{seed}", "last")
        data = open_data(restored.record.resolved, restored.tokenizer)
        result = evaluate(quantize(restored.model), data, "val", cross_entropy, size=64)
        assert result is not None
        losses = {"float32": final(log, "val_loss"), "int8": result.loss}
        rows.append({"seed": seed, **losses, "difference": losses["int8"] - losses["float32"]})
    return rows


FIGURES: dict[str, Callable[[int], Rows]] = {
    "startup": startup,
    "digits": partial(scores, "digits", ("test_accuracy",)),
    "digits_modern": partial(scores, "digits_modern", ("test_accuracy",)),
    "digits_demo": partial(scores, "digits_demo", ("test_accuracy",)),
    "shakespeare_adamw": shakespeare_adamw,
    "shakespeare": partial(scores, "shakespeare", ("val_loss",)),
    "shakespeare_hour": partial(scores, "shakespeare_hour", ("val_loss",)),
    "step": step,
    "int8": int8,
    "python": python,
}


def summary(rows: Rows) -> dict[str, dict[str, float]]:
    """Mean, median, minimum and maximum of every numeric column."""
    numbers = [name for name, value in rows[0].items() if isinstance(value, int | float)]
    columns = {name: [row[name] for row in rows] for name in numbers if name not in ("seed", "run")}
    return {
        name: {
            "mean": statistics.mean(values),
            "median": statistics.median(values),
            "min": min(values),
            "max": max(values),
        }
        for name, values in columns.items()
    }


def main() -> None:
    """Measure the figures named on the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(FIGURES)} (default: all)")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds (default: 3)")
    asked = parser.parse_args()
    for name in asked.names or FIGURES:
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            rows = FIGURES[name](asked.seeds)
            os.chdir(ROOT)
        write(name, rows)


def write(name: str, rows: Rows) -> None:
    """Print the summary of the rows and write rows and summary to results/NAME.json."""
    result = {"figure": name, "rows": rows, "summary": summary(rows), "machine": about()}
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
    print(name, json.dumps(result["summary"], indent=1))


if __name__ == "__main__":
    sys.exit(answer(main))

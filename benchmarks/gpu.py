"""Test and measure one GPU in under four minutes: python -m benchmarks.gpu, or make gpu.

Runs every test marked `cuda` and measures one row of each benchmark, smaller than the benchmark's own rows. Everything
goes into one file, benchmarks/results/gpu.json: machine, versions, commit, date, each test's outcome, each benchmark's
row and the seconds it took. If anything fails, that file is left unchanged and the results go to gpu.failed.json.
`--device cpu --out FILE` is a trial run on a CPU, with the least work that each benchmark can do.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import torch

from benchmarks import finetune, growth, memory, plan, sampling, time_to_loss, training
from benchmarks.figures import RESULTS, ROOT, about, clock_call, final, learn, scores, startup_row
from configs.errors import UserError, answer
from data.fetch import fetch
from data.find import SHAKESPEARE
from model.quantize import quantize
from training.device import choose_dtype
from training.run import machine

OUT = RESULTS / "gpu.json"
LATEST = 180  # seconds after which no further benchmark starts, so that four minutes are enough
TESTS_AT_MOST = 150  # seconds
NOT_MEASURED = {
    "tokenizing": "text is read and encoded on the CPU; no tensor is involved",
    "figures.digits, digits_modern, shakespeare, shakespeare_adamw, shakespeare_hour": "the same code as the figures "
    "measured here, with recipes that take longer than four minutes in total",
    "figures.step": "training.plain and training.ours make the same comparison",
    "figures.int8": "the loss does not depend on the device; sampling.int8 measures the speed",
    "growth, corpora": "how speed depends on corpus size is determined by the CPU's memory",
    "sampling, ctranslate2": "measured only on CPUs; on a GPU it needs its own CUDA libraries",
}

QUIET = ("--log.sample_tokens", 0)

Row = dict[str, Any]


class Sizes(NamedTuple):
    """How much work each row does."""

    network: str
    """a name in benchmarks.training.SIZES"""
    ways: list[str]
    turns: int
    growth: tuple[int, int, int, int]
    sampled: dict[str, int]
    """settings of the network that generates text"""
    count: int
    """tokens to generate"""
    steps: int
    epochs: int
    token_bytes: int


FULL = Sizes(
    network="10.7M",
    ways=["plain", "huggingface", "huggingface_bfloat16", "ours", "ours_bfloat16", "ours_bfloat16_compiled"],
    turns=20,
    growth=growth.SIZES[-2],
    sampled={},  # GPT-2 small
    count=100,
    steps=300,
    epochs=60,
    token_bytes=10**8,
)
TRIAL = Sizes(
    network="0.8M",
    ways=["plain", "ours"],
    turns=2,
    growth=growth.SIZES[0],
    sampled=sampling.SMALL | {"context_length": 64},
    count=10,
    steps=10,
    epochs=1,
    token_bytes=10**6,
)


def training_row(device: str, sizes: Sizes) -> Row:
    """Training: tokens per second, against a plain loop and Hugging Face's."""
    return training.alternating(sizes.network, sizes.turns, sizes.ways, device)


def sampling_row(device: str, sizes: Sizes) -> Row:
    """Sampling: tokens per second."""

    def fresh() -> Any:
        return sampling.network(**sizes.sampled).to(device)

    writers = {
        "fp32": sampling.ours(fresh()),
        "bf16": sampling.ours(fresh().bfloat16()),
        "int8": sampling.ours(quantize(fresh())),
        "hf fp32": sampling.huggingface(fresh()),
        "hf bf16": sampling.huggingface(fresh(), torch.bfloat16),
        "uncached": sampling.uncached(fresh()),
    }
    return sampling.race(writers, sizes.count, runs=1)[0]


def growth_row(device: str, sizes: Sizes) -> Row:
    """Operations per second of a training step, against a matrix product, in the precision that `auto` chooses."""
    dtype = choose_dtype("auto", device, 10**7)
    return growth.over_networks(sizes.turns, [sizes.growth], device=device, dtype=dtype)[0] | {"dtype": dtype}


def digits_row(device: str, sizes: Sizes) -> Row:
    """digits_demo.toml: accuracy on its 1,000 test images."""
    options = ("--train.device", device, "--train.epochs", sizes.epochs, "--train.compile", "off", *QUIET)
    return scores("digits_demo", ("test_accuracy",), 1, *options)[0]


def python_row(device: str, sizes: Sizes) -> Row:
    """python.toml's network after `sizes.steps` steps: bits per byte on held-out files."""
    options = ("--train.device", device, "--train.steps", sizes.steps, "--train.eval_every", sizes.steps, *QUIET)
    return scores("python", ("val_loss", "val_bits_per_byte"), 1, *options)[0] | {"steps": sizes.steps}


def startup_seconds(device: str, sizes: Sizes) -> Row:
    """Seconds to --help and to the first step, on the GPU."""
    return startup_row(0, "--train.device", device)


def plan_row(device: str, sizes: Sizes) -> Row:
    """The forecast of --dry-run for a run on the GPU, against the actual run; memory is the GPU's."""
    settings = {"train.device": device, "train.steps": sizes.steps // 2, "train.eval_every": sizes.steps // 2}
    imported = 0 if device != "cpu" else plan.run(["-c", "import torch"])[1]
    return plan.compare(settings, Path("planned").resolve(), imported, "python")


def memory_row(device: str, sizes: Sizes) -> Row:
    """Peak CPU memory while the GPU trains from tokens in files."""
    folder = memory.sparse_tokens(Path("tokens").resolve(), sizes.token_bytes // 2)
    options = ("--train.device", device)
    return {"token_bytes": sizes.token_bytes, **memory.train(folder, Path("run").resolve(), sizes.steps // 5, *options)}


def time_to_loss_row(device: str, sizes: Sizes) -> Row:
    """A race of three recipes to the same loss on Tiny Shakespeare."""
    fetch(SHAKESPEARE)
    options = ["--train.device", device, "--train.compile", "off"]
    if sizes is TRIAL:
        options += ["--train.steps", str(time_to_loss.TURNS), "--data.val_fraction", "0.005"]
    return time_to_loss.race(0, *options)


def finetune_row(device: str, sizes: Sizes) -> Row:
    """How much a trained network helps on 100 kB of Tiny Shakespeare, with a third of the benchmark's steps."""
    text, options = finetune.beginning_of_shakespeare(), ("--train.device", device, *QUIET)
    log, _ = learn("python", "base", "--train.steps", sizes.steps, "--train.eval_every", sizes.steps, *options)
    row = finetune.compare(text.resolve(), "text", 0, max(10, sizes.steps // 5), *options)
    return row | {"base_val_loss": final(log, "val_loss")}


BENCHMARKS: dict[str, Callable[[str, Sizes], Row]] = {
    "sampling": sampling_row,
    "growth": growth_row,
    "figures.digits_demo": digits_row,
    "figures.python": python_row,
    "plan": plan_row,
    "training": training_row,
    "memory": memory_row,
    "time_to_loss": time_to_loss_row,
    "finetune": finetune_row,
    "figures.startup": startup_seconds,
}


def outcomes(xml: str) -> list[Row]:
    """Each test in a JUnit report: its name, its seconds, its outcome, and the reason unless it passed."""
    rows = []
    for case in ElementTree.fromstring(xml).iter("testcase"):
        row: Row = {"test": case.get("name"), "outcome": "passed", "seconds": float(case.get("time", 0))}
        for outcome in case:
            if outcome.tag in ("failure", "error", "skipped"):
                row |= {"outcome": outcome.tag, "why": outcome.get("message", "").partition("\n")[0]}
        rows.append(row)
    return rows


def run_tests() -> list[Row]:
    """Run every test marked cuda in a separate process, so that one that breaks the GPU's state breaks nothing else."""
    files = [
        str(file) for file in sorted((ROOT / "tests").rglob("test_*.py")) if "mark.cuda" in file.read_text("utf-8")
    ]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        words = ["-m", "pytest", "-q", "-m", "cuda", f"--junitxml={report}", *files]
        try:
            subprocess.run([sys.executable, *words], cwd=ROOT, timeout=TESTS_AT_MOST, stdout=sys.stderr, check=False)
        except subprocess.TimeoutExpired:
            pass
        if not report.exists():
            return [{"test": "all", "outcome": "error", "why": f"pytest did not finish within {TESTS_AT_MOST} seconds"}]
        return outcomes(report.read_text("utf-8"))


@contextmanager
def elsewhere():
    """An empty folder to work in."""
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(ROOT)


def measure(name: str, row: Callable[[], Row]) -> Row:
    """A benchmark's row and the seconds it took, or the error if it fails."""
    result: Row = {}

    def work() -> None:
        with elsewhere():
            result["row"] = row()

    try:
        seconds = clock_call(work)
    except Exception as error:
        return {"failed": f"{type(error).__name__}: {error}"}
    print(f"{name}: {seconds:.1f} s {json.dumps(result['row'])}", file=sys.stderr, flush=True)
    return result | {"seconds": round(seconds, 1)}


def measure_all(device: str, sizes: Sizes, began: float) -> dict[str, Row]:
    """A row of each benchmark that can start within the time limit."""
    rows: dict[str, Row] = {}
    for name, row in BENCHMARKS.items():
        late = device != "cpu" and time.monotonic() - began > LATEST
        reason = f"not started: the time limit of {LATEST} seconds was reached"
        rows[name] = {"failed": reason} if late else measure(name, lambda: row(device, sizes))  # noqa: B023
    return rows


def described(device: str) -> Row:
    """The machine, the package versions and the commit."""
    record = machine()
    row = about() | {"commit": record["commit"], "changed": record["changed"], "device": device}
    if device != "cpu":
        gpu = torch.cuda.get_device_properties(device)
        row |= {"gpu": gpu.name, "gpu_bytes": gpu.total_memory, "capability": [gpu.major, gpu.minor]}
    return row | {"cuda": torch.version.cuda}


def failures(result: Row) -> list[str]:
    """One line for each test that failed and each benchmark without a row."""
    tests = [
        f"{row['test']}: {row.get('why', '')}" for row in result["tests"] if row["outcome"] in ("failure", "error")
    ]
    rows = [f"{name}: {row['failed']}" for name, row in result["benchmarks"].items() if "failed" in row]
    return tests + rows + ([] if result["tests"] else ["no test is marked cuda"])


def write(result: Row, out: Path) -> Path:
    """Write the results to `out`, or to NAME.failed.json in its folder if anything failed; returns the path."""
    target = out.with_name(f"{out.stem}.failed.json") if failures(result) else out
    part = target.with_name(f"{target.name}.part")
    part.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return part.replace(target)


def main() -> int:
    """Run tests and benchmarks and write the results; returns 1 if any failed. Raises UserError without a GPU."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu: a trial run with tiny rows")
    parser.add_argument("--out", type=Path, help=f"where to write the results (default: {OUT.relative_to(ROOT)})")
    asked = parser.parse_args()
    if asked.device == "cuda" and not torch.cuda.is_available():
        raise UserError("no NVIDIA GPU available (torch.cuda.is_available() is false)", 1)
    if asked.device == "cpu" and not asked.out:
        raise UserError(
            f"--device cpu is a trial run and does not write {OUT.relative_to(ROOT)}; name a file with --out", 1
        )
    out, began = (asked.out or OUT).resolve(), time.monotonic()
    out.parent.mkdir(parents=True, exist_ok=True)
    sizes = TRIAL if asked.device == "cpu" else FULL
    result: Row = {"figure": "gpu", "date": datetime.now(UTC).isoformat(timespec="seconds"), "tests": run_tests()}
    result["benchmarks"] = measure_all(asked.device, sizes, began)
    result |= {"not_measured": NOT_MEASURED, "machine": described(asked.device)}
    result["seconds"] = round(time.monotonic() - began, 1)
    path = write(result, out)
    for line in failures(result):
        print(f"failed: {line}", file=sys.stderr)
    print(f"{result['seconds']:.0f} s; results in {path}")
    return 1 if failures(result) else 0


if __name__ == "__main__":
    sys.exit(answer(main))

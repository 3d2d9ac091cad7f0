"""How accurate the forecast of --dry-run is: python -m benchmarks.plan.

Three GPTs on Shakespeare take turns; each is planned with --dry-run and then trained for some steps. Memory is the peak
of the training process minus that of a process that has only imported torch. Time is from the end of planning (run.json
is written) to the end of the process: steps, evaluations and checkpoints. Both forecasts are parsed from the printed
plan, rounded as the user sees them. The share is the fraction of a matrix product's speed that a step reaches: the
plan's operations per step, over the median time of a step in the actual run, over the speed in the plan.
"""

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.figures import about

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "plan.json"
UNITS = {"": 1, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "s": 1, "min": 60, "h": 3600}
SHARED = {"train.threads": 1, "train.device": "cpu", "log.every": 1, "log.sample_tokens": 0}
ON_A_GPU = (  # runs train.py, then prints the peak bytes of its tensors on the GPU
    "import runpy, sys, torch\n"
    "code = 0\n"
    "try: runpy.run_path('train.py', run_name='__main__')\n"
    "except SystemExit as end: code = end.code\n"
    "print(torch.cuda.max_memory_allocated())\n"
    "sys.exit(code)"
)
SIZES = {  # settings, repetitions
    "0.8M": ({"train.steps": 150}, 3),
    "10.7M": (
        {"model.n_layer": 6, "model.n_head": 6, "model.n_embd": 384, "model.context_length": 256}
        | {"train.batch_size": 8, "train.steps": 6, "train.eval_every": 6, "data.val_fraction": 0.01},
        2,
    ),
    "124M": (
        {"model.n_layer": 12, "model.n_head": 12, "model.n_embd": 768, "model.context_length": 256}
        | {"data.tokenizer": "gpt2", "train.batch_size": 1, "train.steps": 6, "train.eval_every": 6}
        | {"data.val_fraction": 0.0025},
        1,
    ),
}


def run(words: list[str]) -> tuple[str, int, float]:
    """Standard output of a Python process, its peak memory in bytes, and when it ended. Raises CalledProcessError."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen([sys.executable, *words], cwd=ROOT, stdout=out, stderr=errors)
        _, status, usage = os.wait4(process.pid, 0)
        ended = time.time()
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        errors.seek(0)
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, words, stderr=errors.read())
        return out.read(), usage.ru_maxrss * 1024, ended


def number(text: str, pattern: str) -> float:
    """A number in the plan, converted to base units: "1.5 min" is 90.0."""
    found = re.search(pattern, text, re.MULTILINE)
    assert found, (pattern, text)
    return float(found[1]) * UNITS[found[2]]


def planned(printed: str) -> dict[str, float]:
    """Bytes, seconds and speed in a printed plan."""
    return {
        "peak_bytes": number(printed, r"^ +peak +([\d.]+) (\w?)B "),
        "seconds": number(printed, r"^time +([\d.]+) (\w+);"),
        "step_seconds": number(printed, r"; ([\d.]+) (m?)s (?:a|per) step"),
        "flops_each": number(printed, r"^arithmetic +([\d.]+) (\w?)FLOP"),
        "speed": number(printed, r": ([\d.]+) (\w?)FLOP/s"),
        "targets": float(re.search(r"steps of ([\d,]+) ", printed)[1].replace(",", "")),  # type: ignore[index]
    }


def compare(settings: dict[str, Any], folder: Path, imported: int, config: str = "shakespeare_adamw") -> dict[str, Any]:
    """A plan and the run it forecasts. On a GPU the peak is that of the tensors on it, and `imported` is not used."""
    settings = SHARED | settings
    words = [f"configs/{config}.toml", "--run", str(folder)]
    words += [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    plan = planned(run(["train.py", *words, "--dry-run"])[0])
    if settings["train.device"] == "cpu":
        _, peak, ended = run(["train.py", *words])
        peak -= imported
    else:
        printed, _, ended = run(["-c", ON_A_GPU, *words])
        peak = int(printed.split()[-1])
    times = [json.loads(line) for line in (folder / "timing.jsonl").read_text().splitlines()]
    steps = {row["step"]: row["at"] for row in reversed(times)}  # if a step has two rows, the first
    step = statistics.median(
        steps[later] - steps[before] for before, later in pairwise(sorted(steps)) if later - before == 1
    )
    written = (folder / "run.json").stat().st_mtime
    shutil.rmtree(folder)
    measured = {
        "peak_bytes": peak,
        "seconds": round(ended - written, 2),
        "step_seconds": round(step, 4),
    }
    return {
        "planned": plan,
        "measured": measured,
        "planned_over_measured": {name: round(plan[name] / measured[name], 3) for name in measured},
        "share": round(plan["flops_each"] * plan["targets"] / step / plan["speed"], 3),
    }


def main() -> None:
    """Compare all plans with their runs and write the results."""
    imported = run(["-c", "import torch"])[1]
    rows = []
    with tempfile.TemporaryDirectory() as place:
        for again in range(max(times for _, times in SIZES.values())):
            for name, (settings, times) in SIZES.items():
                if again < times:
                    folder = Path(place) / f"{name}-{again}"
                    rows.append({"network": name, **compare(settings, folder, imported)})
                    print(name, rows[-1]["planned_over_measured"], "share", rows[-1]["share"])
    share = round(statistics.median(row["share"] for row in rows), 2)
    result = {"figure": "plan", "imported_torch_bytes": imported, "rows": rows, "share": share, "machine": about()}
    RESULT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()

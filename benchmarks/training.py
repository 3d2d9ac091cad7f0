"""Training speed, against other implementations: python -m benchmarks.training [SIZE...] [--turns 7].

Compares a plain float32 loop around our network, a plain loop around Hugging Face's GPT-2, and the steps of `train.py`,
the last two in float32 and bfloat16, eager and compiled, and ours also with two processes. Everything takes turns in
one process, a step each; the figures are medians. Peak memory is measured in a separate process for each. The results
go to benchmarks/results/training.json.
"""

import argparse
import json
import multiprocessing
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn import functional as F

import train
from benchmarks.figures import RESULTS, about, clock_call
from configs.errors import UserError, answer
from configs.schema import Config
from data.dataset import Dataset
from model import GPTConfig
from training.compiled import compiled
from training.learner import build_learner
from training.parallel import join
from training.world import World

SIZES: dict[str, tuple[dict[str, int], int]] = {  # the network, and windows per step
    "0.8M": ({"n_layer": 4, "n_head": 4, "n_embd": 128, "context_length": 64, "vocab_size": 65}, 12),
    "10.7M": ({"n_layer": 6, "n_head": 6, "n_embd": 384, "context_length": 256, "vocab_size": 65}, 8),
    "124M": ({"context_length": 256}, 1),
}
SKIPPED = 2  # first steps that are not timed: they allocate memory and compile

Step = Callable[[int], Any]


class Noise:
    """Random tokens in numbered batches; the cost of a step doesn't depend on the data."""

    def __init__(self, config: GPTConfig) -> None:
        self.positions = config.context_length
        self.tokens = torch.randint(config.vocab_size, (2**16,), generator=torch.Generator().manual_seed(0))

    def batch(self, split: str, number: int, size: int) -> tuple[Tensor, Tensor]:
        """Windows, and for each of their tokens the next one."""
        length = len(self.tokens) - self.positions - 1
        starts = torch.randint(length, (size,), generator=torch.Generator().manual_seed(number))
        windows = torch.stack([self.tokens[start : start + self.positions + 1] for start in starts])
        return windows[:, :-1], windows[:, 1:]

    def count(self, split: str) -> int:
        """The number of windows."""
        return len(self.tokens) - self.positions


def config_of(size: str, activation: str = "gelu_tanh", **settings: Any) -> Config:
    """A run with AdamW and a network of this size; GPT-2's activation by default."""
    network, windows = SIZES[size]
    threads = torch.get_num_threads()
    steps = {"steps": 1000, "batch_size": windows, "device": "cpu", "threads": threads, "compile": "off"}
    optim = {"lr": 1e-4, "weight_decay": 0.1, "grad_clip": 1.0}
    return Config.model_validate(
        {
            "model": {"kind": "gpt", "activation": activation, **network},
            "data": {"path": "noise"},
            "optim": optim,
            "train": steps | {"dtype": "float32"} | settings,
        }
    )


def ours(size: str, **settings: Any) -> Step:
    """The training step of train.py."""
    config = config_of(size, **settings)
    assert isinstance(config.model, GPTConfig)
    data: Dataset = Noise(config.model)  # type: ignore[assignment]
    return partial(train.update, build_learner(config, data))


class TwoProcesses:
    """Two processes that make half of each step, on one thread each, like a run started by torchrun."""

    def __init__(self, size: str, **settings: Any) -> None:
        context, store = multiprocessing.get_context("spawn"), tempfile.mkdtemp() + "/store"
        self.pipes = []
        for rank in range(2):
            mine, theirs = context.Pipe()
            context.Process(target=half_a_step, args=(rank, store, theirs, size, settings), daemon=True).start()
            self.pipes.append(mine)

    def __call__(self, number: int) -> None:
        for pipe in self.pipes:
            pipe.send(number)
        for pipe in self.pipes:
            pipe.recv()


def half_a_step(rank: int, store: str, pipe: Connection, size: str, settings: dict[str, Any]) -> None:
    """One of the two processes: make its half of a step for each number received."""
    world = World(rank, 2, rank, dist.FileStore(store, 2))
    join(world, "cpu")
    config = config_of(size, batch_size=SIZES[size][1] // 2, accumulate=2, threads=1, **settings)
    assert isinstance(config.model, GPTConfig)
    learner = build_learner(config, Noise(config.model), world)  # type: ignore[arg-type]
    with suppress(EOFError):  # the parent process has ended
        while True:
            pipe.send(train.update(learner, pipe.recv()))


def loop(model: nn.Module, logits: Callable[[Tensor], Tensor], size: str, device: str, autocast: bool = False) -> Step:
    """The training step of a short script: batch, loss, backward, clipping, torch's AdamW."""
    data, windows = Noise(GPTConfig(**SIZES[size][0])), SIZES[size][1]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.1, betas=(0.9, 0.95))
    model.train()

    def step(number: int) -> None:
        x, y = (part.to(device, non_blocking=True) for part in data.batch("train", number, windows))
        with torch.autocast(device.partition(":")[0], torch.bfloat16, enabled=autocast):
            scores = logits(x)
            loss = F.cross_entropy(scores.flatten(0, 1), y.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        float(loss.detach())

    return step


def plain(size: str, device: str = "cpu") -> Step:
    """The plain loop around our network, eager and in float32."""
    data = Noise(GPTConfig(**SIZES[size][0]))
    model = build_learner(config_of(size, device=device), data).model  # type: ignore[arg-type]
    return loop(model, model, size, device)


def huggingface(size: str, device: str = "cpu", autocast: bool = False, compile: bool = False) -> Step:
    """The plain loop around Hugging Face's GPT-2, without dropout."""
    from transformers import GPT2Config, GPT2LMHeadModel

    network = GPTConfig(**SIZES[size][0])
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=network.vocab_size,
            n_positions=network.context_length,
            n_embd=network.n_embd,
            n_layer=network.n_layer,
            n_head=network.n_head,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            use_cache=False,
            bos_token_id=None,
            eos_token_id=None,
        )
    ).to(device)  # type: ignore[arg-type] - a decorator hides its signature
    forward = compiled(model) if compile else model
    return loop(model, lambda x: forward(x).logits, size, device, autocast)  # type: ignore[attr-defined]


WAYS: dict[str, Callable[..., Step]] = {
    "plain": plain,
    "huggingface": huggingface,
    "huggingface_compiled": partial(huggingface, compile=True),
    "huggingface_bfloat16": partial(huggingface, autocast=True),
    "huggingface_bfloat16_compiled": partial(huggingface, autocast=True, compile=True),
    "ours": ours,
    "ours_gelu": partial(ours, activation="gelu"),
    "ours_compiled": partial(ours, compile="on"),
    "ours_bfloat16": partial(ours, dtype="bfloat16"),
    "ours_bfloat16_gelu": partial(ours, dtype="bfloat16", activation="gelu"),
    "ours_bfloat16_compiled": partial(ours, dtype="bfloat16", compile="on"),
    "ours_bfloat16_gelu_compiled": partial(ours, dtype="bfloat16", activation="gelu", compile="on"),
}
SHARED: dict[str, Callable[..., Step]] = {  # for steps of more than one window
    "ours_two_processes": TwoProcesses,
    "ours_two_processes_bfloat16": partial(TwoProcesses, dtype="bfloat16"),
}


def alternating(size: str, turns: int, ways: list[str], device: str = "cpu") -> dict[str, Any]:
    """Tokens per second of each way, by its median step; the ways take turns."""
    times = in_turn({name: (WAYS | SHARED)[name](size, device=device) for name in ways}, turns)
    network, windows = SIZES[size]
    tokens = windows * network["context_length"]
    seconds = {name: statistics.median(steps[SKIPPED:]) for name, steps in times.items()}
    return {
        "network": size,
        "turns": turns,
        "tokens_per_second": {name: round(tokens / each) for name, each in seconds.items()},
        "times_plain": {name: round(seconds["plain"] / each, 3) for name, each in seconds.items()},
        "first_step_seconds": {name: round(steps[0], 1) for name, steps in times.items() if "compiled" in name},
    }


def in_turn(steps: dict[str, Step], turns: int) -> dict[str, list[float]]:
    """Seconds of every step by name; the names take turns, one step each."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(SKIPPED + turns):
        for name, step in steps.items():
            times[name].append(clock_call(partial(step, number)))
    return times


def peak(size: str, way: str) -> float:
    """Peak megabytes of a process that makes three steps, minus those of one that only imports the same modules."""
    parts = "import benchmarks.training as t; from transformers import GPT2LMHeadModel"
    steps = f"step = t.WAYS[{way!r}]({size!r}); [step(number) for number in range(3)]"
    before, after = (
        int(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)
        for code in (f"{parts}; t.print_peak()", f"{parts}; {steps}; t.print_peak()")
    )
    return (after - before) / 1024


def print_peak() -> None:
    """Print this process's peak memory in kilobytes; getrusage's would include its parent's."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(line.split()[1])


def main() -> None:
    """Measure the sizes named on the command line; each is written as soon as it is measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("sizes", nargs="*", metavar="SIZE", help=f"{', '.join(SIZES)} (default: all)")
    parser.add_argument(
        "--ways", nargs="*", default=[], choices=list(WAYS | SHARED), help="(default: all; plain is always included)"
    )
    parser.add_argument("--turns", type=int, default=7, help="steps of each way (default: 7)")
    asked = parser.parse_args()
    if unknown := set(asked.sizes) - SIZES.keys():
        raise UserError(f"unknown size {unknown.pop()}; available: {', '.join(SIZES)}")
    file = RESULTS / "training.json"
    result = json.loads(file.read_text()) if file.exists() else {"figure": "training"}
    for size in asked.sizes or SIZES:
        available = list(WAYS if SIZES[size][1] == 1 else WAYS | SHARED)
        ways = [way for way in available if way in {"plain", *(asked.ways or available)}]
        row = alternating(size, asked.turns, ways)
        row["peak_megabytes"] = {way: round(peak(size, way)) for way in ("plain", "huggingface", "ours")}
        result[size if ways == available else f"{size}: {', '.join(ways)}"] = row | {"machine": about()}
        file.write_text(json.dumps(result, indent=1) + "\n")
        print(json.dumps(row, indent=1))


if __name__ == "__main__":
    sys.exit(answer(main))

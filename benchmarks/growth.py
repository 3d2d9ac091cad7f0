"""Training speed over network size and corpus size: python -m benchmarks.growth [--turns 5] [--gigabytes 10].

Measures tokens per second of the steps that `train.py` makes: over networks of 0.1M to 124M parameters, with their
operations per second relative to a large matrix product's; and of one network over corpora of 1 MB to 10 GB (tokens in
sparse files, which the system caches in memory like any file that was read before). The steps of all alternate, and
medians count. The results go to benchmarks/results/growth.json and growth.png.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes

import train
from benchmarks.figures import RESULTS, Rows, about
from benchmarks.memory import sparse_tokens
from benchmarks.training import SKIPPED, Noise, in_turn
from configs.errors import answer
from configs.schema import Config, DataConfig
from data.text import open_text
from lens.paint import BLUE, RED, canvas, powers, save
from model import GPTConfig
from training.cost import count_parameters
from training.dryrun import product_speed
from training.forecast import flops
from training.learner import Learner, build_learner

SIZES = (  # layers, heads, width, vocabulary
    (2, 2, 64, 65),
    (4, 4, 128, 65),
    (4, 4, 256, 65),
    (6, 6, 384, 65),
    (8, 8, 512, 4096),
    (12, 12, 768, 50_257),
)
CONTEXT, WINDOWS = 256, 8


def config_of(layers: int, heads: int, width: int, vocabulary: int, **train: Any) -> Config:
    """shakespeare.toml's network in another size, trained with AdamW."""
    size = {"n_layer": layers, "n_head": heads, "n_embd": width, "vocab_size": vocabulary, "context_length": CONTEXT}
    return Config.model_validate(
        {
            "model": {"kind": "gpt", "position": "rotary", "activation": "gelu", "bias": False} | size,
            "data": {"path": "noise"},
            "optim": {"lr": 1e-4, "grad_clip": 1.0},
            "train": {"steps": 1000, "batch_size": WINDOWS, "device": "cpu", "dtype": "float32", "compile": "off"}
            | {"threads": torch.get_num_threads()}
            | train,
        }
    )


def gpt(config: Config) -> GPTConfig:
    """The network of a GPT's config."""
    assert isinstance(config.model, GPTConfig)
    return config.model


def step_seconds(learners: list[Learner], turns: int) -> list[float]:
    """Median seconds of a step of each learner; their steps alternate."""
    times = in_turn({str(n): partial(train.update, learner) for n, learner in enumerate(learners)}, turns)
    return [statistics.median(seconds[SKIPPED:]) for seconds in times.values()]


def over_networks(turns: int, sizes: Iterable[tuple[int, int, int, int]] = SIZES, **train: Any) -> Rows:
    """Speed of each network, by its parameters."""
    configs = [config_of(*size, **train) for size in sizes]
    learners = [build_learner(config, Noise(gpt(config))) for config in configs]  # type: ignore[arg-type]
    fastest, rows = product_speed(configs[0].train.device, configs[0].train.dtype), []
    for config, seconds in zip(configs, step_seconds(learners, turns), strict=True):
        tokens = WINDOWS * CONTEXT
        rows.append(
            {
                "parameters": count_parameters(config),
                "tokens_per_second": round(tokens / seconds),
                "operations_per_second": round(flops(config) * tokens / seconds),
                "of_a_matrix_product": round(flops(config) * tokens / seconds / fastest, 3),
            }
        )
    return rows


def over_corpora(turns: int, gigabytes: float) -> Rows:
    """Speed of one network, by the bytes of tokens in the corpus."""
    sizes = [int(size) for size in (1e6, 1e7, 1e8, 1e9, 1e10) if size <= gigabytes * 1e9]
    config = config_of(*SIZES[1][:3], 256)
    with tempfile.TemporaryDirectory() as place:
        learners, opening = [], []
        for size in sizes:
            folder = sparse_tokens(Path(place) / f"tokens{size}", size // 2)
            begin = time.perf_counter()
            data = open_text(DataConfig(path=str(folder)), CONTEXT, seed=0)
            opening.append(time.perf_counter() - begin)
            learners.append(build_learner(config, data))
        per_step = step_seconds(learners, turns)
    tokens = WINDOWS * CONTEXT
    return [
        {"token_bytes": size, "tokens_per_second": round(tokens / seconds), "opening_seconds": round(opened, 2)}
        for size, seconds, opened in zip(sizes, per_step, opening, strict=True)
    ]


def draw(result: dict[str, Any]) -> Any:
    """A figure with both curves side by side."""
    networks, corpora = result["networks"], result["corpora"]
    figure = canvas(11, 4.4, "Training speed over network size and corpus size", result["about"])
    left, right = figure.subplots(1, 2)
    curve(left, networks, "parameters", "parameters")
    powers(left)
    ceiling = [row["tokens_per_second"] / row["of_a_matrix_product"] for row in networks]
    sizes = [row["parameters"] for row in networks]
    left.plot(sizes, ceiling, color=RED, linestyle="--", label="a large matrix product's speed")
    left.plot([], [], color=BLUE, marker="o", label="a training step")
    left.legend()
    curve(right, corpora, "token_bytes", "bytes of tokens in the corpus")
    right.set_ylim(0, 1.2 * max(row["tokens_per_second"] for row in corpora))
    return figure


def curve(axes: Axes, rows: Rows, key: str, label: str) -> None:
    """Plot tokens per second over the column `key`."""
    x, y = [row[key] for row in rows], [row["tokens_per_second"] for row in rows]
    axes.plot(x, y, color=BLUE, marker="o")
    powers(axes, "x")
    axes.margins(0.12)
    for place, value in zip(x, y, strict=True):
        axes.annotate(f"{value:,}", (place, value), (-4, -13), textcoords="offset points", ha="right", fontsize=8)
    axes.set(xlabel=label, ylabel="tokens per second")


def main() -> None:
    """Measure, write the results and draw them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--turns", type=int, default=5, help="steps of each network (default: 5)")
    parser.add_argument("--gigabytes", type=float, default=10, help="largest corpus (default: 10)")
    asked = parser.parse_args()
    threads = torch.get_num_threads()
    sentence = (
        f"AdamW, {WINDOWS} windows of {CONTEXT} tokens per step, float32, {threads} thread{'s' * (threads > 1)}; "
        f"right: {SIZES[1][0]} layers, {SIZES[1][2]} wide."
    )
    result = {
        "figure": "growth",
        "about": sentence,
        "networks": over_networks(asked.turns),
        "corpora": over_corpora(asked.turns, asked.gigabytes),
        "machine": about(),
    }
    (RESULTS / "growth.json").write_text(json.dumps(result, indent=1) + "\n")
    save(lambda: draw(result), RESULTS / "growth.png")
    print(json.dumps({name: result[name] for name in ("networks", "corpora")}, indent=1))


if __name__ == "__main__":
    sys.exit(answer(main))

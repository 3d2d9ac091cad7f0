"""The plan before the start: its arithmetic is what torch counts and keeps, and nothing is too large to be planned."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from configs.command import check, read
from configs.schema import Config
from model import attention
from tests.conftest import ROOT
from tests.test_mistakes import one_line
from training import dryrun, footprint, loss, plan
from training.cost import count_parameters, moments
from training.footprint import activations, block_activations, in_smaller_batches, memory_of
from training.forecast import fits, flops, scaled, targets_in_a_step
from training.learner import build_network
from training.loss import LOSSES
from training.optim import build_optimizers

GPT = {
    "model.kind": "gpt", "model.n_layer": 3, "model.n_head": 4, "model.n_embd": 64, "model.vocab_size": 99,
    "model.context_length": 32, "data.path": ["x"], "train.steps": 3, "train.batch_size": 4,
    "train.dtype": "float32",
}  # fmt: skip
DENSE: dict[str, dict[str, Any]] = {
    "plain": {},
    "untied": {"model.tied": False},
    "without biases": {"model.bias": False},
    "dropout": {"model.dropout": 0.1},
    "relu": {"model.activation": "relu"},
    "post": {"model.norm": "post"},
    "sinusoidal": {"model.position": "sinusoidal"},
    "rotary": {"model.position": "rotary"},
    "long": {"model.context_length": 256},
}
PARTLY: dict[str, dict[str, Any]] = {
    "frozen below": {"train.freeze": ["embedding", "blocks.0"]},
    "frozen below, long": {"train.freeze": ["embedding", "blocks.0-1"], "model.context_length": 256},
    "frozen above": {"train.freeze": ["blocks.2"]},
    "adapters": {"train.start": "x", "model.lora.rank": 4},
    "an adapter": {"train.start": "x", "model.lora.rank": 4, "model.lora.targets": ["down"]},
}
DIGITS = {"model.kind": "mlp", "model.sizes": [30, 20, 16, 10], "data.path": ["x"], "train.steps": 3}
TOO_LARGE = ["--model.n_embd", "1000000"]  # each matrix alone: if it were not refused, that would fail at once


def config_of(base: dict[str, Any], *more: dict[str, Any]) -> Config:
    """The checked config of these settings."""
    for settings in more:
        base = base | settings
    return check(base, {})


def a_batch(config: Config) -> tuple[torch.Tensor, torch.Tensor]:
    """What the network reads, and what it should say."""
    size = config.train.batch_size
    if config.model.kind == "mlp":
        return torch.rand(size, config.model.sizes[0]), torch.randint(config.model.sizes[-1], (size,))
    tokens = torch.randint(config.model.vocab_size, (size, config.model.context_length))
    return tokens, tokens


@pytest.mark.parametrize("kind", [*DENSE, *PARTLY, "mlp"])
def test_the_operations_are_those_that_torch_counts(kind):
    config = config_of(DIGITS) if kind == "mlp" else config_of(GPT, (DENSE | PARTLY)[kind])
    network, (x, y) = build_network(config), a_batch(config)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):  # it misses the CPU's own attention
        LOSSES[config.train.loss](network(x), y).backward()
    assert flops(config) * targets_in_a_step(config) == pytest.approx(counter.get_total_flops(), rel=0.03)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", DENSE)
def test_the_activations_are_what_torch_keeps_for_the_way_back(kind, dtype):
    config = config_of(GPT, DENSE[kind], {"train.dtype": dtype})
    network, (x, _) = build_network(config), a_batch(config)
    weights = {p.untyped_storage().data_ptr() for p in network.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    saved = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with saved, torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
        network.vectors(x)
    there = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    tokens = config.train.batch_size * config.model.context_length
    passing = block_activations(config) * tokens  # gradients, as many as a block's
    assert activations(config) - passing == pytest.approx(there, rel=0.05)


@pytest.mark.parametrize("more", [{}, {"optim.momentum": 0.9}], ids=["plain", "momentum"])
@pytest.mark.parametrize("name", ["sgd", "rmsprop", "adam", "adamw", "muon"])
@pytest.mark.parametrize("base", [GPT, DIGITS, GPT | PARTLY["adapters"], GPT | PARTLY["frozen below"]])
def test_the_optimiser_keeps_as_many_numbers_as_planned(base, name, more):
    config = config_of(base, more, {"optim.name": name})
    network, (x, y) = build_network(config), a_batch(config)
    optimizers = build_optimizers(network, config.optim)
    LOSSES[config.train.loss](network(x), y).backward()
    for optimizer in optimizers:
        optimizer.step()
    states = [state for optimizer in optimizers for state in optimizer.state.values()]
    kept = [value for state in states for name, value in state.items() if torch.is_tensor(value) and name != "step"]
    assert sum(value.numel() for value in kept) == moments(config)


@pytest.mark.parametrize("kind", [*DENSE, *PARTLY])
def test_the_plan_counts_what_the_run_counts(kind):
    config = config_of(GPT, (DENSE | PARTLY)[kind])
    assert (count_parameters(config), count_parameters(config, learning=True)) == plan.counts(config)


def test_what_does_not_fit_is_offered_in_the_largest_batches_that_do():
    config = config_of(GPT, {"train.batch_size": 96, "train.accumulate": 2})

    def peak(size: int) -> int:
        return memory_of(config_of(GPT, {"train.batch_size": size, "train.accumulate": 192 // size})).peak

    smaller = in_smaller_batches(config, peak(24))
    assert smaller and (smaller.train.batch_size, smaller.train.accumulate) == (24, 8)
    assert in_smaller_batches(config, peak(1) - 1) is None


def test_the_plan_takes_logits_in_parts_and_stores_patterns_where_the_run_does():
    assert (footprint.IN_PARTS, footprint.PATTERNS) == (loss.AT_ONCE, attention.SHORT)


def test_gpt_3_takes_the_operations_of_its_paper():
    config = check(read(str(ROOT / "configs/gpt3.toml")), {})
    targets = targets_in_a_step(config) * (config.train.steps or 0)
    assert targets == pytest.approx(300e9, rel=0.001)
    assert flops(config) * targets == pytest.approx(3.14e23, rel=0.04)  # Brown et al. 2020, table D.1: no attention


def test_gpt_3_is_planned_without_torch():
    code = (
        "import sys\nfrom training.run import understand\n"
        "try: understand(['configs/gpt3.toml', '--dry-run'])\n"
        "except SystemExit as end: assert not end.code\n"
        "else: raise AssertionError('it goes on')\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    for words in ("174,604,259,328", "175,181,291,520", "41 GPUs of 80 GB", "300 billion tokens", "323 ZFLOP"):
        assert words in done.stdout


@pytest.mark.parametrize("tokenizer", ["char", "byte", "gpt2"])
def test_what_is_too_large_to_be_trained_is_planned(shell, tiny, tokenizer):
    words = [*tiny, *TOO_LARGE, "--data.tokenizer", tokenizer]
    one_line(shell("train.py", *words), "parameters", "this machine has")
    code, out, _ = shell("train.py", *words, "--dry-run")
    assert code == 0 and "GPUs of 80 GB" in out and "H100s" in out
    assert not Path("runs").exists()


def test_what_this_machine_has_no_memory_for_is_planned_for_gpus(shell, tiny, monkeypatch):
    for module in (plan, dryrun):
        monkeypatch.setattr(module, "memory", lambda device: 10_000)
    one_line(shell("train.py", *tiny), "parameters", "this machine has")
    code, out, _ = shell("train.py", *tiny, "--dry-run")
    assert code == 0 and "does not fit in this machine's 10 kB; needs 1 GPU of 80 GB" in out
    assert "1 H100, bfloat16" in out and "a step" not in out  # nothing is said of the time here


def test_a_dry_run_says_what_will_be_and_writes_nothing(shell, tiny):
    code, out, _ = shell("train.py", *tiny, "--dry-run")
    assert code == 0 and "12 steps of 64 tokens = 768 tokens" in out and "timed on trial steps" in out
    assert len(out.splitlines()) <= 25 and max(map(len, out.splitlines())) <= 120
    assert not Path("runs").exists()


def test_a_plan_names_a_part_that_cannot_be_frozen_however_large_its_network(shell, tiny):
    words = [*tiny, "--data.tokenizer", "byte", *TOO_LARGE, "--train.freeze", "nonsense", "--dry-run"]
    one_line(shell("train.py", *words), "train.freeze", "nonsense")


def test_a_plan_needs_no_text_where_the_tokenizer_is_known(shell, tiny):
    words = [*tiny, "--data.path", "nowhere.txt", "--data.tokenizer", "byte", "--dry-run"]
    code, out, _ = shell("train.py", *words)
    assert code == 0 and "planned without it" in out and "nowhere.txt" in out and "estimated" in out


def test_a_dry_run_of_a_run_that_goes_on_says_what_is_left_and_changes_nothing(shell, tiny):
    assert shell("train.py", *tiny)[0] == 0
    clock = [(0, 0.0), (1, 10.0), (6, 60.0), (7, 990.0), (6, 2000.0), (7, 2010.0)]  # evaluated, and begun again at 6
    rows = [json.dumps({"step": step, "at": at}) for step, at in clock]
    Path("runs/tiny/timing.jsonl").write_text("\n".join([*rows, '{"st']))
    before = {file: file.read_bytes() for file in Path("runs").rglob("*") if file.is_file()}
    code, out, _ = shell("train.py", "--resume", "--run", "tiny", "--dry-run", "--train.steps", "20")
    assert code == 0
    resumes = f"{Path('runs/tiny')} resumes after step 12: 8 of 20 steps left, 512 tokens"
    assert out == f"{resumes}; 80 s at the pace so far\n"
    code, out, _ = shell("train.py", "--resume", "--run", "tiny", "--dry-run")
    assert code == 0 and "has finished all 12 steps" in out
    assert {file: file.read_bytes() for file in Path("runs").rglob("*") if file.is_file()} == before


def test_one_micro_batch_is_timed_however_many_a_step_has():
    timed: list[Config] = []

    def two_seconds(config: Config) -> float:
        timed.append(config)
        return 2.0

    config = config_of(GPT, {"train.accumulate": 500})
    assert dryrun.by_micro_batch(two_seconds, 1, config) == 1000.0
    assert dryrun.by_micro_batch(two_seconds, 4, config) == 250.0  # four processes share them
    assert [config.train.accumulate for config in timed] == [1, 1]


def test_the_peak_is_no_more_than_all_parts_and_no_less_than_what_always_stays():
    for settings in (DENSE | PARTLY).values():
        memory = memory_of(config_of(GPT, settings))
        parts = {part.name: part.bytes for part in memory.parts}
        assert parts["weights"] + parts["optimiser"] + parts["program"] < memory.peak <= sum(parts.values())


@pytest.mark.parametrize(
    ("value", "text"),
    [(3.14e23, "314 ZFLOP"), (999, "999 FLOP"), (1000, "1 kFLOP"), (0, "0 FLOP"), (0.0525, "52.5 mFLOP")],
)
def test_numbers_are_said_with_a_prefix(value, text):
    assert scaled(value, "FLOP") == text


@pytest.mark.parametrize(
    ("peak", "text"),
    [
        (80 * 10**9, "needs 1 GPU of 80 GB"),
        (81 * 10**9, "needs 2 GPUs of 80 GB, split evenly"),
    ],
)
def test_gpus_are_counted(peak, text):
    assert fits(peak, None) == text


def test_epochs_are_steps_before_it_is_asked_whether_compiling_repays(monkeypatch):
    monkeypatch.setattr(plan, "choose_compile", lambda asked, device, steps: "on" if steps == 75 else "off")
    data = SimpleNamespace(count=lambda split: 100, positions=32, sha256="", recipe=1, batch=len, in_order=iter)
    asked = config_of({name: value for name, value in GPT.items() if name != "train.steps"}, {"train.epochs": 3})
    config, _ = plan.resolve(asked, data, lambda config: 1.0)  # type: ignore[arg-type]
    assert (config.train.steps, config.train.compile) == (75, "on")

"""Every number that a plan prints is what arithmetic by hand says.

Ten configs are planned on a machine whose speed, memory and step time are made up. What each plan must say is written
out here from the definitions, in plain numbers. A number that is printed and not claimed here fails the test, and so
does a claim that is not printed. What was measured rather than derived (how fast checkpoints are written, what an
evaluation takes of a step's time) is imported: how it enters is written out, not how large it is.
"""

import math
import re
from itertools import cycle
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from configs.command import Command, check, read
from configs.errors import UserError
from configs.schema import Config
from data.dataset import Dataset
from tests.conftest import ROOT
from training import checkpoint, dryrun, forecast, plan
from training.clock import duration
from training.cost import checkpoint_bytes
from training.footprint import COPIES_IN_PARTS, COPIES_OF_A_PART, PROGRAM, memory_of
from training.forecast import CPU_SHARE, scaled
from training.gpus import GPU_BYTES, GPU_SHARE, GPUS, LARGEST, gpus_for
from training.learner import build_network
from training.loss import cross_entropy
from training.optim import build_optimizers
from training.plan import AROUND, EVALUATING, SAVING, describe, resolve, run_seconds
from training.tensorfile import read_tensors

PRODUCT = 0.002  # seconds in which the machine multiplies two matrices of 1,024 x 1,024
SPEED = 2 * 1024**3 / PRODUCT  # each of 1,024 x 1,024 sums has 1,024 products and as many additions
ROOM = 16 * 10**9
PREFIXES = {"m": 1e-3, "": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18, "Z": 1e21, "Y": 1e24}
TIMES = {"s": 1, "min": 60, "h": 60 * 60, "days": 24 * 60 * 60, "years": 365 * 24 * 60 * 60}
NUMBER = re.compile(
    r"(?<![\w.])(\d+(?:,\d{3})*(?:\.\d+)?(?:e[+-]\d+)?)"
    r"(%| billion| [mkMGTPEZY]?(?:FLOP/s|FLOP|B|s)\b| (?:min|h|days|years)\b)?"
)


class Claim(NamedTuple):
    """What one printed number should say."""

    value: float
    unit: str = ""


def same(claim: Claim, number: str, unit: str) -> bool:
    """Whether the printed number is the claimed one, rounded as it is printed."""
    digits, unit = float(number.replace(",", "")), unit.strip()
    places = len(number.partition(".")[2])
    if claim.unit in ("B", "FLOP", "FLOP/s", "step") and unit not in TIMES.keys() - {"s"}:
        base = "s" if claim.unit == "step" else claim.unit
        if (
            not unit.endswith(base)
            or unit.removesuffix(base) not in PREFIXES
            or not (digits < 1000 and "e" not in number)
        ):
            return False
        scale, last = PREFIXES[unit.removesuffix(base)], 10.0 ** (math.floor(math.log10(digits)) - 2) if digits else 0
    elif claim.unit in ("time", "step"):
        scale, last = TIMES.get(unit, math.nan), 10.0**-places
    else:
        if unit != claim.unit:
            return False
        scale, last = {"%": 0.01, "billion": 1e9}.get(unit, 1), 10.0**-places if unit or places else 0
    return abs(digits * scale - claim.value) <= (0.5 + 1e-9) * last * scale


def require(text: str, claims: list[list[Claim | float]]) -> None:
    """Each line of the text has exactly these numbers."""
    lines = text.splitlines()
    assert len(lines) == len(claims), text
    for line, wanted in zip(lines, claims, strict=True):
        found = NUMBER.findall(line)
        assert len(found) == len(wanted), (line, found, wanted)
        for (number, unit), claim in zip(found, wanted, strict=True):
            claim = claim if isinstance(claim, Claim) else Claim(claim)
            assert same(claim, number, unit), f"{number}{unit} is printed, {claim} is right, in: {line}"


class Case(NamedTuple):
    """A config, the data and machine it is planned for, and what follows from them, worked out by hand."""

    settings: dict[str, Any]
    train: int
    """images or windows"""
    val: int
    seconds: float | None
    """of a micro-batch; None where it would take too long to be timed"""
    positions: int
    """targets in an image or window"""
    parameters: int
    learning: int
    lessons: int | None
    """as the lessons count, where that is another number"""
    steps: int
    eval_every: int
    save_every: int
    step: float
    """seconds of one"""
    run: float
    """seconds of all"""
    state: int
    """numbers that the optimiser keeps"""
    gradients: int
    """bytes"""
    activations: int
    logits: tuple[int, int]
    """how many, and the bytes of all that is made of them"""
    peak: int
    cache: int
    flops: int
    """for one target"""
    copies: bool = True
    """whether the logits are said to be there four times"""
    processes: int = 1


def lessons_digits() -> Case:
    """configs/digits.toml: epochs, eval_every given, no validation split."""
    parameters = (784 * 16 + 16) + (16 * 16 + 16) + (16 * 10 + 10)
    steps = 30 * 60_000 // 10
    activations = 10 * (784 + 2 * 16 + 2 * 16) * 4
    return Case(
        settings=read(str(ROOT / "configs/digits.toml")),
        train=60_000, val=0, seconds=0.0011, positions=1,
        parameters=parameters, learning=parameters, lessons=None,
        steps=steps, eval_every=6_000, save_every=6_000,
        step=0.0011,
        run=steps * 0.0011 + 31 * (parameters * 4) / SAVING + AROUND,  # step 0 and 30 epochs are saved
        state=0,
        gradients=parameters * 4,
        activations=activations,
        logits=(10 * 10, 4 * 10 * 10 * 4),
        peak=parameters * 4 + activations + parameters * 4 + 10 * 10 * 4 + PROGRAM,  # while gradients are used
        cache=0,
        flops=4 * 784 * 16 + 6 * 16 * 16 + 6 * 16 * 10,  # nothing learns below the first layer
    )  # fmt: skip


def digits_by_muon() -> Case:
    """A part of an epoch more, two batches a step, ten evaluations, patience, checkpoints between evaluations."""
    weights = [784 * 32, 32 * 16, 16 * 10]
    parameters = sum(weights) + 32 + 16 + 10
    steps = 46  # 2.5 * 3,500 images are 45.6 steps of 2 * 96
    state = 2 * parameters - 784 * 32 - 32 * 16  # adamw's two of each, but one of each that muon takes
    looks = 1 + 10  # at 0, 5, 10, ..., 45, 46
    saves = looks + 5 - 1  # and at 8, 16, 24, 32, 40 of which 40 is one of them
    activations = 96 * (784 + 2 * 32 + 2 * 16) * 4
    logits = 96 * 10
    return Case(
        settings={
            "model.kind": "mlp", "model.sizes": [784, 32, 16, 10], "model.activation": "relu", "model.dropout": 0.2,
            "data.path": ["mnist"], "optim.name": "muon", "optim.momentum": 0.9, "train.epochs": 2.5,
            "train.batch_size": 96, "train.accumulate": 2, "train.save_every": 8, "train.patience": 3,
        },
        train=3_500, val=1_500, seconds=0.4, positions=1,
        parameters=parameters, learning=parameters, lessons=None,
        steps=steps, eval_every=5, save_every=8,
        step=2 * 0.4,
        run=steps * 0.8 + looks * (1_500 / 96 * 0.4 * EVALUATING) + saves * (parameters + state) * 4 / SAVING + AROUND,
        state=state,
        gradients=parameters * 4,
        activations=activations,
        logits=(logits, 4 * logits * 4),
        # before the second batch's backward pass the first one's gradients are there; muon then stacks one matrix
        peak=(2 * parameters + state) * 4 + activations + max(4 * logits * 4, 4 * 784 * 32 * 4) + PROGRAM,
        cache=0,
        flops=4 * 784 * 32 + 6 * 32 * 16 + 6 * 16 * 10,
    )  # fmt: skip


def small_gpt() -> Case:
    """Learned positions, tied, pre-norm, steps, nothing about evaluations said."""
    V, T, C, L, H, B = 65, 32, 48, 2, 3, 8
    block = 4 * C * C + 4 * C + 2 * 4 * C * C + 4 * C + C + 2 * 2 * C  # attention, MLP, two norms
    parameters = V * C + T * C + L * block + 2 * C
    vectors = 8 + 2 * 4  # before and after each norm, q, k, v, heads' findings; 4 C before and after gelu
    activations = B * T * ((L + 1) * (vectors * C * 4 + H * 4) + 2 * C * 4)
    logits, embedding = B * T * V, V * C
    looks = 1 + 10  # at 0, 11, 22, ..., 99 and at 101
    return Case(
        settings=GPT | {
            "model.vocab_size": V, "model.context_length": T, "model.n_embd": C, "model.n_layer": L, "model.n_head": H,
            "train.steps": 101, "train.batch_size": B,
        },
        train=500, val=30, seconds=0.031, positions=T,
        parameters=parameters, learning=parameters, lessons=2 * V * C + L * 12 * C * C,
        steps=101, eval_every=11, save_every=11,
        step=0.031,
        run=101 * 0.031 + looks * (30 / B * 0.031 * EVALUATING) + looks * 3 * parameters * 4 / SAVING + AROUND,
        state=2 * parameters,
        gradients=parameters * 4 + 2 * embedding * 4,
        activations=activations,
        logits=(logits, 4 * logits * 4),
        peak=3 * parameters * 4 + activations + max(4 * logits * 4, parameters * 4 + 2 * embedding * 4 + logits * 4)
        + PROGRAM,
        cache=2 * L * T * C * 4,
        flops=6 * (L * 12 * C * C + V * C) + L * 6 * (2 * T * C),  # q k and the pattern's sum: 2 T C each, three times
    )  # fmt: skip


def rotary_by_minutes() -> Case:
    """configs/shakespeare.toml with a budget of time instead: muon, no biases, ten evaluations would take too long."""
    V, T, C, L, H, B = 65, 128, 128, 4, 4, 8
    block = 12 * C * C + 2 * C
    parameters = V * C + L * block + C
    hidden = L * 12 * C * C
    state = 2 * (parameters - hidden) + hidden
    activations = B * T * ((L + 1) * (16 * C * 4 + H * 4) + 2 * C * 4)
    logits, embedding = B * T * V, V * C
    evaluation = 872 / B * 0.05 * EVALUATING
    evaluations = int(0.1 * 180 / evaluation)  # a tenth of three minutes is for them
    assert evaluations == 8
    steps = int((180 - 9 * evaluation) / 0.05)  # eight, and one before the first step
    eval_every = -(-steps // 8)
    settings = read(str(ROOT / "configs/shakespeare.toml")) | {"train.minutes": 3.0, "model.vocab_size": V}
    return Case(
        settings={name: value for name, value in settings.items() if name not in ("train.steps", "train.eval_every")},
        train=7_843, val=872, seconds=0.05, positions=T,
        parameters=parameters, learning=parameters, lessons=2 * V * C + L * 12 * C * C,
        steps=steps, eval_every=eval_every, save_every=eval_every,
        step=0.05,
        run=steps * 0.05 + 9 * evaluation + 9 * (parameters + state) * 4 / SAVING + AROUND,
        state=state,
        gradients=parameters * 4 + 2 * embedding * 4,
        activations=activations,
        logits=(logits, 4 * logits * 4),
        # muon stacks the up-projections of all blocks four times, which is more than the embedding's gradients
        peak=(parameters + state) * 4 + activations + parameters * 4 + 4 * L * 4 * C * C * 4 + PROGRAM,
        cache=2 * L * T * C * 4,
        flops=6 * (L * 12 * C * C + V * C) + L * 6 * (2 * T * C),
    )  # fmt: skip


def sinusoidal_post_norm() -> Case:
    """Untied, ReLU, rmsprop with momentum, minutes, evaluations and checkpoints as given."""
    V, T, C, L, H, B = 99, 64, 32, 3, 2, 4
    block = 12 * C * C + 9 * C + 4 * C
    parameters = 2 * V * C + L * block  # an unembedding of its own, and no norm after the last block
    activations = B * T * ((L + 1) * (12 * C * 4 + H * 4) + 2 * C * 4)  # relu needs only its output
    logits = B * T * V
    evaluation = 90 / B * 0.02 * EVALUATING
    steps = int((90 - evaluation) / (0.02 + evaluation / 50))
    looks = 1 + -(-steps // 50)
    saves = looks + -(-steps // 75) - -(-steps // 150)  # every 150 steps the two fall together
    return Case(
        settings=GPT | {
            "model.vocab_size": V, "model.context_length": T, "model.n_embd": C, "model.n_layer": L, "model.n_head": H,
            "model.position": "sinusoidal", "model.norm": "post", "model.activation": "relu", "model.tied": False,
            "optim.name": "rmsprop", "optim.momentum": 0.9,
            "train.minutes": 1.5, "train.batch_size": B, "train.eval_every": 50, "train.save_every": 75,
        },
        train=810, val=90, seconds=0.02, positions=T,
        parameters=parameters, learning=parameters, lessons=2 * V * C + L * 12 * C * C,
        steps=steps, eval_every=50, save_every=75,
        step=0.02,
        run=steps * 0.02 + looks * evaluation + saves * 3 * parameters * 4 / SAVING + AROUND,
        state=2 * parameters,
        gradients=parameters * 4,
        activations=activations,
        logits=(logits, 4 * logits * 4),
        peak=3 * parameters * 4 + activations + max(4 * logits * 4, parameters * 4 + logits * 4) + PROGRAM,
        cache=2 * L * T * C * 4,
        flops=6 * (L * 12 * C * C + V * C) + L * 6 * (2 * T * C),
    )  # fmt: skip


def adapters_on_two_processes() -> Case:
    """LoRA beside the queries and the down-projections, dropout, four batches a step shared by two processes."""
    V, T, C, L, H, B, R = 257, 64, 64, 2, 2, 6, 4
    adapters = (R * C + C * R) + (R * 4 * C + C * R)
    learning = L * adapters
    parameters = V * C + L * (12 * C * C + 2 * C) + C + learning
    activations = B * T * ((L + 1) * (16 * C * 4 + H * 4 + 2 * C * 4) + 2 * C * 4)
    logits = B * T * V
    step = 4 / 2 * 0.7
    first_query = 2 * C * C + 4 * R * C + 6 * C * R  # before the first A nothing learns
    others = 4 * (L * 12 * C * C - C * C) + 6 * (L * adapters - 2 * R * C)
    return Case(
        settings=GPT | {
            "model.vocab_size": V, "model.context_length": T, "model.n_embd": C, "model.n_layer": L, "model.n_head": H,
            "model.position": "rotary", "model.bias": False, "model.dropout": 0.1, "model.lora.rank": R,
            "model.lora.targets": ["query", "down"], "train.start": "x", "train.steps": 77, "train.batch_size": B,
            "train.accumulate": 4, "train.eval_every": 20, "train.threads": 2,
        },
        train=5_000, val=100, seconds=0.7, positions=T,
        parameters=parameters, learning=learning, lessons=2 * V * C + L * 12 * C * C,
        steps=77, eval_every=20, save_every=20,
        step=step,
        # a checkpoint has the adapters alone, their moments with them; at 0, 20, 40, 60 and 77
        run=77 * step + 5 * (100 / (B * 4) * step * EVALUATING) + 5 * 3 * learning * 4 / SAVING + AROUND,
        state=2 * learning,
        gradients=learning * 4,  # the embedding has none
        activations=activations,
        logits=(logits, 4 * logits * 4),
        peak=(parameters + 2 * learning) * 4 + activations + learning * 4 + 4 * logits * 4 + PROGRAM,
        cache=2 * L * T * C * 4,
        flops=first_query + others + 4 * V * C + L * 6 * (2 * T * C),
        processes=2,
    )  # fmt: skip


def frozen_below() -> Case:
    """Embedding and first block frozen, untied, sgd with momentum, epochs, a text too short to evaluate on."""
    V, T, C, L, H, B = 65, 16, 32, 3, 4, 5
    block = 12 * C * C + 9 * C + 4 * C
    parameters = 2 * V * C + T * C + L * block + 2 * C
    learning = 2 * block + 2 * C + V * C
    steps = 11  # 1.1 epochs of ten steps
    activations = B * T * ((L + 1) * (16 * C * 4 + H * 4) + 2 * C * 4)
    logits = B * T * V
    saves = 1 + 6  # at 0, 2, 4, ..., 10, 11
    # The first block: forward alone. In the second a norm learns, so gradients go through all of it and what is above.
    flops = 2 * 12 * C * C + 6 * (2 * 12 * C * C + V * C) + (2 + 6 + 6) * (2 * T * C)
    return Case(
        settings=GPT | {
            "model.vocab_size": V, "model.context_length": T, "model.n_embd": C, "model.n_layer": L, "model.n_head": H,
            "model.tied": False, "optim.name": "sgd", "optim.momentum": 0.9, "data.val_fraction": 0.0,
            "train.freeze": ["embedding", "blocks.0"], "train.epochs": 1.1, "train.batch_size": B,
        },
        train=50, val=0, seconds=12.0, positions=T,
        parameters=parameters, learning=learning, lessons=2 * V * C + L * 12 * C * C,
        steps=steps, eval_every=2, save_every=2,
        step=12.0,
        run=steps * 12.0 + saves * (parameters + learning) * 4 / SAVING + AROUND,
        state=learning,
        gradients=learning * 4,
        activations=activations,
        logits=(logits, 4 * logits * 4),
        peak=(parameters + learning) * 4 + activations + max(4 * logits * 4, learning * 4 + logits * 4) + PROGRAM,
        cache=2 * L * T * C * 4,
        flops=flops,
    )  # fmt: skip


def short_in_bfloat16() -> Case:
    """Half as many bytes for what products take and give; attention's patterns are stored."""
    V, T, C, L, H, B = 257, 128, 64, 2, 4, 3
    matrices = V * C + T * C + L * 12 * C * C
    parameters = matrices + L * 13 * C + 2 * C
    # in float32 what comes before each norm; 14 vectors in bfloat16 and two roundings of the first norm's output more
    block = 2 * C * 4 + 14 * C * 2 + 2 * C * 2 + H * 4 + H * T * 2 + 2 * C * 2
    activations = B * T * ((L + 1) * block + C * 4 + C * 2) + matrices * 2
    logits, embedding = B * T * V, V * C
    return Case(
        settings=GPT | {
            "model.vocab_size": V, "model.context_length": T, "model.n_embd": C, "model.n_layer": L, "model.n_head": H,
            "model.dropout": 0.1, "optim.name": "adam", "train.dtype": "bfloat16", "train.steps": 1_000,
            "train.batch_size": B, "train.accumulate": 2, "train.eval_every": 300, "train.save_every": 100,
        },
        train=2_000, val=200, seconds=0.25, positions=T,
        parameters=parameters, learning=parameters, lessons=2 * V * C + L * 12 * C * C,
        steps=1_000, eval_every=300, save_every=100,
        step=0.5,
        # evaluated at 0, 300, 600, 900, 1,000; saved every 100, which is at each of these too
        run=1_000 * 0.5 + 5 * (200 / 6 * 0.5 * EVALUATING) + 11 * 3 * parameters * 4 / SAVING + AROUND,
        state=2 * parameters,
        gradients=parameters * 4 + 2 * embedding * 4,
        activations=activations,
        logits=(logits, 4 * logits * 4 + logits * 2),  # and once in bfloat16
        peak=3 * parameters * 4 + activations
        + parameters * 4 + max(4 * logits * 4 + logits * 2, 2 * embedding * 4 + logits * 4) + PROGRAM,
        cache=2 * L * T * C * 4,
        flops=6 * (L * 12 * C * C + V * C) + L * 6 * (2 * T * C),
    )  # fmt: skip


def gpt2() -> Case:
    """configs/gpt2.toml: too slow here to be timed; long patterns aren't stored, and many logits are taken in parts."""
    V, T, C, L, H, B = 50_257, 1_024, 768, 12, 12, 16
    matrices = V * C + T * C + L * 12 * C * C
    parameters = matrices + L * 13 * C + 2 * C
    block = 2 * C * 4 + 14 * C * 2 + 2 * C * 2 + H * 4
    activations = B * T * ((L + 1) * block + C * 4 + C * 2) + matrices * 2
    logits, embedding = B * T * V, V * C
    loss = int(COPIES_IN_PARTS * logits * 2) + COPIES_OF_A_PART * 4 * 2**22
    flops = 6 * (L * 12 * C * C + V * C) + L * 6 * (2 * T * C)
    step = flops * 16 * 32 * T / (SPEED * CPU_SHARE["bfloat16"])
    return Case(
        settings=read(str(ROOT / "configs/gpt2.toml")) | {"train.dtype": "bfloat16"},
        train=8_765_432, val=44_000, seconds=None, positions=T,
        parameters=parameters, learning=parameters, lessons=2 * V * C + L * 12 * C * C,
        steps=100_000, eval_every=1_000, save_every=1_000,
        step=step,
        run=100_000 * step + 101 * (44_000 / 512 * step * EVALUATING) + 101 * 3 * parameters * 4 / SAVING + AROUND,
        state=2 * parameters,
        gradients=parameters * 4 + 2 * embedding * 4,
        activations=activations,
        logits=(logits, loss),
        peak=3 * parameters * 4 + activations + parameters * 4 + max(loss, 2 * embedding * 4 + logits * 4) + PROGRAM,
        cache=2 * L * T * C * 4,
        flops=flops,
        copies=False,
    )  # fmt: skip


GPT = {"model.kind": "gpt", "data.path": ["x"]}
HERE = {"train.device": "cpu", "train.threads": 1, "train.dtype": "float32"}
CASES = (
    lessons_digits, digits_by_muon, small_gpt, rotary_by_minutes, sinusoidal_post_norm, adapters_on_two_processes,
    frozen_below, short_in_bfloat16, gpt2,
)  # fmt: skip


def made_of(case: Case) -> Dataset:
    """A stand-in for the data: as many examples."""
    counts = {"train": case.train, "val": case.val}
    return SimpleNamespace(
        count=lambda split: counts.get(split, 0),
        positions=case.positions,
        sha256="",
        recipe=1,
        batch=len,
        in_order=iter,
    )  # type: ignore[return-value]


def asked(case: Case) -> Config:
    """The config as the user has it."""
    return check(HERE | case.settings, {})


@pytest.fixture
def machine(monkeypatch) -> None:
    """A machine that multiplies two matrices in PRODUCT seconds at best, and has ROOM bytes."""
    for module in (plan, dryrun):
        monkeypatch.setattr(module, "memory", lambda device: ROOM)
    products = cycle([3 * PRODUCT, PRODUCT, 2 * PRODUCT])
    monkeypatch.setattr(dryrun, "seconds_of_product", lambda matrix: next(products))
    monkeypatch.setattr("torch.set_num_threads", lambda number: None)


def network_claims(case: Case) -> list[Claim | float]:
    """How many parameters, and what share of them learns."""
    share = [case.learning, Claim(case.learning / case.parameters, "%")]
    return [case.parameters, *(share if case.learning < case.parameters else [])]


def on_gpus(total: float, count: int) -> list[list[Claim | float]]:
    """Time on so many A100s and H100s, by their data sheets."""
    return [
        [
            Claim(total / (count * tflops * 1e12 * GPU_SHARE), "time"),
            count,
            Claim(GPU_SHARE, "%"),
            Claim(tflops, "TFLOP/s"),
        ]
        for tflops in (312, 989)
    ]


@pytest.mark.parametrize("of", CASES)
def test_every_number_of_a_dry_run_is_claimed(of, machine):
    case = of()
    config, windows = asked(case), [case.positions] * (case.positions > 1)
    threads, batch, accumulate = config.train.threads, config.train.batch_size, config.train.accumulate
    targets = batch * accumulate * case.positions
    seen, speed = case.steps * targets, case.processes * SPEED
    total = case.flops * seen

    def time_step(config: Config) -> float:
        assert case.seconds and config.train.accumulate == 1
        return case.seconds

    kept = [[Claim(case.state * 4, "B"), case.state]] if case.state else []
    sampling = [[Claim(case.cache, "B")]] if case.cache else []
    share = case.flops * targets / case.step / speed
    printed = dryrun.plan_with_data(config, made_of(case), time_step, case.processes)
    require(
        printed,
        [
            network_claims(case),
            *([[case.lessons]] if case.lessons else []),
            [case.train, case.val],
            [case.steps, targets, Claim(seen, "billion") if seen > 10**10 else seen],
            [*([case.processes] if case.processes > 1 else []), threads, Claim(speed, "FLOP/s")],
            [Claim(case.parameters * 4, "B"), case.parameters, 4],
            [Claim(case.gradients, "B"), case.learning, 4],
            *kept,
            [Claim(case.activations, "B"), batch, *windows],
            [Claim(case.logits[1], "B"), case.logits[0], *([4] if case.copies else [])],
            [Claim(PROGRAM, "B")],
            [Claim(case.peak, "B"), Claim(ROOM, "B")],
            *sampling,
            [Claim(case.flops, "FLOP"), Claim(total, "FLOP")],
            [Claim(case.run, "time"), Claim(case.step, "step"), Claim(share, "%")],
            *(on_gpus(total, 1) if case.seconds is None else []),
        ],
    )


@pytest.mark.parametrize("of", CASES)
def test_every_number_of_the_plan_before_a_run_is_claimed(of, machine):
    case = of()
    config, seconds = resolve(asked(case), made_of(case), lambda config: case.step)
    assert (config.train.steps, config.train.eval_every, config.train.save_every) == (
        case.steps, case.eval_every, case.save_every,
    )  # fmt: skip
    a_step = config.train.batch_size * config.train.accumulate
    seen = case.steps * a_step
    require(
        describe(config, made_of(case), seconds),
        [
            network_claims(case),
            [case.train, case.val],
            [
                case.steps, a_step, seen * case.positions, Claim(seen / case.train), Claim(case.run, "time"),
                config.train.threads,
            ],
        ],
    )  # fmt: skip


@pytest.mark.parametrize("of", CASES)
def test_bytes_and_seconds_are_exact_where_the_print_is_rounded(of, machine):
    case = of()
    config, seconds = resolve(asked(case), made_of(case), lambda config: case.step)
    memory = memory_of(config)
    wanted = {
        "weights": case.parameters * 4, "gradients": case.gradients, "optimiser": case.state * 4,
        "activations": case.activations, "logits": case.logits[1], "program": PROGRAM,
    }  # fmt: skip
    assert {part.name: part.bytes for part in memory.parts} == wanted
    assert (memory.peak, memory.cache, forecast.flops(config)) == (case.peak, case.cache, case.flops)
    assert run_seconds(config, made_of(case), seconds) == pytest.approx(case.run, rel=1e-12)


def test_every_number_of_gpt_3_s_plan_is_claimed(capsys):
    V, T, C, L, H, B = 50_257, 2_048, 12_288, 96, 96, 1
    matrices = V * C + T * C + L * 12 * C * C
    parameters = matrices + L * 13 * C + 2 * C
    gradients = parameters * 4 + 2 * V * C * 4
    block = 2 * C * 4 + 14 * C * 2 + 2 * C * 2 + H * 4
    activations = B * T * ((L + 1) * block + C * 4 + C * 2) + matrices * 2
    logits = B * T * V
    loss = int(COPIES_IN_PARTS * logits * 2) + COPIES_OF_A_PART * 4 * 2**22
    # the first of 1,600 batches has left its gradients; a GPU has no program to count
    peak = 3 * parameters * 4 + activations + parameters * 4 + max(loss, 2 * V * C * 4 + logits * 4)
    targets = 1_600 * T
    flops = 6 * (L * 12 * C * C + V * C) + L * 6 * (2 * T * C)
    total = flops * targets * 91_500
    gpus = math.ceil(peak / 80e9)
    with pytest.raises(SystemExit):
        forecast.answer_at_once(Command(read(str(ROOT / "configs/gpt3.toml")), {}, "gpt3", False, False, True))
    claims = [
        [parameters],
        [2 * V * C + L * 12 * C * C],
        [91_500, targets, Claim(91_500 * targets, "billion")],
        [Claim(parameters * 4, "B"), parameters, 4],
        [Claim(gradients, "B"), parameters, 4],
        [Claim(2 * parameters * 4, "B"), 2 * parameters],
        [Claim(activations, "B"), B, T],
        [Claim(loss, "B"), logits],
        [Claim(peak, "B"), gpus, Claim(80e9, "B")],
        [Claim(2 * L * T * C * 4, "B")],
        [Claim(flops, "FLOP"), Claim(total, "FLOP")],
        *on_gpus(total, gpus),
    ]
    require(capsys.readouterr().out.strip(), claims)


@pytest.mark.parametrize("text_is_here", [True, False])
def test_every_number_of_a_plan_that_does_not_fit_is_claimed(machine, text_is_here):
    V, T, C, L, H, B = 50_257, 1_024, 768, 12, 12, 128
    parameters = V * C + T * C + L * (12 * C * C + 13 * C) + 2 * C
    always = 4 * parameters * 4 + PROGRAM  # weights, gradients and two moments

    def activations(batch: int) -> int:
        return batch * T * ((L + 1) * (16 * C * 4 + H * 4) + 2 * C * 4)

    def loss(batch: int) -> int:
        return int(COPIES_IN_PARTS * batch * T * V * 4) + COPIES_OF_A_PART * 4 * 2**22

    peak = always + activations(B) + loss(B)
    assert always + activations(8) + loss(8) <= ROOM < always + activations(16) + loss(16)
    flops = 6 * (L * 12 * C * C + V * C) + L * 6 * (2 * T * C)
    total = flops * B * 4 * T * 100_000
    gpus = math.ceil(peak / 80e9)
    settings = read(str(ROOT / "configs/gpt2.toml")) | HERE | {"train.batch_size": B, "train.accumulate": 4}
    config = check(settings, {})
    data = SimpleNamespace(
        count={"train": 9_000, "val": 70}.get, positions=T, sha256="", recipe=1, batch=len, in_order=iter
    )
    printed = dryrun.plan_with_data(config, data, time_step=never) if text_is_here else dryrun.plan_without_data(config)
    claims = [
        [parameters],
        [2 * V * C + L * 12 * C * C],
        [9_000, 70] if text_is_here else [],
        [100_000, B * 4 * T, Claim(B * 4 * T * 100_000, "billion")],
        [1, Claim(SPEED, "FLOP/s")],
        [Claim(parameters * 4, "B"), parameters, 4],
        [Claim(parameters * 4 + 2 * V * C * 4, "B"), parameters, 4],
        [Claim(2 * parameters * 4, "B"), 2 * parameters],
        [Claim(activations(B), "B"), B, T],
        [Claim(loss(B), "B"), B * T * V],
        [Claim(PROGRAM, "B")],
        [Claim(peak, "B"), Claim(ROOM, "B"), gpus, Claim(80e9, "B")],
        [8, 64],  # the same 512 windows a step
        [Claim(2 * L * T * C * 4, "B")],
        [Claim(flops, "FLOP"), Claim(total, "FLOP")],
        *on_gpus(total, gpus),
    ]
    require(printed, claims)


@pytest.mark.parametrize("text_is_here", [True, False])
@pytest.mark.parametrize(("dtype", "each"), [("auto", 2), ("bfloat16", 2), ("float32", 4)])
def test_what_only_gpus_could_hold_is_planned_in_their_precision(machine, monkeypatch, dtype, each, text_is_here):
    for module in (plan, dryrun):
        monkeypatch.setattr(module, "memory", lambda device: 10_000)
    V, T, C, L, H, B = 257, 8, 16, 2, 2, 32
    settings = GPT | SMALL | {"train.device": "cpu", "train.threads": 1, "train.dtype": dtype}
    settings |= {"model.vocab_size": V, "data.path": ["not-here.txt"]}
    data = SimpleNamespace(
        count={"train": 900, "val": 7}.get, positions=T, sha256="", recipe=1, batch=len, in_order=iter
    )
    config = check(settings, {})
    printed = dryrun.plan_with_data(config, data, time_step=never) if text_is_here else dryrun.plan_without_data(config)
    assert printed
    block = 2 * C * 4 + 14 * C * each + H * 4 + (2 * C * 2 if each == 2 else 0)
    casts = 2 * (V * C + T * C + L * 12 * C * C) if each == 2 else 0
    activations = B * T * ((L + 1) * block + C * (4 + each)) + casts
    row = next(line for line in printed.splitlines() if line.strip().startswith("activations"))
    require(row, [[Claim(activations, "B"), B, T]])


def never(config: Config) -> float:
    """In place of timing a step where none may be made."""
    raise AssertionError("a step was made")


def test_what_waits_for_its_text_is_planned_by_arithmetic_alone(machine):
    V, T, C, L = 257, 64, 96, 3
    settings = GPT | HERE | {
        "model.n_layer": L, "model.n_head": 2, "model.n_embd": C, "model.context_length": T, "train.steps": 5_000,
        "train.batch_size": 16, "data.tokenizer": "byte", "data.path": ["not-here.txt"],
    }  # fmt: skip
    printed = dryrun.plan_without_data(check(settings, {}))
    assert printed
    flops = 6 * (L * 12 * C * C + V * C) + L * 6 * (2 * T * C)
    step = flops * 16 * T / (SPEED * CPU_SHARE["float32"])
    require(printed.splitlines()[0], [[V * C + T * C + L * (12 * C * C + 13 * C) + 2 * C]])  # 256 bytes, end-of-text
    time, *gpus = printed.splitlines()[-3:]
    require(time, [[Claim(5_000 * step, "time"), Claim(step, "step"), Claim(CPU_SHARE["float32"], "%")]])
    require("\n".join(gpus), on_gpus(flops * 16 * T * 5_000, 1))


@pytest.mark.parametrize(
    ("name", "momentum", "each"),
    [("sgd", 0.0, 2), ("sgd", 0.9, 3), ("rmsprop", 0.0, 3), ("rmsprop", 0.9, 4), ("adam", 0.0, 4), ("adamw", 0.0, 4)],
)
def test_a_run_too_large_for_the_memory_is_refused_with_what_it_needs(monkeypatch, name, momentum, each):
    sizes = {"model.kind": "mlp", "model.sizes": [784, 30_000, 30_000, 10], "data.path": ["mnist"], "train.steps": 1}
    parameters = 784 * 30_000 + 30_000 + 30_000 * 30_000 + 30_000 + 30_000 * 10 + 10
    config = check(sizes | HERE | {"optim.name": name, "optim.momentum": momentum}, {})
    need = each * parameters * 4  # weights, gradients, and what the optimiser keeps of each
    monkeypatch.setattr(plan, "memory", lambda device: need)
    plan.require_memory(config)
    monkeypatch.setattr(plan, "memory", lambda device: need - 1)
    with pytest.raises(UserError) as refused:
        plan.require_memory(config)
    words = str(refused.value).split(";")
    sizes_in_gb = f"need {need / 1e9:,.0f} GB, this machine has {(need - 1) / 1e9:,.0f} GB"
    assert f"{parameters:,}" in words[0] and sizes_in_gb in words[1]


@pytest.mark.parametrize("more", [{}, {"train.start": "x", "model.lora.rank": 2}, {"train.freeze": ["blocks.0"]}])
@pytest.mark.parametrize("name", ["sgd", "adamw", "muon"])
def test_a_checkpoint_is_as_large_as_planned(tmp_path, name, more):
    config = check(GPT | HERE | SMALL | {"optim.name": name, "optim.momentum": 0.9} | more, {})
    network = build_network(config)
    optimizers = build_optimizers(network, config.optim)
    cross_entropy(network(torch.zeros(2, 8, dtype=torch.long)), torch.ones(2, 8, dtype=torch.long)).backward()
    for optimizer in optimizers:
        optimizer.step()
    folder = checkpoint.save(tmp_path, checkpoint.State(step=1, log_bytes=0), network, optimizers)
    tensors = [read_tensors(file, None) for file in folder.glob("*.safetensors")]
    there = sum(t.nbytes for some in tensors for key, t in some.items() if t.is_floating_point() and t.ndim)
    assert there == checkpoint_bytes(config)


SMALL = {
    "model.n_layer": 2, "model.n_head": 2, "model.n_embd": 16, "model.context_length": 8, "model.vocab_size": 20,
    "train.steps": 1,
}  # fmt: skip


@pytest.mark.parametrize(
    ("epochs", "images", "batch", "steps"),
    [
        (1.1, 100, 10, 11),
        (0.7, 70, 7, 7),
        (3, 7, 49, 1),
        (0.001, 10, 10, 1),
        (2, 101, 10, 21),
        (30, 60_000, 10, 180_000),
    ],
)
def test_epochs_are_as_many_steps_as_cover_them_and_no_more(machine, epochs, images, batch, steps):
    settings = {"model.kind": "mlp", "data.path": ["mnist"], "train.epochs": epochs, "train.batch_size": batch}
    data = SimpleNamespace(count=lambda split: images, positions=1, sha256="", recipe=1, batch=len, in_order=iter)
    assert resolve(check(HERE | settings, {}), data, lambda config: 1.0)[0].train.steps == steps


def test_a_step_of_many_batches_is_timed_where_one_batch_takes_no_patience(machine):
    timed: list[Config] = []
    settings = HERE | GPT | SMALL | {"train.accumulate": 1_000_000}
    data = SimpleNamespace(
        count={"train": 900, "val": 7}.get, positions=8, sha256="", recipe=1, batch=len, in_order=iter
    )
    step = (6 * (2 * 12 * 16 * 16 + 20 * 16) + 2 * 6 * (2 * 8 * 16)) * 32 * 8 * 1_000_000 / SPEED / CPU_SHARE["float32"]
    assert step > 5.0 > step / 1_000_000  # seconds
    dryrun.plan_with_data(check(settings, {}), data, lambda config: timed.append(config) or 0.001)
    assert [config.train.accumulate for config in timed] == [1]


@pytest.mark.parametrize(
    ("times", "median"),
    [
        ([9.0, 0.3, 0.2, 0.6], 0.3),  # the first is left out; then a second of them
        ([9.0, 6.0], 6.0),  # one that takes long is enough
        ([9.0, 0.7, 0.5], 0.5),  # two at least; of two the quicker, for the other may have waited for memory
        ([9.0, *20 * [0.01]], 0.01),  # twenty at most
    ],
)
def test_a_step_takes_the_median_of_some(monkeypatch, times, median):
    made: list[int] = []
    monkeypatch.setattr(plan, "build_learner", lambda config, data: None)
    monkeypatch.setattr(plan.time, "perf_counter", lambda: sum(times[: len(made)]))
    data = made_of(lessons_digits())
    found = plan.seconds_per_step(lambda learner, step: made.append(step), data, asked(lessons_digits()))
    assert found == pytest.approx(median) and made == list(range(len(times)))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"), (1, "1 s"), (89.4, "89 s"), (95, "2 min"), (170, "3 min"), (5_399, "90 min"), (5_400, "1.5 h"),
        (100_000, "27.8 h"), (172_799, "48.0 h"), (172_800, "2 days"), (86_400 * 45.4, "45 days"),
        (86_400 * 729, "729 days"), (86_400 * 730, "2 years"), (86_400 * 365 * 1_234.4, "1,234 years"),
    ],
)  # fmt: skip
def test_durations_are_said_in_the_unit_that_fits(seconds, text):
    assert duration(seconds) == text


@given(st.floats(1e-3, 1e26))
def test_a_number_with_a_prefix_is_the_number(value):
    number, unit = scaled(value, "B").split()
    assert same(Claim(value, "B"), number, unit), (number, unit)


def test_a_number_just_below_a_prefix_takes_it():
    assert [scaled(value, "B") for value in (999_499, 999_500, 0.9996, 1_234)] == ["999 kB", "1 MB", "1 B", "1.23 kB"]


# Dense bfloat16 (float16 for V100 and T4) in TFLOP/s and memory in GB, as NVIDIA's data sheets have them.
SHEETS = {
    "NVIDIA B200": (2250, 180), "NVIDIA H200": (989, 141), "NVIDIA H100 PCIe": (756, 80),
    "NVIDIA H100 80GB HBM3": (989, 80), "NVIDIA A100-SXM4-80GB": (312, 80), "NVIDIA A100-SXM4-40GB": (312, 40),
    "NVIDIA A100 80GB PCIe": (312, 80), "NVIDIA L40S": (362, 48), "NVIDIA L4": (121, 24), "NVIDIA A10G": (70, 24),
    "NVIDIA A10": (125, 24), "NVIDIA RTX A6000": (155, 48), "Tesla V100-SXM2-16GB": (125, 16), "Tesla T4": (65, 16),
    "NVIDIA GeForce RTX 5090": (210, 32), "NVIDIA GeForce RTX 4090": (165, 24), "NVIDIA GeForce RTX 3090": (71, 24),
}  # fmt: skip


@pytest.mark.parametrize("name", SHEETS)
def test_a_gpu_is_as_fast_as_its_data_sheet_says(monkeypatch, name):
    monkeypatch.setattr(dryrun, "choose_device", lambda asked: asked)
    monkeypatch.setattr(dryrun, "memory", lambda device: ROOM)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device: name)
    settings = GPT | SMALL | {"train.device": "cuda", "train.dtype": "bfloat16", "train.threads": 1}
    tflops, gigabytes = SHEETS[name]
    place = dryrun.this_place(check(settings, {}), processes=3)
    assert (place.speed, place.source, place.memory) == (pytest.approx(3 * tflops * 1e12), "data sheet", ROOM)
    assert place.name == f"3 x {name}, bfloat16"
    assert any((gpu.tflops, gpu.gigabytes) == (tflops, gigabytes) for known, gpu in GPUS.items() if known in name)


@pytest.mark.parametrize(
    ("device", "dtype", "rows"), [("cuda", "float32", 8_192), ("cpu", "float32", 1_024), ("mps", "float32", 4_096)]
)
def test_the_speed_of_other_devices_is_that_of_a_matrix_product(monkeypatch, device, dtype, rows):
    made: list[tuple[int, ...]] = []
    monkeypatch.setattr("torch.ones", lambda *shape, **more: made.append(shape) or torch.empty(1, 1))
    monkeypatch.setattr(dryrun, "seconds_of_product", lambda matrix: 0.5)
    assert dryrun.product_speed(device, dtype) == pytest.approx(2 * rows * rows * rows / 0.5)
    assert made == [(rows, rows)]


def test_the_largest_gpu_is_the_limit_of_what_one_device_could_hold():
    assert (LARGEST, GPU_BYTES) == (180 * 10**9, 80 * 10**9)
    assert [gpus_for(peak) for peak in (1, 80 * 10**9, 80 * 10**9 + 1, 3_250 * 10**9)] == [1, 1, 2, 41]


def test_memory_is_all_pages_of_the_machine(monkeypatch):
    monkeypatch.setattr("os.sysconf", {"SC_PAGE_SIZE": 4_096, "SC_PHYS_PAGES": 1_000_000}.get)
    assert plan.memory("cpu") == 4_096_000_000


def test_a_bfloat16_step_on_a_gpu_is_planned_at_its_share(machine):
    place = forecast.Place("two H100s", 2 * 989e12, "data sheet", ROOM)
    config = check(GPT | SMALL | {"train.device": "cuda", "train.dtype": "bfloat16", "train.threads": 1}, {})
    flops = 6 * (2 * 12 * 16 * 16 + 20 * 16) + 2 * 6 * (2 * 8 * 16)
    assert dryrun.by_arithmetic(config, place.speed) == pytest.approx(flops * 32 * 8 / (2 * 989e12 * 0.4))

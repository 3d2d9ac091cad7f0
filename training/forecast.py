"""The --dry-run table: parameters, memory, floating-point operations, time, number of GPUs.

Works without torch, so that the plan of a network too large for any single device prints instantly.
benchmarks/results/plan.json compares these estimates with real runs.
"""

from typing import NamedTuple

from configs.command import Command, check
from configs.schema import Config, GPTConfig, MLPConfig
from training.clock import duration
from training.cost import count_parameters, state_bytes, what_learns
from training.footprint import in_smaller_batches, memory_of
from training.gpus import GPU_BYTES, GPU_SHARE, GPUS, LARGEST, gpus_for
from training.tally import lesson_tally
from training.validation import costs

# Training speed as a share of matrix-product speed: medians of nine runs of benchmarks.plan in each precision.
CPU_SHARE = {"float32": 0.57, "bfloat16": 0.13}


def flops(config: Config) -> int:
    """Floating-point operations per target (a token, an image), forward and backward.

    Two per weight forward; two for the weight's gradient if it is trained; two for its input's gradient if anything
    before it is trained. Attention is counted over the full context, without the savings of causal masking.
    """
    parameters, model, total, below = what_learns(config), config.model, 0, False
    if isinstance(model, GPTConfig) and model.tied:
        parameters = [*parameters, parameters[0]._replace(name="unembedding.weight")]
    for p in parameters:
        if isinstance(model, GPTConfig) and p.name.endswith("attention.out.weight"):  # after Q Kᵀ and the weighted sum
            total += 2 * model.context_length * model.n_embd * (2 + 4 * below)
        if len(p.shape) == 2 and not p.name.startswith("embedding."):
            total += p.count * (2 + 2 * p.learns + 2 * below)
        below = below or p.learns
    return total


def targets_in_a_step(config: Config) -> int:
    """Tokens or images per step."""
    each = config.model.context_length if isinstance(config.model, GPTConfig) else 1
    return config.train.batch_size * config.train.accumulate * each


def vocabulary(config: Config) -> int | None:
    """The vocabulary size, if it is known without reading the text."""
    model, data = config.model, config.data
    if isinstance(model, GPTConfig) and "vocab_size" in model.model_fields_set:
        return model.vocab_size
    return {"gpt2": 50257, "byte": 257, "bpe": data.vocab_size}.get(data.tokenizer)


class Place(NamedTuple):
    """The device that a run is planned for."""

    name: str
    speed: float
    """FLOP/s in a matrix product"""
    source: str
    """of the speed: data sheet or measured"""
    memory: int | None
    """bytes; None if unknown"""


class Time(NamedTuple):
    """How long a run takes on that device."""

    step: float
    """seconds"""
    run: float
    """seconds of all steps, evaluations and checkpoints"""
    timed: bool
    """from trial steps; else estimated from the number of operations"""


def answer_at_once(command: Command) -> None:
    """Print the plan and exit (SystemExit) if the network is too large for any single device."""
    config = check(command.settings, command.origins)
    if not stands_alone(config) or config.train.freeze:  # checking that the parts to freeze exist needs torch
        return
    config = for_gpus(with_known_vocabulary(config))
    if state_bytes(config) > LARGEST:
        print(table(config, None, None))
        raise SystemExit(0)


def stands_alone(config: Config) -> bool:
    """Whether the network's size and the number of steps are known without the data."""
    known = isinstance(config.model, GPTConfig) and config.train.start is None and vocabulary(config)
    return bool(known and config.train.steps)


def with_known_vocabulary(config: Config) -> Config:
    """The config with its tokenizer's vocabulary size."""
    assert isinstance(config.model, GPTConfig)
    return config.model_copy(update={"model": config.model.model_copy(update={"vocab_size": vocabulary(config)})})


def for_gpus(config: Config) -> Config:
    """The config for training on GPUs: in bfloat16 unless it sets a precision."""
    dtype = "bfloat16" if config.train.dtype == "auto" else config.train.dtype
    return config.model_copy(update={"train": config.train.model_copy(update={"device": "cuda", "dtype": dtype})})


def table(config: Config, place: Place | None, time: Time | None, data: str = "") -> str:
    """The plan as a table: label, amount, explanation."""
    rows = [("network", line) for line in network_lines(config)]
    rows += [("data", data)] if data else []
    rows += [("run", run_line(config))]
    if place:
        rows.append(("device", f"{place.name}: {scaled(place.speed, 'FLOP/s')} in a matrix product ({place.source})"))
    memory = memory_of(config)
    width = max(len(scaled(part.bytes, "B")) for part in memory.parts)
    for part in [part for part in memory.parts if part.bytes]:
        rows.append(("memory", f"{part.name:<12}{scaled(part.bytes, 'B'):>{width}}   {part.why}"))
    rows.append(("", f"{'peak':<12}{scaled(memory.peak, 'B'):>{width}}   {fits(memory.peak, place)}"))
    if place and place.memory and memory.peak > place.memory and (smaller := in_smaller_batches(config, place.memory)):
        batches = f"--train.batch_size {smaller.train.batch_size} --train.accumulate {smaller.train.accumulate}"
        rows.append(("", f"the same steps fit with smaller batches: {batches}"))
    if memory.cache:
        rows.append(("sampling", f"the key-value cache takes {scaled(memory.cache, 'B')} for a full context"))
    each, total = flops(config), flops(config) * targets_in_a_step(config) * (config.train.steps or 0)
    unit = "token" if isinstance(config.model, GPTConfig) else "image"
    work = f"{scaled(each, 'FLOP')} per {unit} (forward and backward), {scaled(total, 'FLOP')} in total"
    rows.append(("arithmetic", work))
    rows += time_rows(config, place, time, memory.peak, total)
    shown = [("" if i and rows[i - 1][0] == name else name, text) for i, (name, text) in enumerate(rows)]
    return "\n".join(f"{name:<12}{text}".rstrip() for name, text in shown)


def network_lines(config: Config) -> list[str]:
    """The number of parameters: exact, and as the lessons count if that differs."""
    assert isinstance(config.model, MLPConfig | GPTConfig)
    count, learning = count_parameters(config), count_parameters(config, learning=True)
    share = "" if learning == count else f", {learning:,} of them trainable ({learning / count:.2%})"
    lesson = sum(row.total for row in lesson_tally(config.model))
    if lesson == count:
        return [f"{count:,} parameters{share}"]
    adapters = ", adapters" if isinstance(config.model, GPTConfig) and config.model.lora else ""
    difference = f"no biases, norms{adapters} or positions; separate unembedding"
    return [f"{count:,} parameters{share}", f"{lesson:,} counted as in the lessons ({difference})"]


def run_line(config: Config) -> str:
    train, targets = config.train, targets_in_a_step(config)
    unit = "tokens" if isinstance(config.model, GPTConfig) else "images"
    steps, seen = train.steps or 0, (train.steps or 0) * targets
    amount = f"{seen / 1e9:,.0f} billion" if seen > 10**10 else f"{seen:,}"
    method = f"{costs(config)}, {config.optim.name}"
    return f"{steps:,} step{'s' * (steps != 1)} of {targets:,} {unit} = {amount} {unit}; {method}"


def fits(peak: int, place: Place | None) -> str:
    """Whether `peak` bytes fit on the device, and how many GPUs they need if not."""
    available = f"this machine's {scaled(place.memory, 'B')}" if place and place.memory else ""
    if place and place.memory and peak <= place.memory:
        return f"fits in {available}"
    gpus = gpus_for(peak)
    needs = f"needs {gpus:,} GPU{'s' * (gpus > 1)} of {GPU_BYTES // 10**9} GB"
    return f"does not fit in {available}; {needs}" if available else f"{needs}{', split evenly' * (gpus > 1)}"


def time_rows(config: Config, place: Place | None, time: Time | None, peak: int, total: int) -> list[tuple[str, str]]:
    """How long the run takes on this device; on A100s and H100s too, unless trial steps were timed."""
    rows = []
    if place and time:
        share = flops(config) * targets_in_a_step(config) / time.step / place.speed
        source = "timed on trial steps" if time.timed else "estimated"
        each = f"{scaled(time.step, 's') if time.step < 90 else duration(time.step)} per step ({source})"
        rows.append(("time", f"{duration(time.run)}; {each}, {share:.0%} of the device's speed"))
    if not (time and time.timed):
        gpus = gpus_for(peak)
        for name in ("A100", "H100"):
            seconds = total / (gpus * GPUS[name].tflops * 10**12 * GPU_SHARE)
            devices = f"{gpus:,} {name}{'s' * (gpus > 1)}, bfloat16"
            rows.append(
                ("time", f"{duration(seconds)} on {devices}, at {GPU_SHARE:.0%} of {GPUS[name].tflops:g} TFLOP/s")
            )
    return rows


def scaled(value: float, unit: str) -> str:
    """The value with an SI prefix, one to three digits before the point: 3.14e23 -> "314 ZFLOP"."""
    rounded = float(f"{value:.3g}")  # 999,999 bytes are 1 MB, not 1e+03 kB
    for power, prefix in ((24, "Y"), (21, "Z"), (18, "E"), (15, "P"), (12, "T"), (9, "G"), (6, "M"), (3, "k"), (0, "")):
        if rounded >= 10**power:
            return f"{rounded / 10**power:.3g} {prefix}{unit}"
    return f"{rounded * 1000:.3g} m{unit}" if value else f"0 {unit}"

"""What a run will take, as a table: parameters, memory, floating-point operations, time, how many GPUs.

Nothing here needs torch, so that the plan of a network that no single device could hold comes at once.
benchmarks/results/plan.json has how far real runs are from it.
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

# Of a matrix product's speed, what training reaches: the medians of nine runs of benchmarks.plan in each precision.
CPU_SHARE = {"float32": 0.57, "bfloat16": 0.13}


def flops(config: Config) -> int:
    """Floating-point operations of one target (a token, an image), forward and backward.

    Two for each weight forward; two for its gradient if it learns; two for its input's if anything before it learns.
    Attention is counted over the whole context, as if nothing were hidden.
    """
    found, model, total, below = what_learns(config), config.model, 0, False
    if isinstance(model, GPTConfig) and model.tied:
        found = [*found, found[0]._replace(name="unembedding.weight")]
    for p in found:
        if isinstance(model, GPTConfig) and p.name.endswith("attention.out.weight"):  # it reads the heads' findings
            total += 2 * model.context_length * model.n_embd * (2 + 4 * below)
        if len(p.shape) == 2 and not p.name.startswith("embedding."):
            total += p.count * (2 + 2 * p.learns + 2 * below)
        below = below or p.learns
    return total


def targets_in_a_step(config: Config) -> int:
    """Tokens or images that one step learns from."""
    each = config.model.context_length if isinstance(config.model, GPTConfig) else 1
    return config.train.batch_size * config.train.accumulate * each


def vocabulary(config: Config) -> int | None:
    """How many tokens there will be, as far as that is known before the text is read."""
    model, data = config.model, config.data
    if isinstance(model, GPTConfig) and "vocab_size" in model.model_fields_set:
        return model.vocab_size
    return {"gpt2": 50257, "byte": 257, "bpe": data.vocab_size}.get(data.tokenizer)


class Place(NamedTuple):
    """Where a run is planned for."""

    name: str
    speed: float
    """floating-point operations a second in a matrix product"""
    source: str
    """of the speed"""
    memory: int | None
    """bytes"""


class Time(NamedTuple):
    """How long it takes there."""

    step: float
    """seconds"""
    run: float
    """seconds of all steps, evaluations and checkpoints"""
    timed: bool
    """whether real steps were timed; else it follows from the operations"""


def answer_at_once(command: Command) -> None:
    """Print the plan and leave (SystemExit), as --help does, if it is of a network that no single device could hold."""
    config = check(command.settings, command.origins)
    if not stands_alone(config) or config.train.freeze:  # torch knows whether there is what is to be frozen
        return
    config = for_gpus(with_known_vocabulary(config))
    if state_bytes(config) > LARGEST:
        print(table(config, None, None))
        raise SystemExit(0)


def stands_alone(config: Config) -> bool:
    """Whether its network and length are known without its data."""
    known = isinstance(config.model, GPTConfig) and config.train.start is None and vocabulary(config)
    return bool(known and config.train.steps)


def with_known_vocabulary(config: Config) -> Config:
    """The config with as many tokens as its tokenizer will have."""
    assert isinstance(config.model, GPTConfig)
    return config.model_copy(update={"model": config.model.model_copy(update={"vocab_size": vocabulary(config)})})


def for_gpus(config: Config) -> Config:
    """The config as GPUs would train it: products in bfloat16 unless it says otherwise."""
    dtype = "bfloat16" if config.train.dtype == "auto" else config.train.dtype
    return config.model_copy(update={"train": config.train.model_copy(update={"device": "cuda", "dtype": dtype})})


def table(config: Config, place: Place | None, time: Time | None, data: str = "") -> str:
    """The plan as a table: what, how much, why."""
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
        rows.append(("", f"or the same steps in smaller batches: {batches}"))
    if memory.cache:
        rows.append(("sampling", f"keys and values of a full context take {scaled(memory.cache, 'B')}"))
    each, total = flops(config), flops(config) * targets_in_a_step(config) * (config.train.steps or 0)
    unit = "token" if isinstance(config.model, GPTConfig) else "image"
    rows.append(
        ("arithmetic", f"{scaled(each, 'FLOP')} for each {unit} there and back, {scaled(total, 'FLOP')} in all")
    )
    rows += time_rows(config, place, time, memory.peak, total)
    shown = [("" if i and rows[i - 1][0] == name else name, text) for i, (name, text) in enumerate(rows)]
    return "\n".join(f"{name:<12}{text}".rstrip() for name, text in shown)


def network_lines(config: Config) -> list[str]:
    """How many parameters, by both tallies."""
    assert isinstance(config.model, MLPConfig | GPTConfig)
    count, learning = count_parameters(config), count_parameters(config, learning=True)
    share = "" if learning == count else f", of which {learning:,} ({learning / count:.2%}) learn"
    lesson = sum(row.total for row in lesson_tally(config.model))
    if lesson == count:
        return [f"{count:,} parameters{share}"]
    adapters = ", adapters" if isinstance(config.model, GPTConfig) and config.model.lora else ""
    left_out = f"without biases, norms{adapters} and positions, with an unembedding of its own"
    return [f"{count:,} parameters{share}", f"{lesson:,} as the lessons count: {left_out}"]


def run_line(config: Config) -> str:
    """How many steps and targets."""
    train, targets = config.train, targets_in_a_step(config)
    unit = "tokens" if isinstance(config.model, GPTConfig) else "images"
    steps, seen = train.steps or 0, (train.steps or 0) * targets
    all_of_them = f"{seen / 1e9:,.0f} billion" if seen > 10**10 else f"{seen:,}"
    how = f"{costs(config)}, {config.optim.name}"
    return f"{steps:,} step{'s' * (steps != 1)} of {targets:,} {unit} = {all_of_them} {unit}; {how}"


def fits(peak: int, place: Place | None) -> str:
    """Whether there is so much memory, and how many GPUs have it."""
    here = f"into the {scaled(place.memory, 'B')} here" if place and place.memory else ""
    if place and place.memory and peak <= place.memory:
        return f"at once; fits {here}"
    gpus = gpus_for(peak)
    needs = f"needs {gpus:,} GPU{'s' * (gpus > 1)} of {GPU_BYTES // 10**9} GB"
    return f"does not fit {here}; {needs}" if here else f"{needs}{', all of it shared out between them' * (gpus > 1)}"


def time_rows(config: Config, place: Place | None, time: Time | None, peak: int, total: int) -> list[tuple[str, str]]:
    """How long it takes here or, if nothing could be timed, on GPUs too."""
    rows = []
    if place and time:
        share = flops(config) * targets_in_a_step(config) / time.step / place.speed
        how = "timed on real ones" if time.timed else "not timed"
        a_step = f"{scaled(time.step, 's') if time.step < 90 else duration(time.step)} a step ({how})"
        rows.append(("time", f"{duration(time.run)}; {a_step}, {share:.0%} of the device's speed"))
    if not (time and time.timed):
        gpus = gpus_for(peak)
        for name in ("A100", "H100"):
            seconds = total / (gpus * GPUS[name].tflops * 10**12 * GPU_SHARE)
            where = f"{gpus:,} {name}{'s' * (gpus > 1)}, bfloat16"
            rows.append(
                ("time", f"{duration(seconds)} on {where}, at {GPU_SHARE:.0%} of {GPUS[name].tflops:g} TFLOP/s")
            )
    return rows


def scaled(value: float, unit: str) -> str:
    """A number with the prefix that leaves one to three digits before the point: 3.14e23 FLOP is 314 ZFLOP."""
    rounded = float(f"{value:.3g}")  # 999,999 bytes are 1 MB, not 1e+03 kB
    for power, prefix in ((24, "Y"), (21, "Z"), (18, "E"), (15, "P"), (12, "T"), (9, "G"), (6, "M"), (3, "k"), (0, "")):
        if rounded >= 10**power:
            return f"{rounded / 10**power:.3g} {prefix}{unit}"
    return f"{rounded * 1000:.3g} m{unit}" if value else f"0 {unit}"

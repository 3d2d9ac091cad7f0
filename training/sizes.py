"""Choose the network size and the other settings that a config of kind "auto" leaves open, from the text and the time.

The rule: try networks from the smallest up and time each for a second on this machine. Take the largest that sees at
least TOKENS_EACH tokens per parameter within the budget, counting PASSES epochs at most, because more would overfit.
Settings made by the user are kept. The constants come from experiments, see benchmarks/README.md.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from configs.command import check, flatten, merge
from configs.errors import UserError
from configs.schema import Config, GPTConfig
from data.corpus import open_corpus
from data.dataset import Dataset
from data.prepare import prepare
from data.shards import Prepared
from data.text import Text
from data.tokenizer import Tokenizer
from training.clock import duration
from training.device import memory_explained
from training.plan import count_parameters, on_this_machine, require_memory
from training.report import say

TOKENS_EACH = 1.0
PASSES = 30
FEWEST_STEPS = 200  # even for a poem
STEPS_IN_A_PASS = 8
HELD_OUT = 200_000  # bytes; enough for validation, however long the text
TOO_SHORT = 2_000  # bytes; a tenth of less is too small a validation split
BUSY = 0.85  # share of the time budget spent on steps; the rest is evaluation
DROPOUT = 0.1
RATES = {  # by optimiser; others keep the rates of the config
    "muon": {"optim.lr": 1.5e-2, "optim.muon_lr": 4e-2},
    "adamw": {"optim.lr": 3e-3},
}
TUNING = 1 / 3  # of these when fine-tuning, to preserve what the base has learned


class Size(NamedTuple):
    """A network size to try; each costs about twice as much per token as the one before."""

    n_layer: int
    n_head: int
    n_embd: int
    context_length: int
    batch_size: int


LADDER = (
    Size(2, 2, 64, 64, 16),
    Size(4, 2, 64, 64, 16),
    Size(4, 2, 96, 64, 16),
    Size(4, 2, 128, 128, 16),
    Size(4, 3, 192, 128, 16),
    Size(6, 4, 256, 128, 24),
    Size(6, 6, 384, 256, 16),
    Size(8, 8, 512, 512, 16),
    Size(12, 12, 768, 1024, 16),
)


class Choice(NamedTuple):
    """A setting that the config left open, its value, and the reason."""

    name: str
    """dotted"""
    value: Any
    reason: str


BLOCKS = (
    Choice("model.position", "rotary", "relative positions transfer across the context, so it needs fewer steps"),
    Choice("model.activation", "gelu", "as good as gelu_tanh at a third of the cost on a CPU"),
)


class Trial(NamedTuple):
    """A network that was tried, and how much training the budget allows it."""

    sizes: dict[str, Any]
    """the settings that were left open, by name"""
    config: Config
    parameters: int
    seconds: float
    """per step"""
    steps: int
    """within the budget"""
    passes: float
    """epochs in that many steps"""
    seen: float
    """tokens per parameter, counting PASSES epochs at most"""


def plan_text(
    asked: Config, tokenizer: Tokenizer | None, time_step: Callable[[Dataset, Config], float]
) -> tuple[Config, Text]:
    """The config with a value for every open setting, and its text; prints the choices with their reasons.

    When fine-tuning, `asked` has the network of train.start and `tokenizer` is that network's. Raises UserError.
    """
    corpus = open_corpus(asked.data)
    settings = flatten(asked.model_dump(exclude_unset=True, exclude_none=True)) | {"model.kind": "gpt"}
    split = choose_split(corpus.byte_count)
    choices = [] if split.name in settings else [split]
    held_out = {"val_fraction": settings.get(split.name, split.value)}
    text = prepare(corpus, asked.data.model_copy(update=held_out), tokenizer)
    choices += describe_tokenizer(text, settings)
    if asked.train.start is None:  # the architecture of a trained network is fixed
        choices += choose_blocks(settings)
    settings |= {"model.vocab_size": text.tokenizer.vocab_size}
    choices += choose_network(chosen(settings, choices), text, time_step)
    choices += choose_rates(settings, tuning=asked.train.start is not None)
    say(table(choices))
    config = check(chosen(settings, choices), {})
    assert isinstance(config.model, GPTConfig)
    return config, Text(text, config.model.context_length, config.train.seed)


def chosen(settings: dict[str, Any], choices: list[Choice]) -> dict[str, Any]:
    """The settings updated with the choices; train.steps replaces train.minutes."""
    values = {choice.name: choice.value for choice in choices}
    return merge([("", settings), ("", values)])[0]


def choose_split(byte_count: int) -> Choice:
    """The share of the text to hold out for validation."""
    if byte_count < TOO_SHORT:
        why = f"too small for a validation split ({byte_count:,} bytes); everything is training data"
        return Choice("data.val_fraction", 0.0, why)
    share = min(0.1, HELD_OUT / byte_count)
    why = f"{round(share * byte_count):,} of {byte_count:,} bytes held out for validation"
    return Choice("data.val_fraction", share, why)


def describe_tokenizer(text: Prepared, settings: dict[str, Any]) -> list[Choice]:
    """The tokenizer that `auto` chose, and its vocabulary size."""
    if settings.get("data.tokenizer") != "auto":
        return []
    kind = text.tokenizer.to_json()["kind"]
    each = text.index.splits["train"].byte_count / text.counts["train"]
    rows = [Choice("data.tokenizer", kind, text.reason)]
    if kind == "bpe" and "data.vocab_size" not in settings:
        rows.append(Choice("data.vocab_size", text.tokenizer.vocab_size, f"{each:.1f} bytes in a token"))
    return rows


def choose_blocks(settings: dict[str, Any]) -> list[Choice]:
    """Positions and activation of a new network; rotary positions need an even head size."""
    width, heads = settings.get("model.n_embd"), settings.get("model.n_head")
    pairs = width % (2 * (heads or 1)) == 0 if width else heads is None
    return [choice for choice in BLOCKS if choice.name not in settings and (pairs or choice.name != "model.position")]


def choose_network(
    settings: dict[str, Any], text: Prepared, time_step: Callable[[Dataset, Config], float]
) -> list[Choice]:
    """Sizes, batch and length of training; `time_step` measures a config's seconds per step."""
    trial = try_size(LADDER[0], settings, text, time_step)
    larger = None
    for size in LADDER[1:]:
        try:
            larger = try_size(size, settings, text, time_step)
        except UserError:  # it does not fit in memory
            break
        if larger.sizes == trial.sizes or larger.seen < TOKENS_EACH:
            break
        trial = larger
    return [*sizes_explained(trial, larger, text), *length_explained(trial, settings, text)]


def try_size(
    size: Size, settings: dict[str, Any], text: Prepared, time_step: Callable[[Dataset, Config], float]
) -> Trial:
    """Time one size of the ladder and compute how much training the budget allows it; the user's settings win."""
    sizes = fitted(size, settings, text.counts)
    config = check(settings | sizes, {})
    require_memory(config)
    assert isinstance(config.model, GPTConfig)
    train, parameters, T = config.train, count_parameters(config), config.model.context_length
    with memory_explained(train):
        seconds = time_step(Text(text, T, train.seed), on_this_machine(config))
    epoch = text.counts["train"] / (train.batch_size * train.accumulate * T)  # steps
    steps = train.steps or round(train.epochs * epoch if train.epochs else BUSY * 60 * (train.minutes or 0) / seconds)
    passes = max(1, steps) / epoch
    return Trial(
        sizes,
        config,
        parameters,
        seconds,
        max(1, steps),
        passes,
        min(passes, PASSES) * text.counts["train"] / parameters,
    )


def fitted(size: Size, settings: dict[str, Any], counts: dict[str, int]) -> dict[str, Any]:
    """The open sizes by name, adjusted to the user's settings and to the text.

    The heads divide the width, with an even head size unless the width is odd; a window fits in both splits; an epoch
    has several batches.
    """
    pair = 2 * settings.get("model.n_head", 1)
    width = settings.get("model.n_embd", -(-size.n_embd // pair) * pair)
    pairs = width if width % 2 else width // 2
    window = max(2, min(size.context_length, 2 ** int(math.log2(max(4, min(counts.values())) / 2))))
    sizes = {
        "model.n_layer": size.n_layer,
        "model.n_head": max(heads for heads in range(1, size.n_head + 1) if pairs % heads == 0),
        "model.n_embd": width,
        "model.context_length": window,
        "train.batch_size": min(size.batch_size, max(4, counts["train"] // window // STEPS_IN_A_PASS)),
    }
    return {name: value for name, value in sizes.items() if name not in settings}


def sizes_explained(trial: Trial, larger: Trial | None, text: Prepared) -> list[Choice]:
    """The chosen sizes, each with its reason."""
    model, train = trial.config.model, trial.config.train
    assert isinstance(model, GPTConfig)
    each = text.index.splits["train"].byte_count / text.counts["train"]
    next_one = f" (next size up, {larger.parameters:,}: {larger.seen:.2g})" if larger and larger is not trial else ""
    reasons = {
        "model.n_layer": f"{trial.parameters:,} parameters, {trial.seen:.2g} tokens seen per parameter{next_one}",
        "model.n_head": f"head size {model.n_embd // model.n_head}",
        "model.n_embd": "width of each token's vector",
        "model.context_length": f"about {round(model.context_length * each)} bytes of this text",
        "train.batch_size": f"windows, {train.batch_size * model.context_length:,} tokens",
    }
    return [Choice(name, trial.sizes[name], why) for name, why in reasons.items() if name in trial.sizes]


def length_explained(trial: Trial, settings: dict[str, Any], text: Prepared) -> list[Choice]:
    """Fewer steps than the minutes allow, and dropout, where a network would overfit."""
    choices = []
    most = max(FEWEST_STEPS, math.ceil(PASSES * trial.steps / trial.passes))
    if trial.config.train.minutes and trial.steps > most:
        passes, takes = most * trial.passes / trial.steps, duration(most * trial.seconds)
        why = "more would overfit" if most > FEWEST_STEPS else "fewer would learn nothing"
        choices.append(Choice("train.steps", most, f"{passes:.0f} epochs, {takes}; {why}"))
    if trial.passes > PASSES / 2 and trial.parameters > text.counts["train"] and "model.dropout" not in settings:
        choices.append(Choice("model.dropout", DROPOUT, "more parameters than tokens: reduces overfitting"))
    return choices


def choose_rates(settings: dict[str, Any], tuning: bool) -> list[Choice]:
    """The learning rates; lower when fine-tuning."""
    high = "high, because there are few steps"
    why = "a third of a new network's, to preserve what the base has learned" if tuning else high
    rates = RATES.get(settings.get("optim.name", "adamw"), {})
    return [
        Choice(name, rate * TUNING if tuning else rate, why) for name, rate in rates.items() if name not in settings
    ]


def table(choices: list[Choice]) -> str:
    """The choices as a table."""
    rows = [("setting", "value", "reason"), *((c.name, spelled(c.value), c.reason) for c in choices)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def spelled(value: Any) -> str:
    """Such as "4,096" or "0.015"."""
    return f"{value:,}" if isinstance(value, int) else f"{value:.2g}" if isinstance(value, float) else str(value)

"""Estimate the memory that training takes, part by part, from the config alone. Does not import torch.

The estimates are for PyTorch without compiling; benchmarks/results/plan.json compares them with real runs.
"""

from typing import NamedTuple

from configs.schema import Config, GPTConfig, MLPConfig
from training.cost import SINGLE, count_parameters, is_hidden, moments, what_learns
from training.parameters import parameters

HALF = 2  # bytes per bfloat16 value
LOGIT_COPIES = 4  # logits, their log-softmax, and the gradients of both, all in memory at the same time
IN_PARTS = 2**22  # logits; above this the loss works in parts: fewer copies of all logits, several of one part
COPIES_IN_PARTS, COPIES_OF_A_PART = 2.5, 5  # measured with 50,257 tokens, 256 and 2,000 rows
STACKS = 4  # copies of the hidden matrices of one shape while Muon orthogonalises their step
PATTERNS = 512  # positions; up to this, attention patterns are stored in bfloat16 on a CPU
PROGRAM = 215 * 10**6  # bytes of code and caches that training adds to an imported torch (2.14 on Linux)
SQUASHING = ("sigmoid", "relu", "tanh")  # their gradient needs the output alone; gelu's needs the input too
LARGEST_BATCH = 4096  # to try when looking for a batch that fits


class Part(NamedTuple):
    """One thing that takes memory."""

    name: str
    bytes: int
    why: str


class Memory(NamedTuple):
    """Memory by part, and the peak, which is below the sum because the parts are not all needed at the same time."""

    parts: list[Part]
    peak: int
    cache: int
    """bytes of the key-value cache when sampling with a full context"""


def half(config: Config) -> int:
    """Bytes per value in matrix products."""
    return HALF if config.train.dtype == "bfloat16" else SINGLE


def block_activations(config: Config) -> int:
    """Bytes per token that one block saves for the backward pass.

    In float32: the inputs of both norms, and one log-sum-exp per head. In the products' precision: the outputs of both
    norms, query, key, value, the heads' output, and the MLP's hidden vector (gelu: its input too). In bfloat16 also the
    first norm's output rounded twice more (query, key and value each have a copy) and short attention patterns.
    With dropout, its masks.
    """
    model, each = config.model, half(config)
    assert isinstance(model, GPTConfig)
    C = model.n_embd
    inside = 4 if model.activation in SQUASHING else 8
    kept = 2 * C * SINGLE + (6 + inside) * C * each + model.n_head * SINGLE
    if each == HALF:
        kept += 2 * C * HALF
        if model.context_length <= PATTERNS and config.train.device in ("auto", "cpu"):
            kept += model.n_head * model.context_length * HALF
    return kept + 2 * C * each * (model.dropout > 0)


def activations(config: Config) -> int:
    """Bytes that one micro-batch saves for the backward pass, without logits.

    One extra block is counted for the gradients passing through. Frozen parts count as if they were trained.
    """
    model, each = config.model, half(config)
    if isinstance(model, MLPConfig):
        return config.train.batch_size * SINGLE * (model.sizes[0] + 2 * sum(model.sizes[1:-1]))
    assert isinstance(model, GPTConfig)
    blocks = (model.n_layer + 1) * block_activations(config)
    casts = HALF * sum(p.count for p in parameters(model) if len(p.shape) == 2) if each == HALF else 0
    return config.train.batch_size * model.context_length * (blocks + model.n_embd * (SINGLE + each)) + casts


def logits(config: Config) -> int:
    """Bytes of one copy of a micro-batch's logits in float32."""
    model = config.model
    if isinstance(model, MLPConfig):
        return SINGLE * config.train.batch_size * model.sizes[-1]
    assert isinstance(model, GPTConfig)
    return SINGLE * config.train.batch_size * model.context_length * model.vocab_size


def logit_memory(once: int, half: bool) -> tuple[int, str]:
    """Bytes of the logits and all their copies in the loss, and the explanation; `once`: bytes of one float32 copy."""
    if once // SINGLE <= IN_PARTS:
        return int((LOGIT_COPIES + 0.5 * half) * once), f"{LOGIT_COPIES} copies"
    each = once // 2 if half else once
    return int(COPIES_IN_PARTS * each) + COPIES_OF_A_PART * SINGLE * IN_PARTS, "their gradients, one part in float32"


def memory_of(config: Config) -> Memory:
    model, optim = config.model, config.optim
    count, learning, kept = count_parameters(config), count_parameters(config, learning=True), moments(config)
    weights, gradients, state = SINGLE * count, SINGLE * learning, SINGLE * kept
    back, once = activations(config), logits(config)
    scores, copies = logit_memory(once, half(config) == HALF)
    batch = config.train.batch_size
    examples = f"{batch:,} image{'s' * (batch > 1)}"
    cache, twice = 0, 0
    if isinstance(model, GPTConfig):
        examples = f"{batch:,} window{'s' * (batch > 1)} of {model.context_length:,} tokens"
        cache = 2 * SINGLE * model.n_layer * model.context_length * model.n_embd
        if model.tied and what_learns(config)[0].learns:  # a gradient from each end, and their sum
            twice = 2 * SINGLE * model.vocab_size * model.n_embd
    program = 0 if str(config.train.device).startswith("cuda") else PROGRAM
    parts = [
        Part("weights", weights, f"{count:,} x {SINGLE} bytes"),
        Part(
            "gradients",
            gradients + twice,
            f"{learning:,} x {SINGLE} bytes{', tied embedding counted three times' * (twice > 0)}",
        ),
        Part("optimiser", state, f"{optim.name} keeps {kept:,} values"),
        Part("activations", back, f"{examples}, saved for the backward pass"),
        Part("logits", scores, f"{once // SINGLE:,} values, {copies}"),
        Part("program", program, "code and caches, in addition to the imported torch"),
    ]
    before = weights + state + back + scores + gradients * (config.train.accumulate > 1)
    after = weights + state + back + gradients + max(twice + once, stacks(config))
    return Memory(parts, max(before, after) + program, cache)


def stacks(config: Config) -> int:
    """Bytes that Muon takes while it updates the matrices of one shape."""
    if config.optim.name != "muon":
        return 0
    shapes: dict[tuple[int, ...], int] = {}
    for p in what_learns(config):
        if p.learns and is_hidden(p, config):
            shapes[p.shape] = shapes.get(p.shape, 0) + p.count
    return STACKS * SINGLE * max(shapes.values(), default=0)


def in_smaller_batches(config: Config, room: int) -> Config | None:
    """The same steps in smaller micro-batches that fit in `room` bytes; None if a single example does not."""
    train = config.train
    for size in range(min(train.batch_size - 1, LARGEST_BATCH), 0, -1):
        more = {"batch_size": size, "accumulate": train.accumulate * train.batch_size // size}
        smaller = config.model_copy(update={"train": train.model_copy(update=more)})
        if train.batch_size % size == 0 and memory_of(smaller).peak <= room:
            return smaller
    return None

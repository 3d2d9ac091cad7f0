"""How much memory training takes, part by part, by arithmetic on the config alone. No torch.

Estimates of what PyTorch does without compiling; benchmarks/results/plan.json has how far real runs are from them.
"""

from typing import NamedTuple

from configs.schema import Config, GPTConfig, MLPConfig
from training.cost import SINGLE, count_parameters, is_hidden, moments, what_learns
from training.parameters import parameters

HALF = 2  # bytes of a bfloat16
LOGIT_COPIES = 4  # logits, their log-softmax, and the gradients of both, all there at the same moment
IN_PARTS = 2**22  # logits; more than that are taken in parts, and then there are fewer copies, and some of a part
COPIES_IN_PARTS, COPIES_OF_A_PART = 2.5, 5  # measured with 50,257 tokens, 256 and 2,000 rows
STACKS = 4  # of the hidden matrices of one shape while Muon makes their step orthogonal
PATTERNS = 512  # positions; on a CPU attention's patterns are stored in bfloat16 up to there
PROGRAM = 215 * 10**6  # bytes of code and caches that training adds to an imported torch (2.14 on Linux)
SQUASHING = ("sigmoid", "relu", "tanh")  # their gradient needs the output alone; gelu's needs the input too
LARGEST_BATCH = 4096  # of those looked at for one that fits


class Part(NamedTuple):
    """One thing that takes memory."""

    name: str
    bytes: int
    why: str


class Memory(NamedTuple):
    """What training takes, part by part, and at its highest: not all parts are there at once."""

    parts: list[Part]
    peak: int
    cache: int
    """bytes of keys and values that sampling keeps for a full context"""


def half(config: Config) -> int:
    """Bytes of a number that matrix products take and give."""
    return HALF if config.train.dtype == "bfloat16" else SINGLE


def block_activations(config: Config) -> int:
    """Bytes that one block keeps of one token for the way back.

    The vector before each norm; q, k, v and the heads' findings; what goes into every product, rounded for each of
    the three that attention begins with; with gelu what went into that as well. Dropout keeps its masks, attention
    its patterns where it stores them.
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
    """Bytes kept from the forward pass of one micro-batch for the backward pass, logits left out.

    One block more is counted for the gradients that pass through. Frozen parts count as if they learned.
    """
    model, each = config.model, half(config)
    if isinstance(model, MLPConfig):
        return config.train.batch_size * SINGLE * (model.sizes[0] + 2 * sum(model.sizes[1:-1]))
    assert isinstance(model, GPTConfig)
    blocks = (model.n_layer + 1) * block_activations(config)
    casts = HALF * sum(p.count for p in parameters(model) if len(p.shape) == 2) if each == HALF else 0
    return config.train.batch_size * model.context_length * (blocks + model.n_embd * (SINGLE + each)) + casts


def logits(config: Config) -> int:
    """Bytes of one micro-batch's logits, once, in float32."""
    model = config.model
    if isinstance(model, MLPConfig):
        return SINGLE * config.train.batch_size * model.sizes[-1]
    assert isinstance(model, GPTConfig)
    return SINGLE * config.train.batch_size * model.context_length * model.vocab_size


def logit_memory(once: int, half: bool) -> tuple[int, str]:
    """Bytes that logits and all that the loss makes of them take, and in words why; `once` is they alone in float32."""
    if once // SINGLE <= IN_PARTS:
        return int((LOGIT_COPIES + 0.5 * half) * once), f"{LOGIT_COPIES} copies"
    each = once // 2 if half else once
    return int(COPIES_IN_PARTS * each) + COPIES_OF_A_PART * SINGLE * IN_PARTS, "their gradients, and a part in float32"


def memory_of(config: Config) -> Memory:
    """What training takes, part by part."""
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
        if model.tied and what_learns(config)[0].learns:  # its gradient comes from both ends, and then their sum
            twice = 2 * SINGLE * model.vocab_size * model.n_embd
    program = 0 if str(config.train.device).startswith("cuda") else PROGRAM
    parts = [
        Part("weights", weights, f"{count:,} x {SINGLE} bytes"),
        Part(
            "gradients",
            gradients + twice,
            f"{learning:,} x {SINGLE} bytes{', the embedding three times' * (twice > 0)}",
        ),
        Part("optimiser", state, f"{optim.name} keeps {kept:,} numbers"),
        Part("activations", back, f"{examples}, kept for the way back"),
        Part("logits", scores, f"{once // SINGLE:,}, {copies}"),
        Part("program", program, "code and caches, beside an imported torch"),
    ]
    before = weights + state + back + scores + gradients * (config.train.accumulate > 1)
    after = weights + state + back + gradients + max(twice + once, stacks(config))
    return Memory(parts, max(before, after) + program, cache)


def stacks(config: Config) -> int:
    """Bytes that Muon takes while it makes a step of the matrices of one shape."""
    if config.optim.name != "muon":
        return 0
    shapes: dict[tuple[int, ...], int] = {}
    for p in what_learns(config):
        if p.learns and is_hidden(p, config):
            shapes[p.shape] = shapes.get(p.shape, 0) + p.count
    return STACKS * SINGLE * max(shapes.values(), default=0)


def in_smaller_batches(config: Config, room: int) -> Config | None:
    """The same steps in more, smaller batches that fit into so many bytes; None if even single examples don't."""
    train = config.train
    for size in range(min(train.batch_size - 1, LARGEST_BATCH), 0, -1):
        more = {"batch_size": size, "accumulate": train.accumulate * train.batch_size // size}
        smaller = config.model_copy(update={"train": train.model_copy(update=more)})
        if train.batch_size % size == 0 and memory_of(smaller).peak <= room:
            return smaller
    return None

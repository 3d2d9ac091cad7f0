"""What a network has, matrix by matrix: arithmetic on its config, so that even GPT-3's is counted at once.

Nothing here needs torch. Two tallies are kept. The exact one is what a network has: the sum over
`model.parameters()`. The lessons' counts matrices alone, without biases, norms and positions, and the unembedding
beside the embedding even where the two are one (lesson: "Attention, step by step", the table of GPT-3).
"""

from collections.abc import Iterator
from itertools import pairwise
from math import prod
from typing import NamedTuple

from configs.schema import GPTConfig, LoRAConfig, MLPConfig


class Parameter(NamedTuple):
    """One tensor of weights."""

    name: str
    """as in the state dict"""
    shape: tuple[int, ...]
    """as torch has it: rows are outputs"""
    learns: bool = True
    """unless adapters learn in its place"""

    @property
    def count(self) -> int:
        """How many numbers it holds."""
        return prod(self.shape)


def parameters(config: MLPConfig | GPTConfig) -> list[Parameter]:
    """All that a network has, named and ordered as `named_parameters()` has them; a tied matrix comes once."""
    return list(of_mlp(config) if isinstance(config, MLPConfig) else of_gpt(config))


def linear(name: str, outputs: int, inputs: int, bias: bool, learns: bool) -> Iterator[Parameter]:
    """A weighted sum for each output."""
    yield Parameter(f"{name}.weight", (outputs, inputs), learns)
    if bias:
        yield Parameter(f"{name}.bias", (outputs,), learns)


def norm(name: str, width: int, bias: bool, learns: bool) -> Iterator[Parameter]:
    """A layer norm's gain and bias."""
    yield Parameter(f"{name}.weight", (width,), learns)
    if bias:
        yield Parameter(f"{name}.bias", (width,), learns)


def of_mlp(config: MLPConfig) -> Iterator[Parameter]:
    """Layer after layer."""
    for number, (inputs, outputs) in enumerate(pairwise(config.sizes)):
        yield from linear(f"layers.{number}", outputs, inputs, bias=True, learns=True)


def of_gpt(config: GPTConfig) -> Iterator[Parameter]:
    """Embedding, blocks, last norm, unembedding."""
    C, V, learns = config.n_embd, config.vocab_size, config.lora is None
    yield Parameter("embedding.token.weight", (V, C), learns)
    if config.position == "learned":
        yield Parameter("embedding.position.weight", (config.context_length, C), learns)
    for number in range(config.n_layer):
        yield from of_block(config, f"blocks.{number}")
    if config.norm == "pre":
        yield from norm("norm", C, config.bias, learns)
    if not config.tied:
        yield Parameter("unembedding.weight", (V, C), learns)


def of_block(config: GPTConfig, name: str) -> Iterator[Parameter]:
    """Norms, attention, MLP, and the adapters of what has them."""
    C, learns = config.n_embd, config.lora is None
    projections = {
        "query": ("attention.query", C, C),
        "key": ("attention.key", C, C),
        "value": ("attention.value", C, C),
        "out": ("attention.out", C, C),
        "up": ("mlp.layers.0", 4 * C, C),
        "down": ("mlp.layers.1", C, 4 * C),
    }
    yield from norm(f"{name}.norm_1", C, config.bias, learns)
    for target, (place, outputs, inputs) in projections.items():
        if target == "up":
            yield from norm(f"{name}.norm_2", C, config.bias, learns)
        yield from linear(f"{name}.{place}", outputs, inputs, config.bias, learns)
        if config.lora and target in config.lora.targets:
            yield from adapter(config.lora, f"{name}.{place}", outputs, inputs)


def adapter(config: LoRAConfig, name: str, outputs: int, inputs: int) -> Iterator[Parameter]:
    """The two thin matrices beside one of a block's."""
    yield Parameter(f"{name}.lora_A", (config.rank, inputs))
    yield Parameter(f"{name}.lora_B", (outputs, config.rank))


class Row(NamedTuple):
    """A kind of matrix, all of its copies together."""

    name: str
    factors: dict[str, int]
    """whose product is its total, by the lesson's names"""

    @property
    def total(self) -> int:
        """How many numbers they hold together."""
        return prod(self.factors.values())

    @property
    def product(self) -> str:
        """The product spelled out, such as "128 d_query x 12,288 d_embed x 96 n_heads x 96 n_layers"."""
        return " x ".join(f"{value:,} {name}" for name, value in self.factors.items())


def lesson_tally(config: MLPConfig | GPTConfig) -> list[Row]:
    """Matrix by matrix as the lessons count: of a GPT no biases, norms and positions, and always an unembedding.

    An MLP is counted with its biases, as the lesson "But what is a neural network?" does. Adapters are left out.
    """
    if isinstance(config, MLPConfig):
        return mlp_tally(config)
    D = config.n_embd // config.n_head
    embed, layers = {"d_embed": config.n_embd}, {"n_layers": config.n_layer}
    heads = {"n_heads": config.n_head} | layers
    neurons, vocabulary = {"n_neurons": 4 * config.n_embd}, {"n_vocab": config.vocab_size}
    return [
        Row("Embedding", embed | vocabulary),
        Row("Key", {"d_query": D} | embed | heads),
        Row("Query", {"d_query": D} | embed | heads),
        Row("Value", {"d_value": D} | embed | heads),
        Row("Output", embed | {"d_value": D} | heads),
        Row("Up-projection", neurons | embed | layers),
        Row("Down-projection", embed | neurons | layers),
        Row("Unembedding", vocabulary | embed),
    ]


def mlp_tally(config: MLPConfig) -> list[Row]:
    """Weights layer by layer, then all biases."""
    rows = [
        Row(f"Weights {number}", {"neurons": outputs, "inputs": inputs})
        for number, (inputs, outputs) in enumerate(pairwise(config.sizes), 1)
    ]
    return [*rows, Row("Biases", {"neurons": sum(config.sizes[1:])})]


def exact_tally(config: MLPConfig | GPTConfig) -> list[Row]:
    """Matrix by matrix what there is: the lessons' rows, without an unembedding that is tied, and all they leave out.

    The totals add up to the sum over `parameters`.
    """
    rows = lesson_tally(config)
    if isinstance(config, MLPConfig):
        return rows
    if config.tied:
        rows.pop()
    everything = parameters(config)
    vectors = [p for p in everything if len(p.shape) == 1]
    adapters = [p for p in everything if ".lora_" in p.name]
    more = {
        "Positions": [p for p in everything if p.name == "embedding.position.weight"],
        "Norms": [p for p in vectors if "norm" in p.name],
        "Biases": [p for p in vectors if "norm" not in p.name],
        "Adapters": adapters,
    }
    return rows + [Row(name, {"numbers": sum(p.count for p in found)}) for name, found in more.items() if found]

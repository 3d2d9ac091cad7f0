"""Counting parameters as the lessons do, matrix by matrix, with every product spelled out. Nothing here needs torch.

Two tallies are kept. The exact one is what a network has: the sum over `model.parameters()`. The lessons' counts
matrices alone, without biases, norms and positions, and the unembedding beside the embedding even where the two are
one (lesson: "Attention, step by step", the table of GPT-3).
"""

from itertools import pairwise
from math import prod
from typing import NamedTuple

from configs.schema import GPTConfig, MLPConfig
from training.parameters import parameters


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

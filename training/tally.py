"""Parameter counts by matrix: exact, and as the lessons count. Does not import torch.

The exact tally adds up to the sum over `model.parameters()`. The lessons' tally omits biases, norms and positions, and
counts the unembedding separately even if it is tied (lesson: "Attention, step by step", the table of GPT-3).
"""

from itertools import pairwise
from math import prod
from typing import NamedTuple

from configs.schema import GPTConfig, MLPConfig
from training.parameters import parameters


class Row(NamedTuple):
    """All matrices of one kind."""

    name: str
    factors: dict[str, int]
    """sizes by the lesson's names; their product is the total"""

    @property
    def total(self) -> int:
        return prod(self.factors.values())

    @property
    def product(self) -> str:
        """Such as "128 d_query x 12,288 d_embed x 96 n_heads x 96 n_layers"."""
        return " x ".join(f"{value:,} {name}" for name, value in self.factors.items())


def lesson_tally(config: MLPConfig | GPTConfig) -> list[Row]:
    """The lessons' count: for a GPT no biases, norms, positions or adapters, and always an unembedding.

    An MLP is counted with its biases, as in the lesson "But what is a neural network?".
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
    """Weights by layer, then all biases."""
    rows = [
        Row(f"Weights {number}", {"neurons": outputs, "inputs": inputs})
        for number, (inputs, outputs) in enumerate(pairwise(config.sizes), 1)
    ]
    return [*rows, Row("Biases", {"neurons": sum(config.sizes[1:])})]


def exact_tally(config: MLPConfig | GPTConfig) -> list[Row]:
    """The lessons' rows without a tied unembedding, plus what they omit; the totals add up to `parameters`."""
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
    return rows + [Row(name, {"numbers": sum(p.count for p in some)}) for name, some in more.items() if some]

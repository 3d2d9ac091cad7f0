"""What a network has, tensor by tensor: arithmetic on its config, without torch, so that GPT-3's is counted at once."""

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

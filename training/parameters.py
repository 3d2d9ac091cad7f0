"""Every parameter tensor of a network with its shape, from the config alone: GPT-3 is counted without torch."""

from collections.abc import Iterator
from itertools import pairwise
from math import prod
from typing import NamedTuple

from configs.schema import GPTConfig, LoRAConfig, MLPConfig


class Parameter(NamedTuple):
    """One tensor of weights."""

    name: str
    """in the state dict"""
    shape: tuple[int, ...]
    """as in torch: (outputs, inputs)"""
    learns: bool = True
    """whether it is trained; of a LoRA network only the adapters are"""

    @property
    def count(self) -> int:
        return prod(self.shape)


def parameters(config: MLPConfig | GPTConfig) -> list[Parameter]:
    """All parameters, with the names and order of `named_parameters()`; a tied matrix appears once."""
    return list(of_mlp(config) if isinstance(config, MLPConfig) else of_gpt(config))


def count_weights(config: MLPConfig | GPTConfig) -> int:
    """Number of parameters. Blocks are alike, so two are enough to count any number of them."""
    if isinstance(config, MLPConfig):
        return sum(p.count for p in of_mlp(config))
    one, two = (sum(p.count for p in of_gpt(config.model_copy(update={"n_layer": n}))) for n in (1, 2))
    return one + (config.n_layer - 1) * (two - one)


def linear(name: str, outputs: int, inputs: int, bias: bool, learns: bool) -> Iterator[Parameter]:
    yield Parameter(f"{name}.weight", (outputs, inputs), learns)
    if bias:
        yield Parameter(f"{name}.bias", (outputs,), learns)


def norm(name: str, width: int, bias: bool, learns: bool) -> Iterator[Parameter]:
    yield Parameter(f"{name}.weight", (width,), learns)
    if bias:
        yield Parameter(f"{name}.bias", (width,), learns)


def of_mlp(config: MLPConfig) -> Iterator[Parameter]:
    for number, (inputs, outputs) in enumerate(pairwise(config.sizes)):
        yield from linear(f"layers.{number}", outputs, inputs, bias=True, learns=True)


def of_gpt(config: GPTConfig) -> Iterator[Parameter]:
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
    """Norms, attention, MLP and their adapters, in the order of the module."""
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
    for target, (path, outputs, inputs) in projections.items():
        if target == "up":
            yield from norm(f"{name}.norm_2", C, config.bias, learns)
        yield from linear(f"{name}.{path}", outputs, inputs, config.bias, learns)
        if config.lora and target in config.lora.targets:
            yield from adapter(config.lora, f"{name}.{path}", outputs, inputs)


def adapter(config: LoRAConfig, name: str, outputs: int, inputs: int) -> Iterator[Parameter]:
    """The two low-rank matrices of LoRA for one projection."""
    yield Parameter(f"{name}.lora_A", (config.rank, inputs))
    yield Parameter(f"{name}.lora_B", (outputs, config.rank))

"""What a GPT computes on its way from tokens to logits, written down from outside: the model itself keeps nothing.

Forward hooks, taken off again at once, note what goes into each part and what comes out, so adapters, int8 weights and
both orders of the layer norm are seen as they are. Attention patterns, which the fused kernel never stores, are
computed again by the formula from what went in.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from model import GPT
from model.attention import CausalSelfAttention, attention_scores, hide_future
from model.lora import LoRALinear
from model.quantize import QuantizedEmbedding, QuantizedLinear


class Layer(NamedTuple):
    """What one block did, each (B, T, C) but the neurons."""

    attention_in: Tensor
    """what queries, keys and values are made of: after the layer norm in a pre-norm block"""
    attention_out: Tensor
    """what the heads together add"""
    mlp_in: Tensor
    neurons: Tensor
    """(B, T, 4C): the MLP's hidden activations"""
    mlp_out: Tensor
    """what the MLP adds"""
    after: Tensor
    """the vectors as the block hands them on"""


class Captured(NamedTuple):
    """Everything on the way from tokens to logits."""

    tokens: Tensor
    embedded: Tensor
    """(B, T, C): token and position, before the first block"""
    layers: list[Layer]
    logits: Tensor
    """(B, T, V)"""

    @property
    def stream(self) -> list[Tensor]:
        """The vectors before the first block and after each, n_layer + 1 of (B, T, C)."""
        return [self.embedded, *(layer.after for layer in self.layers)]


@torch.no_grad()
def capture(model: GPT, tokens: Int[Tensor, "B T"]) -> Captured:
    """Run the model in eval mode and note all of it. Raises ValueError beyond its context."""
    parts: dict = {}
    for number, block in enumerate(model.blocks):
        parts |= {(number, "attention"): block.attention, (number, "mlp"): block.mlp, (number, "block"): block}
        parts |= {(number, "down"): block.mlp.layers[-1]}
    with at_rest(model), noted({**parts, "embedding": model.embedding}) as seen:
        logits = model(tokens)
    layers = [
        Layer(
            *seen[number, "attention"], seen[number, "mlp"][0], seen[number, "down"][0], seen[number, "mlp"][1],
            seen[number, "block"][1],
        )
        for number in range(len(model.blocks))
    ]  # fmt: skip
    return Captured(tokens, seen["embedding"][1], layers, logits)


@contextmanager
def at_rest(model: nn.Module) -> Iterator[None]:
    """In eval mode, so that dropout is off, while it is open."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


@contextmanager
def noted(parts: dict) -> Iterator[dict]:
    """While it is open, (input, output) of each of these modules is kept under its name."""
    seen: dict = {}

    def note(name: object):
        return lambda module, given, result: seen.update({name: (given[0], result)})

    hooks = [module.register_forward_hook(note(name)) for name, module in parts.items()]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


class Attention(NamedTuple):
    """One layer's heads at the four stages in which the lesson draws them: each (B, H, T, T), a row per query."""

    scores: Tensor
    """QKᵀ / √D"""
    masked: Tensor
    """-inf where the key comes after the query"""
    pattern: Tensor
    """softmax: rows sum to 1"""
    weighted: Tensor
    """the pattern times the length of what each key's word would add, W_O v (Kobayashi et al. 2020)"""


STAGES = Attention._fields


@torch.no_grad()
def attention(module: CausalSelfAttention, x: Float[Tensor, "B T C"]) -> Attention:
    """What every head does with these vectors, by the formula."""
    scores = attention_scores(*module.queries_and_keys(x))
    masked = hide_future(scores)
    pattern = masked.softmax(dim=-1)
    return Attention(scores, masked, pattern, pattern * values_up(module, x).norm(dim=-1).unsqueeze(-2))


@torch.no_grad()
def values_up(module: CausalSelfAttention, x: Float[Tensor, "B T C"]) -> Float[Tensor, "B H T C"]:
    """What each position has to say in each head, back at full width: W_O W_V x, the lesson's Value-up of Value-down.

    A head adds the sum of these over the positions, weighted by its pattern.
    """
    return torch.einsum("bhtd,chd->bhtc", module.split(module.value(x)), heads_of(matrix(module.out), module.n_head))


@torch.no_grad()
def head_outputs(module: CausalSelfAttention, x: Float[Tensor, "B T C"]) -> Float[Tensor, "B H T C"]:
    """What each head adds to each vector; over all heads, and with `out`'s bias, the module's output."""
    return attention(module, x).pattern @ values_up(module, x)


def heads_of(out: Float[Tensor, "N C"], n_head: int) -> Float[Tensor, "N H D"]:
    """The columns of a matrix that reads what the heads found, head by head."""
    return out.unflatten(1, (n_head, -1))


@torch.no_grad()
def matrix(layer: nn.Module) -> Float[Tensor, "N K"]:
    """The weights of a layer or an embedding as one matrix of floats: plain, with an adapter, or in int8."""
    match layer:
        case QuantizedLinear() | QuantizedEmbedding():
            return layer.weight * layer.scale.unsqueeze(-1)
        case LoRALinear():
            return layer.weight + layer.scale * layer.lora_B @ layer.lora_A
    return layer.weight.detach()

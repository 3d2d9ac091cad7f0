"""Record the activations of a GPT in one forward pass: residual stream, attention, MLP, logits.

Temporary forward hooks record the input and output of each module, so adapters, int8 weights and both norm orders need
no special case. The fused kernel never stores attention patterns: they are recomputed from the attention's input.
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
    """The activations of one block, (B, T, C) each except `neurons`."""

    attention_in: Tensor
    """input of the queries, keys and values: after the layer norm in a pre-norm block"""
    attention_out: Tensor
    """the sum over heads, added to the residual stream"""
    mlp_in: Tensor
    neurons: Tensor
    """(B, T, 4C): the MLP's hidden activations"""
    mlp_out: Tensor
    """added to the residual stream"""
    after: Tensor
    """output of the block"""


class Captured(NamedTuple):
    """All activations from tokens to logits."""

    tokens: Tensor
    embedded: Tensor
    """(B, T, C): token and position, before the first block"""
    layers: list[Layer]
    logits: Tensor
    """(B, T, V)"""

    @property
    def stream(self) -> list[Tensor]:
        """The residual stream before the first block and after each: n_layer + 1 tensors (B, T, C)."""
        return [self.embedded, *(layer.after for layer in self.layers)]


@torch.no_grad()
def capture(model: GPT, tokens: Int[Tensor, "B T"]) -> Captured:
    """Run the model in eval mode and record its activations. Raises ValueError if T exceeds the context."""
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
    """Eval mode (no dropout) inside the with block; the previous mode is restored after it."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


@contextmanager
def noted(parts: dict) -> Iterator[dict]:
    """Inside the with block, record the latest (input, output) of each module under its key."""
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
    """One layer's heads at the lesson's four stages: (B, H, T, T) each, one row per query."""

    scores: Tensor
    """QKᵀ / √D"""
    masked: Tensor
    """-inf where the key comes after the query"""
    pattern: Tensor
    """softmax: rows sum to 1"""
    weighted: Tensor
    """the pattern times |W_O v|, the norm of each key's value vector (Kobayashi et al. 2020)"""


STAGES = Attention._fields


@torch.no_grad()
def attention(module: CausalSelfAttention, x: Float[Tensor, "B T C"]) -> Attention:
    """All four stages, computed by the formula from the attention's input."""
    scores = attention_scores(*module.queries_and_keys(x))
    masked = hide_future(scores)
    pattern = masked.softmax(dim=-1)
    return Attention(scores, masked, pattern, pattern * values_up(module, x).norm(dim=-1).unsqueeze(-2))


@torch.no_grad()
def values_up(module: CausalSelfAttention, x: Float[Tensor, "B T C"]) -> Float[Tensor, "B H T C"]:
    """The value vector of each position and head at full width, W_O W_V x: the lesson's Value-up Value-down.

    A head's output is the sum of these over the positions, weighted by its pattern.
    """
    return torch.einsum("bhtd,chd->bhtc", module.split(module.value(x)), heads_of(matrix(module.out), module.n_head))


@torch.no_grad()
def head_outputs(module: CausalSelfAttention, x: Float[Tensor, "B T C"]) -> Float[Tensor, "B H T C"]:
    """The output of each head; their sum plus the bias of `out` is the module's output."""
    return attention(module, x).pattern @ values_up(module, x)


def heads_of(out: Float[Tensor, "N C"], n_head: int) -> Float[Tensor, "N H D"]:
    """The columns of the output matrix W_O, split by head."""
    return out.unflatten(1, (n_head, -1))


@torch.no_grad()
def matrix(layer: nn.Module) -> Float[Tensor, "N K"]:
    """The weights of a layer or embedding as one float matrix, with its adapter merged or int8 dequantized."""
    match layer:
        case QuantizedLinear() | QuantizedEmbedding():
            return layer.weight * layer.scale.unsqueeze(-1)
        case LoRALinear():
            return layer.weight + layer.scale * layer.lora_B @ layer.lora_A
    return layer.weight.detach()

"""Fast sampling: a KV cache, so that each step computes only the newest token, and a GPT without module overhead.

In causal attention later tokens never change a position's keys and values, so they are computed once: slot s of the
cache is position s (Pope et al. 2022, "Efficiently scaling transformer inference"). A token is then so cheap that in a
small network `nn.Module` calls take most of the time; `Reader` is the network without them.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from model.gpt import GPT, Block, PostNormBlock
from model.quantize import QuantizedLinear

Function = Callable[[Tensor], Tensor]


class Layer(NamedTuple):
    """A block as plain functions."""

    update: Callable[["Layer", Tensor, Function], Tensor]
    norm_1: Function
    qkv: Function
    out: Function
    norm_2: Function
    up: Function
    activation: Function
    down: Function


def update_pre(layer: Layer, x: Float[Tensor, "... C"], attend: Function) -> Float[Tensor, "... C"]:
    """As `Block`: normalise, look around, add; normalise, think, add."""
    x = x + layer.out(attend(layer.qkv(layer.norm_1(x))))
    return x + layer.down(layer.activation(layer.up(layer.norm_2(x))))


def update_post(layer: Layer, x: Float[Tensor, "... C"], attend: Function) -> Float[Tensor, "... C"]:
    """As `PostNormBlock`: look around, add, normalise; think, add, normalise."""
    x = layer.norm_1(x + layer.out(attend(layer.qkv(x))))
    return layer.norm_2(x + layer.down(layer.activation(layer.up(x))))


UPDATES = {Block: update_pre, PostNormBlock: update_post}


class Reader:
    """A GPT for inference, with a copy of its current weights: modules become functions, and q, k, v one product.

    Adapters and quantized layers stay modules.
    """

    @torch.no_grad()
    def __init__(self, model: GPT) -> None:
        model.eval()
        self.config = model.config
        self.token = model.embedding.token
        self.norm, self.unembedding = function_of(model.norm), function_of(model.unembedding)
        self.layers = [layer_of(block) for block in model.blocks]
        positions = torch.arange(model.config.context_length, device=next(model.parameters()).device)
        self.position = model.embedding.position(positions)
        self.rotation = model.blocks[0].attention.turn

    def rotation_at(self, positions: slice | Tensor) -> Function:
        """The rotation of queries and keys at these positions; the identity unless positions are rotary."""
        return self.rotation.at(positions, self.position.dtype) if self.rotation else (lambda x: x)


def layer_of(block: Block) -> Layer:
    attention, (up, down) = block.attention, block.mlp.layers
    projections = [attention.query, attention.key, attention.value]
    return Layer(
        UPDATES[type(block)],
        function_of(block.norm_1),
        joined(projections),
        function_of(attention.out),
        function_of(block.norm_2),
        function_of(up),
        block.mlp.activation,
        function_of(down),
    )


def function_of(module: nn.Module) -> Function:
    """A function that computes the same as the module."""
    if is_plain(module):
        weight, bias = column_major(module.weight), module.bias
        return lambda x: F.linear(x, weight, bias)
    if isinstance(module, nn.LayerNorm):
        shape, gain, shift, eps = module.normalized_shape, module.weight, module.bias, module.eps
        return lambda x: torch.layer_norm(x, shape, gain, shift, eps)
    return module


def column_major(weight: Float[Tensor, "N K"]) -> Float[Tensor, "N K"]:
    """The same matrix, stored column by column on a CPU, where that makes products with single rows faster.

    All matrices of GPT-2 small, one AVX2 thread: 32 to 35 ms instead of 37 to 40. At width 128 both take the same time.
    """
    on_cpu = weight.device.type == "cpu" and weight.dtype == torch.float32
    return weight.T.contiguous().T if on_cpu else weight


def is_plain(module: nn.Module) -> bool:
    """Whether the module is a linear layer without an adapter."""
    return type(module).forward is nn.Linear.forward


def joined(linears: list[nn.Module]) -> Function:
    """Several projections of the same vectors, their results concatenated; one product if all are plain or all int8."""
    if all(map(is_plain, linears)):
        weight = column_major(torch.cat([linear.weight for linear in linears]))
        bias = None if linears[0].bias is None else torch.cat([linear.bias for linear in linears])
        return lambda x: F.linear(x, weight, bias)
    if all(isinstance(linear, QuantizedLinear) for linear in linears):
        return QuantizedLinear.joined(linears)
    return lambda x: torch.cat([linear(x) for linear in linears], dim=-1)


class KVCache:
    """The keys and values of B growing texts, allocated once: a row per text, with S slots.

    `memory` is (2, n_layer, B, H, S, D), keys and values; `cached` is the span (start, end) of its text in each row.
    """

    def __init__(self, reader: Reader, rows: int, slots: int) -> None:
        config = reader.config
        shape = (2, config.n_layer, rows, config.n_head, slots, config.n_embd // config.n_head)
        self.memory = reader.position.new_zeros(shape)
        self.cached = [(0, 0)] * rows

    def keep(self, rows: list[int]) -> None:
        """Drop all other rows."""
        self.memory = self.memory[:, :, rows]
        self.cached = [self.cached[row] for row in rows]


@torch.inference_mode()
def next_logits(reader: Reader, texts: list[list[int]], starts: list[int], cache: KVCache) -> Float[Tensor, "B V"]:
    """Logits of the token after each text, cropped to begin at its start: those of `GPT.next_logits`.

    Cached positions are not recomputed. The last token always is, so that logits come from one place.
    """
    past = [(start, len(text) - 1) for text, start in zip(texts, starts, strict=True)]
    stale = [row for row, span in enumerate(past) if cache.cached[row] != span and span[0] < span[1]]
    if stale:
        fill_cache(reader, cache, stale, [texts[row][starts[row] : -1] for row in stale])
    cache.cached = [(start, end + 1) for start, end in past]
    return decode_last(reader, cache, [text[-1] for text in texts], [end - start for start, end in past])


def fill_cache(reader: Reader, cache: KVCache, rows: list[int], texts: list[list[int]]) -> None:
    """Fill rows of the cache with texts, the shorter ones padded on the right.

    No query ever attends to padding: its slots come after the row's last position, and are overwritten before it gets
    there.
    """
    tokens = pad_sequence([torch.tensor(text, device=cache.memory.device) for text in texts], batch_first=True)
    T = tokens.size(1)
    rotate = reader.rotation_at(slice(T))

    def attend(keys: Tensor, values: Tensor, qkv: Tensor) -> Tensor:
        parts = qkv.unflatten(-1, (3, reader.config.n_head, -1)).permute(2, 0, 3, 1, 4)
        (q, k), v = rotate(parts[:2]), parts[2]
        keys[rows, :, :T], values[rows, :, :T] = k, v
        return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(-2)

    x = reader.token(tokens) + reader.position[:T]
    for layer, keys, values in zip(reader.layers, *cache.memory, strict=True):
        x = layer.update(layer, x, partial(attend, keys, values))


def decode_last(reader: Reader, cache: KVCache, tokens: list[int], positions: list[int]) -> Float[Tensor, "B V"]:
    """Logits after one token of each text, at its own position, which attends to all that its row has cached."""
    device, end = cache.memory.device, max(positions) + 1
    token, position = torch.tensor([tokens, positions], device=device)
    together = min(positions) + 1 == end  # then one slice is written, and no slot needs a mask
    mask = None if together else (torch.arange(end, device=device) <= position[:, None])[:, None, None]
    own = position.view(-1, 1, 1, 1)
    rotate, slot = reader.rotation_at(own), own.expand(-1, reader.config.n_head, 1, cache.memory.size(-1))

    def attend(keys: Tensor, values: Tensor, qkv: Tensor) -> Tensor:
        parts = qkv.view(len(positions), 3, reader.config.n_head, 1, -1)
        (q, k), v = rotate(parts[:, :2]).unbind(1), parts[:, 2]
        for kept, new in ((keys, k), (values, v)):
            kept[:, :, -1:].copy_(new) if together else kept.scatter_(-2, slot, new)
        return F.scaled_dot_product_attention(q, keys, values, mask).flatten(1)

    x = reader.token(token) + reader.position[position]
    keys, values = (kept[..., :end, :].unbind() for kept in cache.memory)
    for layer, k, v in zip(reader.layers, keys, values, strict=True):
        x = layer.update(layer, x, partial(attend, k, v))
    return reader.unembedding(reader.norm(x))

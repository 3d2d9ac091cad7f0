"""Scores of attention heads and neurons, from their weights and attention patterns.

They follow Elhage et al. 2021, "A mathematical framework for transformer circuits", and Olsson et al. 2022,
"In-context learning and induction heads". Those from weights alone are approximations: the layer norm's gain is folded
in; biases and the norm's mean and scale are ignored.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lens.capture import at_rest, attention, capture, heads_of, matrix, noted
from model import GPT
from model.attention import CausalSelfAttention
from model.gpt import Block, PostNormBlock


def repeated(vocabulary: int, half: int, rows: int, seed: int = 0) -> Int[Tensor, "rows two_halves"]:
    """Random tokens followed by the same tokens again: only the repetition is predictable."""
    first = torch.randint(vocabulary, (rows, half), generator=torch.Generator().manual_seed(seed))
    return torch.cat([first, first], dim=1)


@torch.no_grad()
def patterns(model: GPT, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "L H T T"]:
    """The attention pattern of each head, averaged over the texts."""
    layers = capture(model, tokens).layers
    pairs = zip(model.blocks, layers, strict=True)
    return torch.stack([attention(block.attention, layer.attention_in).pattern.mean(dim=0) for block, layer in pairs])


def previous_token(pattern: Float[Tensor, "... T T"]) -> Float[Tensor, "..."]:
    """Mean attention to the token just before."""
    return pattern.diagonal(-1, -2, -1).mean(dim=-1)


def duplicate_token(pattern: Float[Tensor, "... T T"]) -> Float[Tensor, "..."]:
    """Mean attention, in the second half of `repeated` tokens, to the same token in the first half."""
    return pattern.diagonal(-(pattern.size(-1) // 2), -2, -1).mean(dim=-1)


def induction(pattern: Float[Tensor, "... T T"]) -> Float[Tensor, "..."]:
    """Mean attention, in the second half, to the token after the same token in the first half: the one to predict."""
    half = pattern.size(-1) // 2
    return pattern.diagonal(1 - half, -2, -1)[..., 1:].mean(dim=-1)


def chance(T: int) -> tuple[float, float, float]:
    """Previous-token, duplicate-token and induction score of a head with uniform attention."""
    even = torch.ones(T, T).tril() / torch.arange(1, T + 1).unsqueeze(1)
    return float(previous_token(even)), float(duplicate_token(even)), float(induction(even))


class Head(NamedTuple):
    """One head's four matrices, which multiply column vectors from the left as in the lessons."""

    query: Tensor
    """(D, C)"""
    key: Tensor
    """(D, C)"""
    value: Tensor
    """(D, C): the lesson's Value-down"""
    out: Tensor
    """(C, D): the lesson's Value-up"""


def heads(block: Block) -> list[Head]:
    """The heads of a block, with the gain of the preceding norm folded in."""
    module: CausalSelfAttention = block.attention
    gain = 1.0 if isinstance(block, PostNormBlock) else block.norm_1.weight.detach()
    rows = [
        (matrix(layer) * gain).unflatten(0, (module.n_head, -1)) for layer in (module.query, module.key, module.value)
    ]
    out = heads_of(matrix(module.out), module.n_head).transpose(0, 1)
    return [Head(*parts) for parts in zip(*rows, out, strict=True)]


@torch.no_grad()
def singular_values(left: Float[Tensor, "N D"], right: Float[Tensor, "D M"]) -> Float[Tensor, "D"]:
    """Singular values of left @ right, in descending order; the rank is at most D, so the others are zero.

    The product itself, C x C for a head, is never formed.
    """
    return torch.linalg.svdvals(torch.linalg.qr(left).R @ torch.linalg.qr(right.mT).R.mT)


def qk_singular_values(head: Head) -> Float[Tensor, "D"]:
    """Singular values of W_Qᵀ W_K, which determines where the head attends (with rotary positions, only nearby)."""
    return singular_values(head.query.mT, head.key)


def ov_singular_values(head: Head) -> Float[Tensor, "D"]:
    """Singular values of W_O W_V, which determines what the head adds."""
    return singular_values(head.out, head.value)


def effective_rank(values: Float[Tensor, "... D"]) -> Float[Tensor, "..."]:
    """exp of the entropy of the normalized singular values; n equal ones give n (Roy and Vetterli 2007)."""
    share = values / values.sum(dim=-1, keepdim=True).clamp_min(1e-30)
    return torch.special.entr(share).sum(dim=-1).exp()


@torch.no_grad()
def token_to_token(model: GPT) -> Float[Tensor, "C C"]:
    """W_E W_U, summed over the vocabulary, with the gain of the final norm."""
    return matrix(model.embedding.token).mT @ (read_gain(model) * matrix(model.unembedding))


@torch.no_grad()
def copying(head: Head, between: Float[Tensor, "C C"]) -> float:
    """From -1 to 1: whether the head raises the probability of the tokens it attends to (1: a copying head).

    Sum of the eigenvalues of W_U W_OV W_E over the sum of their magnitudes. That V x V matrix has the same nonzero
    eigenvalues as the D x D matrix W_V W_E W_U W_O; `between` is its middle part (`token_to_token`).
    """
    return copying_score(head.value @ between @ head.out)


def copying_score(square: Float[Tensor, "D D"]) -> float:
    """Sum of the eigenvalues over the sum of their magnitudes; 0 for a zero matrix."""
    eigenvalues = torch.linalg.eigvals(square.double())
    return float(eigenvalues.sum().real / eigenvalues.abs().sum().clamp_min(1e-300))


class Composition(NamedTuple):
    """How much of one head's output a head in a later layer reads: one number per pair, 0 at chance level."""

    query: Tensor
    """Q-composition: through the later head's queries"""
    key: Tensor
    """K-composition: through its keys, as an induction head reads a previous-token head"""
    value: Tensor
    """V-composition: through its values"""


@torch.no_grad()
def composition(writers: list[Head], readers: list[Head]) -> Composition:
    """Composition of each earlier head (row) with each later head (column).

    |A W_OV| / (|A| |W_OV|) - 1 / √C in Frobenius norms, where A is W_QKᵀ, W_QK or W_OV of the later head; 1 / √C is the
    root mean square for independent random maps.
    """
    written = [(head.out, head.value) for head in writers]
    return Composition(
        query=overlap(written, [(head.key.mT, head.query) for head in readers]),
        key=overlap(written, [(head.query.mT, head.key) for head in readers]),
        value=overlap(written, [(head.out, head.value) for head in readers]),
    )


def compositions(layers: list[list[Head]]) -> Composition:
    """Composition of all pairs of heads, in layer order: (LH, LH); nan unless the column's layer is later."""
    H, count = len(layers[0]), sum(map(len, layers))
    found = Composition(*(torch.full((count, count), math.nan) for _ in Composition._fields))
    for number, readers in enumerate(layers[1:], 1):
        earlier = [head for layer in layers[:number] for head in layer]
        for whole, part in zip(found, composition(earlier, readers), strict=True):
            whole[: number * H, number * H : (number + 1) * H] = part
    return found


def overlap(earlier: list[tuple[Tensor, Tensor]], later: list[tuple[Tensor, Tensor]]) -> Float[Tensor, "W R"]:
    """Norm of the product of two maps over the product of their norms, minus chance level; 0 / 0 counts as 0.

    A map is a pair of factors, (C, D) and (D, C). The outer factors are replaced by the R of their QR decompositions,
    which preserves the norms and avoids C x C matrices.
    """
    (up, down), (to, of) = ([torch.stack(factors) for factors in zip(*maps, strict=True)] for maps in (earlier, later))
    up_R, down_R, to_R, of_R = (torch.linalg.qr(factor).R for factor in (up, down.mT, to, of.mT))
    middle = torch.einsum("rdc,wce->wrde", of, up)
    both = torch.linalg.matrix_norm(to_R @ middle @ down_R.mT.unsqueeze(1))
    alone = torch.linalg.matrix_norm(up_R @ down_R.mT).unsqueeze(1) * torch.linalg.matrix_norm(to_R @ of_R.mT)
    return both / alone.clamp_min(1e-30) - up.size(1) ** -0.5


def read_gain(model: GPT) -> Tensor:
    """The gain of the norm before the unembedding; in a post-norm network it is the last block's second norm."""
    return (model.norm if isinstance(model.norm, nn.LayerNorm) else model.blocks[-1].norm_2).weight.detach()


@torch.no_grad()
def writes(model: GPT, layer: int, neuron: int) -> Float[Tensor, "V"]:
    """Change of each token's logit per unit of a neuron's activation: its column of W-down, unembedded."""
    column = matrix(model.blocks[layer].mlp.layers[-1])[:, neuron]
    return matrix(model.unembedding) @ ((column - column.mean()) * read_gain(model))


@torch.no_grad()
def neuron_activations(model: GPT, tokens: Int[Tensor, "B T"], layer: int) -> Float[Tensor, "B T N"]:
    """The activation of each MLP neuron of a layer at each position, one text at a time to limit memory."""
    down = model.blocks[layer].mlp.layers[-1]
    rows = []
    for row in tokens.split(1):
        with at_rest(model), noted({"down": down}) as seen:
            model.vectors(row)
        rows.append(seen["down"][0])
    return torch.cat(rows)


def most_selective(activations: Float[Tensor, "B T N"], count: int) -> list[int]:
    """The neurons with the highest peak, in standard deviations above their mean activation."""
    flat = activations.flatten(0, 1)
    peak = (flat.amax(dim=0) - flat.mean(dim=0)) / flat.std(dim=0, correction=0).clamp_min(1e-6)
    return peak.topk(min(count, len(peak))).indices.tolist()


def most_exciting(activations: Float[Tensor, "B T"], count: int) -> list[tuple[int, int]]:
    """(text, position) of a neuron's highest activations, at most one per text."""
    best = activations.max(dim=1)
    return [(row, int(best.indices[row])) for row in best.values.topk(min(count, len(best.values))).indices.tolist()]

"""What a head or a neuron is for, as numbers that its weights and patterns have, never as a story.

Scores follow Elhage et al. 2021, "A mathematical framework for transformer circuits", and Olsson et al. 2022,
"In-context learning and induction heads". Those that come from weights alone leave out biases and what the layer norm
subtracts and divides by; its gain is folded in. They are approximations of what the network does.
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
    """Random tokens, and then the same again: nothing but the repetition can be known about them."""
    first = torch.randint(vocabulary, (rows, half), generator=torch.Generator().manual_seed(seed))
    return torch.cat([first, first], dim=1)


@torch.no_grad()
def patterns(model: GPT, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "L H T T"]:
    """What each head attends to, on the mean of these texts."""
    layers = capture(model, tokens).layers
    pairs = zip(model.blocks, layers, strict=True)
    return torch.stack([attention(block.attention, layer.attention_in).pattern.mean(dim=0) for block, layer in pairs])


def previous_token(pattern: Float[Tensor, "... T T"]) -> Float[Tensor, "..."]:
    """How much of its attention a head gives to the token just before."""
    return pattern.diagonal(-1, -2, -1).mean(dim=-1)


def duplicate_token(pattern: Float[Tensor, "... T T"]) -> Float[Tensor, "..."]:
    """In the second half of `repeated` tokens: to the same token, where it stood before."""
    return pattern.diagonal(-(pattern.size(-1) // 2), -2, -1).mean(dim=-1)


def induction(pattern: Float[Tensor, "... T T"]) -> Float[Tensor, "..."]:
    """In the second half: to the token that came after it then, which is the one that comes now."""
    half = pattern.size(-1) // 2
    return pattern.diagonal(1 - half, -2, -1)[..., 1:].mean(dim=-1)


def chance(T: int) -> tuple[float, float, float]:
    """Previous-token, duplicate-token and induction score of a head that attends to all in view alike."""
    even = torch.ones(T, T).tril() / torch.arange(1, T + 1).unsqueeze(1)
    return float(previous_token(even)), float(duplicate_token(even)), float(induction(even))


class Head(NamedTuple):
    """One head's four matrices, in the lessons' columns: vectors are multiplied from the left."""

    query: Tensor
    """(D, C)"""
    key: Tensor
    """(D, C)"""
    value: Tensor
    """(D, C): the lesson's Value-down"""
    out: Tensor
    """(C, D): the lesson's Value-up"""


def heads(block: Block) -> list[Head]:
    """The heads of a block, the gain of the norm before them folded in."""
    module: CausalSelfAttention = block.attention
    gain = 1.0 if isinstance(block, PostNormBlock) else block.norm_1.weight.detach()
    rows = [
        (matrix(layer) * gain).unflatten(0, (module.n_head, -1)) for layer in (module.query, module.key, module.value)
    ]
    out = heads_of(matrix(module.out), module.n_head).transpose(0, 1)
    return [Head(*parts) for parts in zip(*rows, out, strict=True)]


@torch.no_grad()
def singular_values(left: Float[Tensor, "N D"], right: Float[Tensor, "D M"]) -> Float[Tensor, "D"]:
    """Of left @ right, the largest first: at most D aren't zero, for the product has rank D at most.

    The product itself, C x C for a head, is never made.
    """
    return torch.linalg.svdvals(torch.linalg.qr(left).R @ torch.linalg.qr(right.mT).R.mT)


def qk_singular_values(head: Head) -> Float[Tensor, "D"]:
    """Of W_Qᵀ W_K, all that decides where the head looks; with rotary positions, at places near its own."""
    return singular_values(head.query.mT, head.key)


def ov_singular_values(head: Head) -> Float[Tensor, "D"]:
    """Of W_O W_V, all that decides what it adds."""
    return singular_values(head.out, head.value)


def effective_rank(values: Float[Tensor, "... D"]) -> Float[Tensor, "..."]:
    """exp of the entropy of the singular values' shares: how many equal ones spread as far (Roy and Vetterli 2007)."""
    share = values / values.sum(dim=-1, keepdim=True).clamp_min(1e-30)
    return torch.special.entr(share).sum(dim=-1).exp()


@torch.no_grad()
def token_to_token(model: GPT) -> Float[Tensor, "C C"]:
    """W_E W_U, summed over the vocabulary: what the embedding puts in as the unembedding would read it."""
    return matrix(model.embedding.token).mT @ (read_gain(model) * matrix(model.unembedding))


@torch.no_grad()
def copying(head: Head, between: Float[Tensor, "C C"]) -> float:
    """From -1 to 1: whether what the head looks at becomes likelier (1: a copying head).

    Sum of the eigenvalues of W_U W_OV W_E over the sum of their magnitudes. That V x V matrix shares its eigenvalues,
    apart from zeros, with the D x D matrix W_V W_E W_U W_O, of which `between` is the middle (`token_to_token`).
    """
    return copying_score(head.value @ between @ head.out)


def copying_score(square: Float[Tensor, "D D"]) -> float:
    """Sum of the eigenvalues over the sum of their magnitudes; 0 for a matrix of zeros."""
    eigenvalues = torch.linalg.eigvals(square.double())
    return float(eigenvalues.sum().real / eigenvalues.abs().sum().clamp_min(1e-300))


class Composition(NamedTuple):
    """How much of what one head writes another, in a later layer, reads: one number for each pair, 0 by chance."""

    query: Tensor
    """in what it asks"""
    key: Tensor
    """in where it finds it: induction heads have a previous-token head here"""
    value: Tensor
    """in what it hands on"""


@torch.no_grad()
def composition(writers: list[Head], readers: list[Head]) -> Composition:
    """Of each of the earlier heads (rows) with each of the later ones (columns).

    |A W_OV| / |A| |W_OV| in Frobenius norms, where A is W_QKᵀ, W_QK or W_OV of the later head, less 1 / √C: maps that
    know nothing of each other come to that (as the root of the mean square).
    """
    written = [(head.out, head.value) for head in writers]
    return Composition(
        query=overlap(written, [(head.key.mT, head.query) for head in readers]),
        key=overlap(written, [(head.query.mT, head.key) for head in readers]),
        value=overlap(written, [(head.out, head.value) for head in readers]),
    )


def compositions(layers: list[list[Head]]) -> Composition:
    """Of all heads, layer after layer, with all: (LH, LH), nan unless the reader (column) is in a later layer."""
    H, count = len(layers[0]), sum(map(len, layers))
    found = Composition(*(torch.full((count, count), math.nan) for _ in Composition._fields))
    for number, readers in enumerate(layers[1:], 1):
        earlier = [head for layer in layers[:number] for head in layer]
        for whole, part in zip(found, composition(earlier, readers), strict=True):
            whole[: number * H, number * H : (number + 1) * H] = part
    return found


def overlap(earlier: list[tuple[Tensor, Tensor]], later: list[tuple[Tensor, Tensor]]) -> Float[Tensor, "W R"]:
    """Norm of the product of two maps over the product of their norms, less chance; 0 / 0 counts as 0.

    A map is two factors, (C, D) and (D, C). The norm of a product is that of the middle between the triangles of the
    outer factors' QR decompositions, so that no C x C matrix is ever made.
    """
    (up, down), (to, of) = ([torch.stack(factors) for factors in zip(*maps, strict=True)] for maps in (earlier, later))
    up_R, down_R, to_R, of_R = (torch.linalg.qr(factor).R for factor in (up, down.mT, to, of.mT))
    middle = torch.einsum("rdc,wce->wrde", of, up)
    both = torch.linalg.matrix_norm(to_R @ middle @ down_R.mT.unsqueeze(1))
    alone = torch.linalg.matrix_norm(up_R @ down_R.mT).unsqueeze(1) * torch.linalg.matrix_norm(to_R @ of_R.mT)
    return both / alone.clamp_min(1e-30) - up.size(1) ** -0.5


def read_gain(model: GPT) -> Tensor:
    """The gain of the norm before the unembedding, which is the last block's own where norms come after the sums."""
    return (model.norm if isinstance(model.norm, nn.LayerNorm) else model.blocks[-1].norm_2).weight.detach()


@torch.no_grad()
def writes(model: GPT, layer: int, neuron: int) -> Float[Tensor, "V"]:
    """What a neuron adds to every token's logit for each unit it is active: its column of W-down, read out."""
    column = matrix(model.blocks[layer].mlp.layers[-1])[:, neuron]
    return matrix(model.unembedding) @ ((column - column.mean()) * read_gain(model))


@torch.no_grad()
def neuron_activations(model: GPT, tokens: Int[Tensor, "B T"], layer: int) -> Float[Tensor, "B T N"]:
    """How active each neuron of a layer's MLP is at each position; text by text, for there may be much of it."""
    down = model.blocks[layer].mlp.layers[-1]
    rows = []
    for row in tokens.split(1):
        with at_rest(model), noted({"down": down}) as seen:
            model.vectors(row)
        rows.append(seen["down"][0])
    return torch.cat(rows)


def most_selective(activations: Float[Tensor, "B T N"], count: int) -> list[int]:
    """The neurons whose highest activation stands out most from their usual one, in standard deviations."""
    flat = activations.flatten(0, 1)
    peak = (flat.amax(dim=0) - flat.mean(dim=0)) / flat.std(dim=0, correction=0).clamp_min(1e-6)
    return peak.topk(min(count, len(peak))).indices.tolist()


def most_exciting(activations: Float[Tensor, "B T"], count: int) -> list[tuple[int, int]]:
    """(text, position) where a neuron is most active, at most one place in each text."""
    best = activations.max(dim=1)
    return [(row, int(best.indices[row])) for row in best.values.topk(min(count, len(best.values))).indices.tolist()]

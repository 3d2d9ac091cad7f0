"""Geometry of an embedding: nearest tokens, analogies, directions, PCA.

Each function takes a matrix (V, C) with one row per token.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def dot_products(table: Float[Tensor, "V C"], vector: Float[Tensor, "C"]) -> Float[Tensor, "V"]:
    """Dot product with each row, as in attention and the unembedding: long vectors score higher."""
    return table @ vector


def cosines(table: Float[Tensor, "V C"], vector: Float[Tensor, "C"]) -> Float[Tensor, "V"]:
    """Cosine similarity with each row, from -1 to 1; 0 for a zero vector."""
    return F.normalize(table, dim=-1) @ F.normalize(vector, dim=-1)


def nearest(scores: Float[Tensor, "V"], count: int, without: tuple[int, ...] = ()) -> list[tuple[int, float]]:
    """The `count` highest scores as (token, score), excluding the tokens in `without`."""
    order = [token for token in scores.argsort(descending=True, stable=True).tolist() if token not in without]
    return [(token, float(scores[token])) for token in order[:count]]


class Analogy(NamedTuple):
    """How close each token is to a - b + c."""

    scores: Float[Tensor, "V"]
    """cosine with every token"""
    inputs: tuple[int, int, int]
    """a, b, c"""

    def nearest(self, count: int, with_inputs: bool) -> list[tuple[int, float]]:
        """The nearest tokens to a - b + c. With the inputs included, a or c itself usually comes first."""
        return nearest(self.scores, count, () if with_inputs else self.inputs)

    def rank(self, token: int, with_inputs: bool) -> int:
        """The rank of a token (1 is nearest) among all tokens, or all except the inputs."""
        better = (self.scores > self.scores[token]).nonzero().flatten().tolist()
        return 1 + sum(with_inputs or other not in self.inputs for other in better)


def analogy(table: Float[Tensor, "V C"], a: int, b: int, c: int) -> Analogy:
    """a - b + c, such as king - man + woman (Mikolov et al. 2013, "Linguistic regularities")."""
    return Analogy(cosines(table, table[a] - table[b] + table[c]), (a, b, c))


def projections(table: Float[Tensor, "V C"], start: int, end: int) -> Float[Tensor, "V"]:
    """Position of each token along the line from one token to another: 0 at the start, 1 at the end.

    Raises ValueError if the two have the same vector.
    """
    direction = table[end] - table[start]
    if not direction.any():
        raise ValueError("both tokens have the same vector, so the direction is undefined")
    return (table - table[start]) @ direction / (direction @ direction)


class Components(NamedTuple):
    """Points projected onto their first principal components."""

    points: Float[Tensor, "N K"]
    explained: Float[Tensor, "K"]
    """fraction of the variance along each axis"""


def principal_components(rows: Float[Tensor, "N C"], count: int = 2) -> Components:
    """Project the centred rows onto the directions of greatest variance (PCA).

    The sign of a direction is arbitrary: its entry of largest magnitude is made positive.
    """
    centred = rows - rows.mean(dim=0)
    _, S, directions = torch.linalg.svd(centred, full_matrices=False)
    largest = directions.gather(1, directions.abs().argmax(dim=1, keepdim=True))
    points = centred @ (directions * largest.sign())[:count].mT
    return Components(points, (S.square() / S.square().sum().clamp_min(1e-30))[:count])

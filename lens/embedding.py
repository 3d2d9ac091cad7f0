"""The embedding as a space: which tokens lie near each other, and whether directions in it mean something.

Every function takes the matrix with a row per token, (V, C): a network's own, or any other table of vectors.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def dot_products(table: Float[Tensor, "V C"], vector: Float[Tensor, "C"]) -> Float[Tensor, "V"]:
    """Alignment as attention and the unembedding measure it: long vectors count for more."""
    return table @ vector


def cosines(table: Float[Tensor, "V C"], vector: Float[Tensor, "C"]) -> Float[Tensor, "V"]:
    """Alignment of the directions alone, from -1 to 1; 0 with a vector of zeros."""
    return F.normalize(table, dim=-1) @ F.normalize(vector, dim=-1)


def nearest(scores: Float[Tensor, "V"], count: int, without: tuple[int, ...] = ()) -> list[tuple[int, float]]:
    """The highest scores and whose they are, some left out."""
    order = [token for token in scores.argsort(descending=True, stable=True).tolist() if token not in without]
    return [(token, float(scores[token])) for token in order[:count]]


class Analogy(NamedTuple):
    """What lies near a - b + c."""

    scores: Float[Tensor, "V"]
    """cosine with every token"""
    inputs: tuple[int, int, int]
    """a, b, c"""

    def nearest(self, count: int, with_inputs: bool) -> list[tuple[int, float]]:
        """The best answers. Those with the inputs are the honest ones: the nearest is usually a or c itself."""
        return nearest(self.scores, count, () if with_inputs else self.inputs)

    def rank(self, token: int, with_inputs: bool) -> int:
        """1 for the nearest, among all tokens or among all but the inputs."""
        better = (self.scores > self.scores[token]).nonzero().flatten().tolist()
        return 1 + sum(with_inputs or other not in self.inputs for other in better)


def analogy(table: Float[Tensor, "V C"], a: int, b: int, c: int) -> Analogy:
    """a - b + c, such as king - man + woman (Mikolov et al. 2013, "Linguistic regularities")."""
    return Analogy(cosines(table, table[a] - table[b] + table[c]), (a, b, c))


def projections(table: Float[Tensor, "V C"], start: int, end: int) -> Float[Tensor, "V"]:
    """How far along the way from one token to another each token lies: 0 at the start, 1 at the end.

    Raises ValueError if the two have the same vector.
    """
    way = table[end] - table[start]
    if not way.any():
        raise ValueError("the two tokens have the same vector, which gives no direction")
    return (table - table[start]) @ way / (way @ way)


class Components(NamedTuple):
    """Points in the plane of their greatest spread."""

    points: Float[Tensor, "N K"]
    explained: Float[Tensor, "K"]
    """share of the variance along each axis"""


def principal_components(rows: Float[Tensor, "N C"], count: int = 2) -> Components:
    """PCA: the centred rows along the directions of greatest variance.

    A direction's sign is free; here the entry of largest magnitude in each is positive.
    """
    centred = rows - rows.mean(dim=0)
    _, S, directions = torch.linalg.svd(centred, full_matrices=False)
    largest = directions.gather(1, directions.abs().argmax(dim=1, keepdim=True))
    points = centred @ (directions * largest.sign())[:count].mT
    return Components(points, (S.square() / S.square().sum().clamp_min(1e-30))[:count])

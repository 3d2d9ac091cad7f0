"""Causal self-attention: every position asks which earlier positions matter, and adds what they have to say."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from configs.schema import GPTConfig


def attention_scores(q: Float[Tensor, "... T D"], k: Float[Tensor, "... S D"]) -> Float[Tensor, "... T S"]:
    """How well each key answers each query: all dot products, scaled so that softmax is not saturated."""
    return q @ k.mT / math.sqrt(q.size(-1))  # QKᵀ / √D


def hide_future(scores: Float[Tensor, "... T S"]) -> Float[Tensor, "... T S"]:
    """-inf wherever the key stands after the query; the last query stands beside the last key."""
    T, S = scores.shape[-2:]
    future = torch.ones(T, S, dtype=torch.bool, device=scores.device).triu(1 + S - T)
    return scores.masked_fill(future, -torch.inf)


def attention_pattern(
    q: Float[Tensor, "... T D"], k: Float[Tensor, "... S D"], causal: bool = True
) -> Float[Tensor, "... T S"]:
    """softmax(QKᵀ / √D), the later words hidden (Vaswani et al. 2017; lesson: "Attention, step by step").

    Rows are queries and sum to 1; the lessons draw the transpose, a column per query.
    """
    scores = attention_scores(q, k)
    if causal:
        scores = hide_future(scores)
    return scores.softmax(dim=-1)


class CausalSelfAttention(nn.Module):
    """H heads look at the same vectors in H subspaces; their findings are concatenated and projected back.

    In the lesson's words a head's slice of `value` is its Value-down and its slice of `out` its Value-up.
    The fused kernel computes `attention_pattern(q, k) @ v` without ever storing the pattern.
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        C = config.n_embd
        self.n_head = config.n_head
        self.query = nn.Linear(C, C, config.bias)
        self.key = nn.Linear(C, C, config.bias)
        self.value = nn.Linear(C, C, config.bias)
        self.out = nn.Linear(C, C, config.bias)
        self.turn = None
        if config.position == "rotary":
            from model.position import Rotation

            self.turn = Rotation(config.context_length, C // config.n_head)

    def split(self, x: Float[Tensor, "B T C"]) -> Float[Tensor, "B H T D"]:
        """Give each head its own D = C / H numbers of every vector."""
        return x.unflatten(-1, (self.n_head, -1)).transpose(1, 2)

    def queries_and_keys(self, x: Float[Tensor, "B T C"]) -> tuple[Float[Tensor, "B H T D"], Float[Tensor, "B H T D"]]:
        """What each position asks and answers to, in each head; turned by its place if positions are rotary."""
        q, k = self.split(self.query(x)), self.split(self.key(x))
        return (self.turn(q), self.turn(k)) if self.turn else (q, k)

    def forward(self, x: Float[Tensor, "B T C"]) -> Float[Tensor, "B T C"]:
        (q, k), v = self.queries_and_keys(x), self.split(self.value(x))
        heads = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(heads.transpose(1, 2).flatten(-2))

"""Causal self-attention: every position asks which earlier positions matter, and adds what they have to say."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from configs.schema import GPTConfig

Heads = Float[Tensor, "B H T D"]  # vectors of H heads, at T positions of B texts
SHORT = 512  # positions; from twice that on, storing the pattern saves no time and takes much memory


def attention_scores(q: Float[Tensor, "... T D"], k: Float[Tensor, "... S D"]) -> Float[Tensor, "... T S"]:
    """How well each key answers each query: all dot products, scaled so that softmax is not saturated."""
    return (q / math.sqrt(q.size(-1))) @ k.mT  # QKᵀ / √D; scaling q is cheaper than scaling the scores


def hide_future(scores: Float[Tensor, "... T S"]) -> Float[Tensor, "... T S"]:
    """-inf wherever the key comes after the query; the last query is aligned with the last key."""
    T, S = scores.shape[-2:]
    return scores + scores.new_full((T, S), -torch.inf).triu(1 + S - T)


def attention_pattern(
    q: Float[Tensor, "... T D"], k: Float[Tensor, "... S D"], causal: bool = True
) -> Float[Tensor, "... T S"]:
    """softmax(QKᵀ / √D), later tokens masked (Vaswani et al. 2017; lesson: "Attention, step by step").

    Rows are queries and sum to 1; the lessons draw the transpose, a column per query.
    """
    scores = attention_scores(q, k)
    if causal:
        scores = hide_future(scores)
    return scores.softmax(dim=-1)


def attend(q: Heads, k: Heads, v: Heads) -> Heads:
    """What each position takes from the earlier ones: their values, weighted by its row of the pattern.

    The fused kernel never stores the pattern. Its backward pass is slow in bfloat16 on CPUs, so short ones are stored.
    """
    if v.is_cpu and torch.is_grad_enabled() and v.dtype == torch.bfloat16 and v.size(-2) <= SHORT:
        return attention_pattern(q, k) @ v
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


class CausalSelfAttention(nn.Module):
    """H heads attend to the same vectors in H subspaces; their results are concatenated and projected back.

    In the lesson's terms, a head's slice of `value` is its Value-down and its slice of `out` its Value-up.
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

    def split(self, x: Float[Tensor, "B T C"]) -> Heads:
        """Give each head its own D = C / H dimensions of every vector."""
        return x.unflatten(-1, (self.n_head, -1)).transpose(1, 2)

    def queries_and_keys(self, x: Float[Tensor, "B T C"]) -> tuple[Heads, Heads]:
        """What each position asks and what it answers to, in each head; rotated by its position if that is rotary."""
        q, k = self.split(self.query(x)), self.split(self.key(x))
        return (self.turn(q), self.turn(k)) if self.turn else (q, k)

    def forward(self, x: Float[Tensor, "B T C"]) -> Float[Tensor, "B T C"]:
        (q, k), v = self.queries_and_keys(x), self.split(self.value(x))
        return self.out(attend(q, k, v).transpose(1, 2).flatten(-2))

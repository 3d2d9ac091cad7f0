"""The decoder-only transformer: vectors of tokens talk to each other, think, and predict what comes next.

Shapes, here and everywhere:
B batch, T position (time), C width (n_embd), H head, D width of a head (C / H), V vocabulary.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from configs.schema import GPTConfig
from model.attention import CausalSelfAttention
from model.dropout import Dropout
from model.initialise import initialise_gpt
from model.mlp import MLP


class Embedding(nn.Module):
    """Token and position become one vector: a row of the embedding matrix plus a row for the position.

    `token.weight` is the lesson's W_E transposed: one row, not one column, per token.
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.token = nn.Embedding(config.vocab_size, config.n_embd)
        self.position = build_position(config)

    def forward(self, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B T C"]:
        return self.token(tokens) + self.position(torch.arange(tokens.size(-1), device=tokens.device))


def build_position(config: GPTConfig) -> nn.Module:
    """What is added for each position: a learned row, sinusoids, or nothing where attention rotates instead."""
    if config.position == "learned":
        return nn.Embedding(config.context_length, config.n_embd)
    from model.position import ADDED

    return ADDED[config.position](config.context_length, config.n_embd)


class Block(nn.Module):
    """One round: look around (attention), then think (MLP); each adds its result to its input (pre-LN)."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        C = config.n_embd
        self.norm_1 = nn.LayerNorm(C, bias=config.bias)
        self.attention = CausalSelfAttention(config)
        self.norm_2 = nn.LayerNorm(C, bias=config.bias)
        self.mlp = MLP([C, 4 * C, C], config.activation, bias=config.bias)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Float[Tensor, "B T C"]) -> Float[Tensor, "B T C"]:
        x = x + self.dropout(self.attention(self.norm_1(x)))
        return x + self.dropout(self.mlp(self.norm_2(x)))


class PostNormBlock(Block):
    """The original transformer's order: add, then normalise (Vaswani et al. 2017)."""

    def forward(self, x: Float[Tensor, "B T C"]) -> Float[Tensor, "B T C"]:
        x = self.norm_1(x + self.dropout(self.attention(x)))
        return self.norm_2(x + self.dropout(self.mlp(x)))


BLOCKS = {"pre": Block, "post": PostNormBlock}


class Unembedding(nn.Linear):
    """One score (logit) per token of the vocabulary: the dot product of a vector with the token's row."""

    @staticmethod
    def probabilities(logits: Float[Tensor, "... V"], temperature: float = 1.0) -> Float[Tensor, "... V"]:
        """softmax(logits / T). T = 0 is the limit: all on the largest, the first in a tie (lesson: "GPT").

        Raises ValueError for a temperature that is negative, infinite or NaN.
        """
        if not 0 <= temperature < math.inf:
            raise ValueError(f"temperature must be finite and >= 0, got {temperature}")
        if temperature == 0:
            return torch.zeros_like(logits).scatter(-1, logits.argmax(dim=-1, keepdim=True), 1.0)
        # The largest is subtracted first and T clamped to the dtype's range, so that the quotient is never inf / inf.
        limits = torch.finfo(logits.dtype)
        T = min(max(temperature, limits.tiny), limits.max)
        return ((logits - logits.amax(dim=-1, keepdim=True)) / T).softmax(dim=-1)


class GPT(nn.Module):
    """Tokens in; for every position, one logit per possible next token (Radford et al. 2019)."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = Embedding(config)
        self.dropout = Dropout(config.dropout)
        self.blocks = nn.ModuleList(BLOCKS[config.norm](config) for _ in range(config.n_layer))
        self.norm = nn.LayerNorm(config.n_embd, bias=config.bias) if config.norm == "pre" else nn.Identity()
        self.unembedding = Unembedding(config.n_embd, config.vocab_size, bias=False)
        if config.tied:
            self.unembedding.weight = self.embedding.token.weight
        initialise_gpt(self, config.init)

    def vectors(self, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B T C"]:
        """The vector of every position after the last block and norm. Raises ValueError beyond context_length."""
        if tokens.size(-1) > self.config.context_length:
            raise ValueError(f"{tokens.size(-1)} tokens exceed context_length={self.config.context_length}")
        x = self.dropout(self.embedding(tokens))
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def forward(self, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B T V"]:
        """Logits at all positions, for training."""
        return self.unembedding(self.vectors(tokens))

    def next_logits(self, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B V"]:
        """Logits at the last position only, for sampling."""
        return self.unembedding(self.vectors(tokens)[:, -1])

"""The logit lens (predictions after each layer) and the surprisal of each token of a text."""

import math
from itertools import groupby
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lens.capture import Captured, at_rest
from model import GPT
from model.generate import window_start

AT_ONCE = 512  # vectors per matrix product, over several layers: halves the time for GPT-2


@torch.no_grad()
def read_out(model: GPT, x: Float[Tensor, "... C"]) -> Float[Tensor, "... V"]:
    """Logits of residual-stream vectors from any layer, through the final layer norm and the unembedding."""
    return model.unembedding(model.norm(x))


class LogitLens(NamedTuple):
    """The most likely next token at each depth and position of one text."""

    tokens: Int[Tensor, "L T"]
    """by depth: before the first block, then after each; the last row is the model's actual prediction"""
    probabilities: Float[Tensor, "L T"]


@torch.no_grad()
def logit_lens(model: GPT, captured: Captured) -> LogitLens:
    """The prediction after each layer (nostalgebraist 2020, "Interpreting GPT: the logit lens").

    Only the last layer is trained to be unembedded, so early rows are a hint and not what the layer "thinks".
    """
    early = torch.cat([x[0] for x in captured.stream[:-1]])
    found = [read_out(model, some).softmax(dim=-1).max(dim=-1) for some in early.split(AT_ONCE)]
    found.append(captured.logits[0].softmax(dim=-1).max(dim=-1))  # the network's actual output
    T = captured.tokens.size(-1)
    return LogitLens(
        *(torch.cat(parts).view(-1, T) for parts in ([f.indices for f in found], [f.values for f in found]))
    )


@torch.no_grad()
def surprise(model: GPT, tokens: list[int]) -> Float[Tensor, "T"]:
    """-log2 p of each token given the tokens before it, in bits; NaN for the first token.

    Beyond the context the window moves as in sampling.
    """
    T, device = model.config.context_length, next(model.parameters()).device
    bits = torch.full((len(tokens),), torch.nan)
    for start, group in groupby(range(1, len(tokens)), key=lambda position: window_start(position, T)):
        first, last = (positions := [*group])[0], positions[-1]
        with at_rest(model):
            logits = model(torch.tensor([tokens[start:last]], device=device))[0]
        came = torch.tensor(tokens[first : last + 1], device=device).unsqueeze(1)
        nats = -logits[first - 1 - start :].log_softmax(dim=-1).gather(1, came).squeeze(1)
        bits[first : last + 1] = nats.cpu() / math.log(2)
    return bits

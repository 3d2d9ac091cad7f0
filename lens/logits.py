"""What the vectors would say if they were read now: the logit lens, and how surprised the network is by a text."""

import math
from itertools import groupby
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lens.capture import Captured, at_rest
from model import GPT
from model.generate import window_start

AT_ONCE = 512  # vectors; of many depths at once, as one product, GPT-2's are read in half the time


@torch.no_grad()
def read_out(model: GPT, x: Float[Tensor, "... C"]) -> Float[Tensor, "... V"]:
    """Logits of vectors from anywhere in the network, through its last layer norm and its unembedding."""
    return model.unembedding(model.norm(x))


class LogitLens(NamedTuple):
    """The likeliest next token at every depth and position of one text."""

    tokens: Int[Tensor, "L T"]
    """by depth: before the first block, then after each; the last row is the model's own answer"""
    probabilities: Float[Tensor, "L T"]


@torch.no_grad()
def logit_lens(model: GPT, captured: Captured) -> LogitLens:
    """The network's guess, layer by layer (nostalgebraist 2020, "Interpreting GPT: the logit lens").

    The vectors before the last layer were never meant to be read so: early rows are a hint, not what the layer thinks.
    """
    early = torch.cat([x[0] for x in captured.stream[:-1]])
    found = [read_out(model, some).softmax(dim=-1).max(dim=-1) for some in early.split(AT_ONCE)]
    found.append(captured.logits[0].softmax(dim=-1).max(dim=-1))  # what the network has said itself
    T = captured.tokens.size(-1)
    return LogitLens(
        *(torch.cat(parts).view(-1, T) for parts in ([f.indices for f in found], [f.values for f in found]))
    )


@torch.no_grad()
def surprise(model: GPT, tokens: list[int]) -> Float[Tensor, "T"]:
    """-log2 p of each token after all in view before it: bits, NaN for the first, which comes after nothing.

    Beyond the context the window jumps on as it does in sampling.
    """
    T, device = model.config.context_length, next(model.parameters()).device
    bits = torch.full((len(tokens),), torch.nan)
    for start, group in groupby(range(1, len(tokens)), key=lambda place: window_start(place, T)):
        first, last = (places := [*group])[0], places[-1]
        with at_rest(model):
            logits = model(torch.tensor([tokens[start:last]], device=device))[0]
        came = torch.tensor(tokens[first : last + 1], device=device).unsqueeze(1)
        nats = -logits[first - 1 - start :].log_softmax(dim=-1).gather(1, came).squeeze(1)
        bits[first : last + 1] = nats.cpu() / math.log(2)
    return bits

"""How wrong a network is: one number, the mean over all targets that count."""

from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from data.dataset import IGNORED

AT_ONCE = 2**22  # logits in float32 at a time: 16 MB


def cross_entropy(logits: Float[Tensor, "... V"], targets: Int[Tensor, "..."]) -> Float[Tensor, ""]:
    """Mean of -log p(target) in nats, where p = softmax(logits): 0 for a sure and right answer, ln V for a guess."""
    rows, wanted = logits.flatten(0, -2), targets.flatten()
    if logits.numel() <= AT_ONCE:
        return F.cross_entropy(widened(rows), wanted, ignore_index=IGNORED)
    size = max(1, AT_ONCE // rows.size(-1))
    parts = zip(rows.split(size), wanted.split(size), strict=True)
    sums = [checkpoint(summed, *part, use_reentrant=False, preserve_rng_state=False) for part in parts]
    return torch.stack(sums).sum() / (wanted != IGNORED).sum()


def summed(logits: Float[Tensor, "N V"], targets: Int[Tensor, "N"]) -> Float[Tensor, ""]:
    """Some rows of it, added up. Of a large vocabulary not all are ever in float32; the gradient computes them anew."""
    return F.cross_entropy(widened(logits), targets, ignore_index=IGNORED, reduction="sum")


def widened(logits: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """In float32 at least, in which a sum over a vocabulary loses nothing."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def squared_error(logits: Float[Tensor, "... V"], targets: Int[Tensor, "..."]) -> Float[Tensor, ""]:
    """The lessons' cost: (sigmoid(logits) - one-hot)², summed over the outputs, mean over the examples.

    Nielsen's book takes half of this; torch.nn.MSELoss() a V-th.
    """
    logits = widened(logits)
    counts = (targets != IGNORED).unsqueeze(-1)
    one_hot = torch.zeros_like(logits).scatter_(-1, targets.unsqueeze(-1) * counts, counts.to(logits.dtype))
    return F.mse_loss(logits.sigmoid() * counts, one_hot, reduction="sum") / counts.sum()


READINGS = {"cross_entropy": partial(torch.softmax, dim=-1), "squared_error": torch.sigmoid}
LOSSES = {"cross_entropy": cross_entropy, "squared_error": squared_error}

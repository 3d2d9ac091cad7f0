"""How wrong a network is: one number, the mean over all targets that count."""

from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from data.dataset import IGNORED


def cross_entropy(logits: Float[Tensor, "... V"], targets: Int[Tensor, "..."]) -> Float[Tensor, ""]:
    """Mean of -log p(target) in nats, where p = softmax(logits): 0 for a sure and right answer, ln V for a guess."""
    return F.cross_entropy(logits.flatten(0, -2), targets.flatten(), ignore_index=IGNORED)


def squared_error(logits: Float[Tensor, "... V"], targets: Int[Tensor, "..."]) -> Float[Tensor, ""]:
    """The lessons' cost: (sigmoid(logits) - one-hot)², summed over the outputs, mean over the examples.

    Nielsen's book takes half of this; torch.nn.MSELoss() a V-th.
    """
    counts = (targets != IGNORED).unsqueeze(-1)
    one_hot = torch.zeros_like(logits).scatter_(-1, targets.unsqueeze(-1) * counts, counts.to(logits.dtype))
    return F.mse_loss(logits.sigmoid() * counts, one_hot, reduction="sum") / counts.sum()


READINGS = {"cross_entropy": partial(torch.softmax, dim=-1), "squared_error": torch.sigmoid}
LOSSES = {"cross_entropy": cross_entropy, "squared_error": squared_error}

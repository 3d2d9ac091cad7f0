"""How wrong a network is: one number, the mean over all targets that count."""

from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from data.dataset import IGNORED

AT_ONCE = 2**22  # logits in float32 at a time: 16 MB


def cross_entropy(logits: Float[Tensor, "... V"], targets: Int[Tensor, "..."]) -> Float[Tensor, ""]:
    """Mean of -log p(target) in nats, where p = softmax(logits): 0 if certain and correct, ln V for a blind guess."""
    rows, wanted = logits.flatten(0, -2), targets.flatten()
    if logits.numel() <= AT_ONCE:
        return F.cross_entropy(widened(rows), wanted, ignore_index=IGNORED)
    return InParts.apply(rows, wanted) / (wanted != IGNORED).sum()


class InParts(torch.autograd.Function):
    """Cross-entropy of a large vocabulary, summed, some rows at a time.

    Each part's gradient is computed with its loss, so beside the logits only their gradient is kept, in their own type:
    half of what the whole takes in float32, a quarter in bfloat16.
    """

    @staticmethod
    def forward(ctx, logits: Float[Tensor, "N V"], targets: Int[Tensor, "N"]) -> Float[Tensor, ""]:
        size, sums = max(1, AT_ONCE // logits.size(-1)), []
        gradient = torch.empty_like(logits) if ctx.needs_input_grad[0] else None
        for number, (rows, wanted) in enumerate(zip(logits.split(size), targets.split(size), strict=True)):
            with torch.set_grad_enabled(gradient is not None):
                part = rows.detach().requires_grad_(gradient is not None)
                sums.append(F.cross_entropy(widened(part), wanted, ignore_index=IGNORED, reduction="sum"))
            if gradient is not None:
                (slope,) = torch.autograd.grad(sums[-1], part)
                gradient[number * size : (number + 1) * size] = slope
        ctx.save_for_backward(gradient)
        return torch.stack([part.detach() for part in sums]).sum()

    @staticmethod
    def backward(ctx, upstream: Float[Tensor, ""]) -> tuple[Tensor, None]:
        return ctx.saved_tensors[0].mul_(upstream), None


def widened(logits: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """At least float32, which is precise enough for a sum over a vocabulary."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def squared_error(logits: Float[Tensor, "... V"], targets: Int[Tensor, "..."]) -> Float[Tensor, ""]:
    """The lessons' cost: (sigmoid(logits) - one-hot)², summed over the outputs, mean over the examples.

    Nielsen's book takes half of this; torch.nn.MSELoss() a V-th.
    """
    logits = widened(logits)
    counts = (targets != IGNORED).unsqueeze(-1)
    one_hot = torch.zeros_like(logits).scatter_(-1, targets.unsqueeze(-1) * counts, counts.to(logits.dtype))
    return F.mse_loss(logits.sigmoid() * counts, one_hot, reduction="sum") / counts.sum()


def cross_entropy_of_each(logits: Float[Tensor, "*N V"], targets: Int[Tensor, "*N"]) -> Float[Tensor, "*N"]:
    """`cross_entropy` of every single target; 0 where a target is ignored."""
    size = max(1, AT_ONCE // logits.size(-1))
    parts = zip(logits.flatten(0, -2).split(size), targets.flatten().split(size), strict=True)
    each = [F.cross_entropy(widened(row), y, ignore_index=IGNORED, reduction="none") for row, y in parts]
    return torch.cat(each).view(targets.shape)


def squared_error_of_each(logits: Float[Tensor, "*N V"], targets: Int[Tensor, "*N"]) -> Float[Tensor, "*N"]:
    """`squared_error` of every single target; 0 where a target is ignored."""
    wanted = F.one_hot(targets.clamp(min=0), logits.size(-1))
    return (widened(logits).sigmoid() - wanted).square().sum(-1) * (targets != IGNORED)


READINGS = {"cross_entropy": partial(torch.softmax, dim=-1), "squared_error": torch.sigmoid}
LOSSES = {"cross_entropy": cross_entropy, "squared_error": squared_error}
EACH = {cross_entropy: cross_entropy_of_each, squared_error: squared_error_of_each}

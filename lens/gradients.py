"""Gradient norm of each layer."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lens.capture import at_rest


def layer_names(model: nn.Module) -> dict[str, list[str]]:
    """Parameter names grouped by layer: layers.0, or embedding, blocks.0, ..."""
    groups: dict[str, list[str]] = {}
    for name, _ in model.named_parameters():
        parts = name.split(".")
        groups.setdefault(".".join(parts[: 2 if parts[1:2] and parts[1].isdecimal() else 1]), []).append(name)
    return groups


def layer_gradients(
    model: nn.Module, x: Tensor, y: Tensor, loss: Callable[[Tensor, Tensor], Tensor]
) -> dict[str, float]:
    """The gradient norm of each layer on one batch; their squares sum to the square of the global norm.

    Frozen layers are omitted. The model is unchanged.
    """
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    with at_rest(model), torch.enable_grad():
        gradients = torch.autograd.grad(loss(model(x), y), list(parameters.values()), allow_unused=True)
    squares = {n: float(g.square().sum()) for n, g in zip(parameters, gradients, strict=True) if g is not None}
    sums = {
        layer: sum(squares[name] for name in names if name in squares)
        for layer, names in layer_names(model).items()
        if any(name in squares for name in names)
    }
    return {layer: total**0.5 for layer, total in sums.items()}

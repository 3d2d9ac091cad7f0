"""Initial weights: small and random, so that neurons differ; the lessons' N(0, 1); or zero, which never learns."""

import math

from torch import nn


def initialise_mlp(model: nn.Module, init: str) -> None:
    """Initialise a digit network; "uniform" keeps the weights that nn.Linear has drawn."""
    if init != "uniform":
        std = {"normal": 1.0, "zero": 0.0}[init]
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=std)


def initialise_gpt(model: nn.Module, init: str) -> None:
    """Draw the matrices of a GPT from N(0, std); biases are zero, gains one.

    "gpt2" has std 0.02; matrices that write to the residual stream, which sums 2 n_layer of them, are scaled down by
    √(2 n_layer) (Radford et al. 2019).
    """
    std = {"gpt2": 0.02, "normal": 1.0, "zero": 0.0}[init]
    blocks = sum(name.endswith("attention.out") for name, _ in model.named_modules())
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            residual = init == "gpt2" and name.endswith(("attention.out", "mlp.layers.1"))
            nn.init.normal_(module.weight, std=std / math.sqrt(2 * blocks) if residual else std)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)

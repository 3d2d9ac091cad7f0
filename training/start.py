"""Where training starts from: the network, weights and tokenizer of something that has been trained before."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from configs.schema import GPTConfig, MLPConfig
from data.tokenizer import Tokenizer
from training.checkpoint import ADAPTERS, model_tensors
from training.restore import restore


class Base(NamedTuple):
    """All that a new run takes over from an old one."""

    name: str
    """as train.start has it"""
    model_config: MLPConfig | GPTConfig
    tokenizer: Tokenizer | None
    """None for a digit network"""
    weights: dict[str, Tensor]
    """by our names; a tied weight once"""


def find_base(name: str) -> Base:
    """What `train.start` names: a run, or one of its checkpoint folders. Raises UserError if there is none."""
    restored = restore(name)
    return Base(name, restored.model_config, restored.tokenizer, model_tensors(restored.model))


@torch.no_grad()
def load_weights(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Copy weights of the same names and shapes into the model; adapters, which only it has, stay as they begin."""
    for name, parameter in model_tensors(model).items():
        if not name.endswith(ADAPTERS):
            parameter.copy_(weights[name])

"""Everything one training step needs: the network, its optimisers, its data, its settings."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from configs.schema import Config, TrainConfig
from data.dataset import Dataset
from model import build_model
from training.optim import build_optimizers
from training.world import ALONE, World

Forward = Callable[[Tensor], Tensor]


class Learner(NamedTuple):
    """A plain value; training is done by functions that take it."""

    config: Config
    """resolved: no `auto` left"""
    data: Dataset
    model: nn.Module
    forward: Forward
    """the model as training calls it: compiled, in bfloat16, its gradients shared with other processes"""
    parameters: list[nn.Parameter]
    """the trainable ones"""
    optimizers: list[Optimizer]
    world: World
    """the processes that share every step"""
    shared: nn.Module | None
    """the wrapper that sums their gradients; None for a single process"""


def build_network(config: Config) -> nn.Module:
    """The network, initialised from torch's random state; only trainable parameters require a gradient.

    Raises UserError for adapters and frozen parts that do not fit it.
    """
    assert config.model is not None and config.model.kind != "auto"
    model = build_model(config.model)
    if config.train.freeze:
        from training.freeze import freeze

        freeze(model, config.train.freeze)
    return model


def build_learner(config: Config, data: Dataset, world: World = ALONE) -> Learner:
    """A network initialised from the run's seed, ready to train."""
    train = config.train
    torch.set_num_threads(int(train.threads))
    torch.manual_seed(train.seed)
    model = build_network(config).to(train.device)
    parameters = [p for p in model.parameters() if p.requires_grad]
    forward, shared = replicate(model, train, world)
    products = torch.bfloat16 if train.dtype == "bfloat16" else torch.float32
    optimizers = build_optimizers(model, config.optim, products)
    return Learner(config, data, model, forward, parameters, optimizers, world, shared)


def replicate(model: nn.Module, train: TrainConfig, world: World) -> tuple[Forward, nn.Module | None]:
    """The model as training calls it, and what shares its gradients; the model stays plain, its names as they are.

    What shares them is compiled with the model, as torch's documentation has it: the compiler leaves room for the
    exchange between its parts.
    """
    shared = None
    if world.size > 1:
        from training.parallel import shared_by_all

        shared = shared_by_all(model)
    forward: Forward = shared or model
    if train.compile == "on":
        from training.compiled import compiled

        forward = compiled(shared or model)
    if train.dtype == "bfloat16":
        return torch.autocast(str(train.device).partition(":")[0], torch.bfloat16)(forward), shared
    return forward, shared

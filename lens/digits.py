"""Digit networks: first-layer weights as images, activations, confidence on noise, mistakes."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from data.digits import PIXELS, SIDE
from model import MLP

Reading = Callable[[Tensor], Tensor]
"""output activation: softmax or ten sigmoids, depending on the loss"""


def weight_images(model: MLP) -> Float[Tensor, "N 28 28"]:
    """The weights of each first-layer neuron, its row of W, as an image."""
    return model.layers[0].weight.detach().unflatten(1, (SIDE, SIDE))


@torch.no_grad()
def activations(model: MLP, images: Float[Tensor, "B 784"], read: Reading) -> list[Tensor]:
    """The activations of every layer, (B, neurons) each, from the pixels to the outputs after `read`."""
    layers, (*hidden, last) = [images], model.layers
    for layer in hidden:
        layers.append(model.activation(layer(layers[-1])))
    return [*layers, read(last(layers[-1]))]


def shifted(image: Float[Tensor, "784"], right: int, down: int) -> Float[Tensor, "784"]:
    """The image shifted by whole pixels, cropped at the frame and filled with black."""
    moved = torch.zeros(SIDE, SIDE)
    moved[max(0, down) : SIDE + min(0, down), max(0, right) : SIDE + min(0, right)] = image.view(SIDE, SIDE)[
        max(0, -down) : SIDE - max(0, down), max(0, -right) : SIDE - max(0, right)
    ]
    return moved.flatten()


def noise(count: int, seed: int = 0) -> Float[Tensor, "count 784"]:
    """Images of uniform random pixels."""
    return torch.rand(count, PIXELS, generator=torch.Generator().manual_seed(seed))


def specimens(image: Float[Tensor, "784"], seed: int = 0) -> dict[str, Float[Tensor, "784"]]:
    """The digit, a shifted copy, noise and a blank image."""
    return {
        "the digit": image,
        "shifted by 6 pixels": shifted(image, 6, 0),
        "noise": noise(1, seed)[0],
        "a blank": torch.zeros(PIXELS),
    }


@torch.no_grad()
def top_scores(model: MLP, images: Float[Tensor, "B 784"], read: Reading) -> Float[Tensor, "B"]:
    """The score of the predicted digit for each image."""
    return read(model(images)).amax(dim=-1)


class Mistakes(NamedTuple):
    """Misclassified images, most confident first."""

    which: Int[Tensor, "M"]
    """indices in the split"""
    read_as: Int[Tensor, "M"]
    scores: Float[Tensor, "M"]
    """of the predicted digits"""
    confusion: Int[Tensor, "10 10"]
    """number of images by label (row) and prediction (column)"""


@torch.no_grad()
def mistakes(model: MLP, images: Float[Tensor, "B 784"], labels: Int[Tensor, "B"], read: Reading) -> Mistakes:
    outputs = read(model(images))
    scores, answers = outputs.max(dim=-1)
    classes = outputs.size(-1)
    confusion = torch.bincount(labels * classes + answers, minlength=classes**2).view(classes, classes)
    wrong = (answers != labels).nonzero().flatten()
    wrong = wrong[scores[wrong].argsort(descending=True, stable=True)]
    return Mistakes(wrong, answers[wrong], scores[wrong], confusion)

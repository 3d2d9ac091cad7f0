"""The lessons' small examples, which need no run: the computations behind the demo views."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from model import MLP
from model.gpt import Unembedding
from model.initialise import initialise_mlp

SCORES = (-0.8, -5.0, 0.5, 1.5, 3.4, -2.3, 2.5)  # from the lesson
TEMPERATURES = (0.0, 0.5, 1.0, 2.0, 5.0)


def softmax_at(temperatures: Sequence[float], scores: Sequence[float] = SCORES) -> Float[Tensor, "N V"]:
    """The same scores as probabilities at each temperature (lesson: "What is a GPT?")."""
    return torch.stack([Unembedding.probabilities(torch.tensor(scores), T) for T in temperatures])


def surface(points: Float[Tensor, "... 2"]) -> Float[Tensor, "..."]:
    """A cost with two minima, the left one lower: (x² - 1)² + x / 4 + y²."""
    x, y = points.unbind(-1)
    return (x.square() - 1).square() + x / 4 + y.square()


def descend(start: tuple[float, float], rate: float, steps: int) -> Float[Tensor, "steps_and_1 2"]:
    """The path of gradient descent, w - rate * gradient; it stops before a step that would leave [-3, 3]."""
    path = [torch.tensor(start)]
    for _ in range(steps):
        w = path[-1].clone().requires_grad_()
        (gradient,) = torch.autograd.grad(surface(w), w)
        w = (w - rate * gradient).detach()
        if w.abs().max() > 3:
            break
        path.append(w)
    return torch.stack(path)


def angles(vectors: Float[Tensor, "N d"]) -> Float[Tensor, "pairs"]:
    """The angle of each pair of vectors, in degrees from 0 to 180."""
    unit = F.normalize(vectors, dim=-1)
    above = torch.triu_indices(len(unit), len(unit), 1)
    return torch.rad2deg((unit @ unit.mT)[above[0], above[1]].clamp(-1, 1).arccos())


def random_angles(dimensions: int, vectors: int = 200, seed: int = 0) -> Float[Tensor, "pairs"]:
    """Angles between random directions, in degrees; their standard deviation is about 1 / √d radians."""
    return angles(torch.randn(vectors, dimensions, generator=torch.Generator().manual_seed(seed)))


def welch_degrees(vectors: int, dimensions: int) -> float:
    """Welch bound (1974): in any set of this many unit vectors, some pair is at least this far from 90 degrees."""
    if vectors <= dimensions:
        return 0.0
    return math.degrees(math.asin(math.sqrt((vectors - dimensions) / (dimensions * (vectors - 1)))))


def most_vectors(dimensions: int, degrees: float) -> int:
    """The Welch bound on the number of vectors with all pairs within `degrees` of perpendicular.

    0 if there is none: it sets no limit once sin²(degrees) reaches 1 / d.
    """
    square = math.sin(math.radians(degrees)) ** 2
    if square * dimensions >= 1:
        return 0
    return math.floor(dimensions * (1 - square) / (1 - dimensions * square) + 1e-9)


def hinge(cosine: Tensor) -> Tensor:
    """Cost in the lesson's first experiment: the excess of each |cosine| over 0.01."""
    return (cosine.abs() - 0.01).relu().sum()


def high_power(cosine: Tensor) -> Tensor:
    """16-norm of the cosines, dominated by the worst pair."""
    return cosine.pow(16).sum().pow(1 / 16)


def pack(vectors: int, dimensions: int, cost=high_power, steps: int = 200, seed: int = 0) -> Float[Tensor, "N d"]:
    """Random unit vectors, spread out by gradient descent on a cost of their cosines."""
    x = torch.randn(vectors, dimensions, generator=torch.Generator().manual_seed(seed)).requires_grad_()
    optimizer = torch.optim.Adam([x], lr=0.05)
    diagonal = torch.eye(vectors, dtype=torch.bool)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 0.05 * (1 - step / steps)
        unit = F.normalize(x, dim=-1)
        optimizer.zero_grad()
        cost((unit @ unit.mT).masked_fill(diagonal, 0)).backward()
        optimizer.step()
    return F.normalize(x.detach(), dim=-1)


class Fact(NamedTuple):
    """A hand-set neuron's activation and output for four names."""

    names: tuple[str, ...]
    activations: Float[Tensor, "4"]
    basketball: Float[Tensor, "4"]
    """component of each output along "basketball" """


def fact_neuron(dimensions: int, perpendicular: bool, seed: int = 0) -> Fact:
    """Row M + J, bias -1, ReLU, column B (lesson: "How LLMs store facts"): an MLP of one neuron.

    With perpendicular directions it outputs 1 for Michael Jordan and 0 for the others; with random ones, nearly so.
    """
    directions = torch.randn(dimensions, 5, generator=torch.Generator().manual_seed(seed))
    michael, jordan, phelps, basketball, _ = (
        torch.linalg.qr(directions).Q if perpendicular else F.normalize(directions, dim=0)
    ).unbind(1)
    mlp = MLP([dimensions, 1, dimensions], "relu")
    up, down = mlp.layers
    with torch.no_grad():
        up.weight.copy_((michael + jordan).unsqueeze(0))
        up.bias.fill_(-1)
        down.weight.copy_(basketball.unsqueeze(1))
        down.bias.zero_()
        people = torch.stack([michael + jordan, michael, jordan, michael + phelps])
        active = mlp.activation(up(people)).squeeze(1)
        return Fact(("Michael Jordan", "Michael", "Jordan", "Michael Phelps"), active, mlp(people) @ basketball)


class Learned(NamedTuple):
    """A small network after a few training steps."""

    model: MLP
    accuracy: list[float]
    """training accuracy before each step"""


def learn(init: str, images: Float[Tensor, "N 784"], labels: Tensor, steps: int = 150, seed: int = 0) -> Learned:
    """Train a 784-16-16-10 sigmoid network on full batches, with initial weights zero, uniform or N(0, 1)."""
    torch.manual_seed(seed)
    model = MLP([784, 16, 16, 10], "sigmoid")
    initialise_mlp(model, init)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    accuracy = []
    for _ in range(steps):
        logits = model(images)
        accuracy.append(float((logits.argmax(dim=-1) == labels).float().mean()))
        optimizer.zero_grad()
        F.cross_entropy(logits, labels).backward()
        optimizer.step()
    return Learned(model, accuracy)


@torch.no_grad()
def first_activations(init: str, images: Float[Tensor, "N 784"], seed: int = 0) -> Float[Tensor, "N 16"]:
    """First-layer sigmoid activations on real digits before training."""
    torch.manual_seed(seed)
    model = MLP([784, 16, 16, 10], "sigmoid")
    initialise_mlp(model, init)
    return model.activation(model.layers[0](images))


def saturated(activations: Tensor) -> float:
    """Fraction of activations below 0.05 or above 0.95, where a sigmoid's gradient is small."""
    return float(((activations < 0.05) | (activations > 0.95)).float().mean())


class Deep(nn.Module):
    """A stack of equal MLPs, with or without residual connections."""

    def __init__(self, depth: int, width: int, activation: str, residual: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(MLP([width, width, width], activation) for _ in range(depth))
        self.residual = residual

    def forward(self, x: Float[Tensor, "B C"]) -> Float[Tensor, "B C"]:
        for layer in self.layers:
            x = x + layer(x) if self.residual else layer(x)
        return x


def layer_lengths(activation: str, residual: bool, depth: int = 20, width: int = 64, seed: int = 0) -> list[float]:
    """The gradient norm of each layer, from the input up, of an untrained network."""
    torch.manual_seed(seed)
    model = Deep(depth, width, activation, residual)
    F.mse_loss(model(torch.randn(32, width)), torch.randn(32, width)).backward()
    return [math.sqrt(sum(float(p.grad.square().sum()) for p in layer.parameters())) for layer in model.layers]

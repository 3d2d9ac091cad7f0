"""But what is a neural network? Neurons that hold numbers, and weighted sums that connect the layers."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from data.digits import Digits
from model import MLP, MLPConfig, build_model
from model.mlp import ACTIVATIONS
from tests.lessons.helpers_a import accuracy, digits, double_mlp, examples, learner, trained, update


def test_L01_an_input_neuron_holds_a_grey_level_from_0_black_to_1_white():
    """But what is a neural network?: an input neuron holds its pixel's grey level, from 0 (black) to 1 (white)."""
    greys = torch.zeros(1, 784, dtype=torch.uint8)
    greys[0, :256] = torch.arange(256)
    x, _ = Digits({"train": (greys, torch.tensor([0]))}).batch("train", 0, 1)
    assert x.shape == (1, 784)
    assert x[0, :256].tolist() == [np.float32(grey) / np.float32(255) for grey in range(256)]
    assert (x[0, 256:] == 0).all()


def test_L01_pixels_are_read_row_by_row():
    """But what is a neural network?: the 28x28 pixels become 784 input neurons, the top row first."""
    images, labels = digits()["train"]
    one, seven = (images[labels == digit].view(-1, 28, 28).float().mean(dim=0) for digit in (1, 7))
    assert one.sum(dim=0).max() > 1.5 * one.sum(dim=1).max()  # a 1 stands upright: its ink shares a few columns
    assert seven[:14].sum() > 1.1 * seven[14:].sum()  # a 7 has its bar at the top


def test_L01_a_trained_network_is_lost_on_inverted_and_on_transposed_images():
    """But what is a neural network?: the weights only work for white ink on black and upright digits."""
    model, (x, y) = trained(augmented=True).model, trained(augmented=True).data.splits["test"]
    assert accuracy(model, x, y) > 0.7
    assert accuracy(model, 1 - x, y) < 0.2
    assert accuracy(model, x.view(-1, 28, 28).mT.flatten(1), y) < 0.25


def test_L02_a_neuron_is_a_function_of_the_layer_before_it():
    """But what is a neural network?: each neuron takes all outputs of the previous layer and gives one number."""
    model, (x, _) = double_mlp([784, 16, 16, 10]), examples(5, 784, 10)
    z: list[torch.Tensor] = []
    for layer in model.layers:
        layer.register_forward_hook(lambda layer, inputs, output: z.append(output))
    model(x)
    assert [x.size(-1), *(sums.size(-1) for sums in z)] == [784, 16, 16, 10]
    for k, layer in enumerate(model.layers):
        before = x if k == 0 else 1 / (1 + (-z[k - 1]).exp())
        neuron = sum(before[:, i] * layer.weight[3, i] for i in range(before.size(1))) + layer.bias[3]
        torch.testing.assert_close(z[k][:, 3], neuron, rtol=0, atol=1e-12)


def test_L03_the_network_is_one_function_of_13002_numbers():
    """But what is a neural network?: the whole network is one huge function with 13,002 parameters."""
    torch.manual_seed(0)
    one, other = (MLP([784, 16, 16, 10], dropout=0.5).eval() for _ in range(2))
    numbers, x = parameters_to_vector(one.parameters()), torch.rand(3, 784)
    assert numbers.shape == (13002,) and one(x).shape == (3, 10)
    assert not torch.equal(one(x), other(x))
    vector_to_parameters(numbers, other.parameters())
    assert torch.equal(one(x), one(x)) and torch.equal(one(x), other(x))


def test_L04_a_layer_knows_nothing_but_the_layer_before_it():
    """But what is a neural network?: a layer's activations are determined by those of the previous layer alone."""
    model, (x, _) = double_mlp([5, 5, 5, 5]), examples(2, 5, 5)
    assert not torch.equal(*model(x))
    same = torch.full((2, 5), 0.3, dtype=torch.float64)
    model.layers[1].register_forward_pre_hook(lambda layer, inputs: (same,))
    # With equal second layers, different inputs no longer matter, but for how a processor rounds each row of a batch.
    torch.testing.assert_close(*model(x), rtol=0, atol=1e-14)


def test_L05_sigmoid_says_how_positive_the_weighted_sum_is():
    """But what is a neural network?: sigmoid squashes any sum into 0..1: the more positive, the closer to 1."""
    z = torch.tensor([-1000.0, *range(-30, 31), 1000.0], dtype=torch.float64)
    a = ACTIVATIONS["sigmoid"](z)
    assert (a[0], a[31], a[-1]) == (0, 0.5, 1)
    assert (a.diff() > 0).all()


def test_L06_the_next_layer_is_sigmoid_of_W_a_plus_b():
    """But what is a neural network?: a' = sigmoid(W a + b), where W has one row per neuron of the next layer."""
    model, (x, _) = double_mlp([4, 3, 2]), examples(1, 4, 2)
    (W, b), (W_out, b_out) = ((layer.weight.detach().numpy(), layer.bias.detach().numpy()) for layer in model.layers)
    assert W.shape == (3, 4)
    a = [1 / (1 + math.exp(-(sum(W[j, i] * float(x[0, i]) for i in range(4)) + b[j]))) for j in range(3)]
    np.testing.assert_allclose(model(x)[0].detach().numpy(), W_out @ a + b_out, rtol=0, atol=1e-12)


def test_L07_a_weight_is_the_strength_of_one_connection():
    """But what is a neural network?: a weight is how strongly one pixel excites or inhibits one neuron."""
    model, black = double_mlp([784, 3]), torch.zeros(784, dtype=torch.float64)
    picture = model.layers[0].weight[2].view(28, 28)  # neuron 2's weights, as the lesson draws them
    for row, column in [(0, 0), (5, 9), (9, 5), (27, 27)]:
        white = black.clone()
        white[row * 28 + column] = 1
        push = (model(white) - model(black))[2]
        torch.testing.assert_close(push, picture[row, column], rtol=0, atol=1e-12)


def test_L08_a_bias_shifts_its_neuron_on_every_input():
    """But what is a neural network?: a bias makes a neuron more or less likely to be active, whatever the image."""
    model, (x, _) = double_mlp([6, 4]), examples(7, 6, 4)
    W, b = model.layers[0].weight, model.layers[0].bias
    assert len(b) == len(W) == 4  # a bias for every row, not for every column
    before = model(x)
    with torch.no_grad():
        b[1] += 0.25
    shift = torch.tensor([0, 0.25, 0, 0], dtype=torch.float64).expand(7, 4)
    torch.testing.assert_close(model(x) - before, shift, rtol=0, atol=1e-12)


def off_any_affine_map(x: torch.Tensor, outputs: torch.Tensor) -> float:
    """How far the outputs are from the nearest that a single weighted sum could give, at the worst."""
    with_one = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], dim=1)
    nearest = with_one @ torch.linalg.lstsq(with_one, outputs.detach()).solution
    return (outputs - nearest).abs().max().item()


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_L09_without_an_activation_all_layers_are_one_affine_map(name):
    """But what is a neural network?: without the activation, many layers are no more than a single weighted sum."""
    model, (x, _) = double_mlp([6, 5, 4, 3], name), examples(200, 6, 3)
    x = 30 * x  # far to both sides of where an activation bends
    matrix, offset = torch.eye(6, dtype=torch.float64), torch.zeros(6, dtype=torch.float64)
    for layer in model.layers:
        matrix, offset = layer.weight @ matrix, layer.weight @ offset + layer.bias
    affine = x @ matrix.mT + offset
    assert off_any_affine_map(x, model(x)) > 0.01
    model.activation = nn.Identity()
    torch.testing.assert_close(model(x), affine, rtol=0, atol=1e-12)
    assert off_any_affine_map(x, model(x)) < 1e-10


FORMULAS = {
    "sigmoid": lambda z: 1 / (1 + math.exp(-z)),
    "relu": lambda z: max(0.0, z),
    "tanh": lambda z: (math.exp(z) - math.exp(-z)) / (math.exp(z) + math.exp(-z)),
    "gelu": lambda z: z * (1 + math.erf(z / math.sqrt(2))) / 2,
    "gelu_tanh": lambda z: z * (1 + math.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3))) / 2,
}


@pytest.mark.parametrize(("dtype", "near"), [(torch.float64, 1e-12), (torch.float32, 1e-6)], ids=str)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_L09_every_activation_is_its_formula(name, dtype, near):
    """But what is a neural network?: sigmoid is the older activation, ReLU the modern one, and others exist."""
    z = torch.cat([torch.linspace(-5, 5, 101), torch.linspace(-300, 300, 601)]).to(dtype)
    by_hand = torch.tensor([FORMULAS[name](number) for number in z.tolist()], dtype=dtype)
    torch.testing.assert_close(ACTIVATIONS[name](z), by_hand, rtol=near, atol=near)


def test_L10_the_digit_network_has_13002_parameters():
    """But what is a neural network?: 784-16-16-10 fully connected, with 12,960 weights and 42 biases to adjust."""
    sizes = [p.numel() for p in build_model(MLPConfig()).parameters()]
    assert sizes == [784 * 16, 16, 16 * 16, 16, 16 * 10, 10]
    assert sum(sizes) == 13002


def test_L11_a_batch_in_matrix_form_is_a_loop_over_its_examples():
    """But what is a neural network?: one matrix product does for a whole batch what a loop does example by example."""
    model, (x, _) = double_mlp([8, 6, 5, 4]), examples(9, 8, 4)
    one_by_one = torch.stack([model(image) for image in x])
    torch.testing.assert_close(model(x), one_by_one, rtol=0, atol=1e-12)


def test_L12_the_same_network_learns_whatever_the_data_shows():
    """But what is a neural network?: nothing in the network is about digits; what it learns comes from the data."""
    y = torch.arange(4).repeat(25)  # which quarter of a noisy image is the brightest
    images = torch.randint(120, (100, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for image, quarter in zip(images, y.tolist(), strict=True):
        image[14 * (quarter // 2) :, 14 * (quarter % 2) :][:14, :14] += 120
    data = Digits({"train": (images.flatten(1), y)})
    pupil = learner(data, {"lr": 1e-2}, {"sizes": [784, 8, 4]}, batch_size=50)
    for step in range(60):
        update(pupil, step)
    assert pupil.model(data.splits["train"][0]).shape == (100, 4)
    assert accuracy(pupil.model, *data.splits["train"]) == 1

"""What a digit network is seen to do is what it does."""

import pytest
import torch
from torch import Tensor

from lens import digits
from model import MLP
from tests.lessons import helpers_a as lessons
from training.loss import READINGS


@pytest.fixture
def model() -> MLP:
    """784-16-16-10 after half a second of learning."""
    return lessons.trained().model


def images() -> tuple[Tensor, Tensor]:
    """The test split, grey levels and labels."""
    x, y = lessons.digits()["test"]
    return x.float() / 255, y.long()


def test_a_weight_image_is_one_neurons_row(model):
    found = digits.weight_images(model)
    assert found.shape == (16, 28, 28)
    x = images()[0][:1]
    sums = (found * x.view(28, 28)).sum(dim=(1, 2)) + model.layers[0].bias.detach()
    torch.testing.assert_close(sums, model.layers[0](x)[0].detach(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("loss", READINGS)
@pytest.mark.parametrize("activation", ["sigmoid", "relu"])
def test_each_layer_follows_from_the_one_before_neuron_by_neuron(loss, activation):
    torch.manual_seed(0)
    model, x = MLP([784, 16, 16, 10], activation), torch.rand(2, 784)
    pixels, *hidden, out = digits.activations(model, x, READINGS[loss])
    assert torch.equal(pixels, x) and [layer.size(1) for layer in (*hidden, out)] == [16, 16, 10]
    squash = {"sigmoid": lambda z: 1 / (1 + (-z).exp()), "relu": lambda z: z.clamp_min(0)}[activation]
    for before, after, layer in zip((pixels, hidden[0]), hidden, model.layers, strict=False):
        for neuron in range(16):
            z = (layer.weight[neuron].detach() * before).sum(dim=1) + layer.bias[neuron].detach()
            torch.testing.assert_close(after[:, neuron], squash(z), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(out, READINGS[loss](model(x)).detach())


def test_ten_sigmoids_can_all_be_dark_while_softmax_always_adds_up():
    model = MLP([784, 16, 10])
    with torch.no_grad():
        model.layers[-1].weight.zero_()
        model.layers[-1].bias.fill_(-9)
    x = digits.noise(3)
    assert digits.top_scores(model, x, READINGS["squared_error"]).max() < 0.001
    torch.testing.assert_close(digits.top_scores(model, x, READINGS["cross_entropy"]), torch.full((3,), 0.1))


def test_a_shift_moves_every_pixel_and_loses_what_leaves_the_frame():
    image = torch.rand(784, generator=torch.Generator().manual_seed(0))
    for right, down in ((3, 0), (0, 2), (-4, 5), (6, -1), (0, 0)):
        moved = digits.shifted(image, right, down).view(28, 28)
        for y in range(28):
            for x in range(28):
                from_x, from_y = x - right, y - down
                inside = 0 <= from_x < 28 and 0 <= from_y < 28
                assert moved[y, x] == (image.view(28, 28)[from_y, from_x] if inside else 0)


def test_noise_is_even_from_black_to_white_and_the_same_for_a_seed():
    found = digits.noise(50, seed=3)
    assert torch.equal(found, digits.noise(50, seed=3)) and not torch.equal(found, digits.noise(50, seed=4))
    assert 0 <= found.min() < 0.001 and 0.999 < found.max() <= 1 and found.mean().sub(0.5).abs() < 0.01


def test_a_digit_comes_with_three_things_that_it_is_not():
    shown = digits.specimens(images()[0][0])
    assert list(shown) == ["the digit", "shifted by 6 pixels", "noise", "a blank"]
    assert torch.equal(shown["the digit"], images()[0][0]) and not shown["a blank"].any()


def test_mistakes_are_the_images_that_are_read_wrongly_the_surest_first(model):
    x, y = images()
    read = READINGS["cross_entropy"]
    found = digits.mistakes(model, x, y, read)
    with torch.inference_mode():
        outputs = read(model(x))
    wrong = [i for i in range(len(y)) if int(outputs[i].argmax()) != int(y[i])]
    assert sorted(found.which.tolist()) == wrong and 10 < len(wrong) < 200
    for place, answer, score in zip(found.which, found.read_as, found.scores, strict=True):
        assert outputs[place].argmax() == answer and outputs[place].max() == score
    assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)


def test_the_table_of_who_is_taken_for_whom_counts_every_image_once(model):
    x, y = images()
    found = digits.mistakes(model, x, y, READINGS["cross_entropy"])
    assert found.confusion.sum() == len(y)
    assert found.confusion.diagonal().sum() == len(y) - len(found.which)
    assert torch.equal(found.confusion.sum(dim=1), torch.bincount(y, minlength=10))
    pairs = [(int(y[i]), int(answer)) for i, answer in zip(found.which, found.read_as, strict=True)]
    assert all(found.confusion[pair] == pairs.count(pair) for pair in set(pairs))


def test_the_highest_score_is_that_of_the_answer(model):
    x, _ = images()
    with torch.inference_mode():
        assert torch.equal(digits.top_scores(model, x, torch.sigmoid), model(x).sigmoid().max(dim=-1).values)

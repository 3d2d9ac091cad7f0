"""Views of a digit network: weights, activations, mistakes."""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from configs.schema import DataConfig, MLPConfig
from data.digits import open_digits
from data.picture import draw as drawn
from data.picture import read_image
from lens import digits
from lens.request import Request
from lens.seen import Seen, table
from model import MLP
from training.loss import READINGS
from training.restore import restore


class DigitRun(NamedTuple):
    """A digit network with its test images."""

    model: MLP
    read: digits.Reading
    images: Tensor
    """of the test split"""
    labels: Tensor
    name: str
    scores: str
    """what an output is called: probability or activation"""


def load_digit_run(request: Request) -> DigitRun:
    """Load the network and its test images. Raises UserError if either is unavailable."""
    restored = restore(str(request.target), request.checkpoint)
    config = restored.record.resolved
    assert isinstance(restored.model, MLP) and isinstance(config.model, MLPConfig)
    images, labels = open_digits(DataConfig(path=config.data.path), config.model.sizes, seed=0).splits["test"]
    name = f"{restored.folder.name}, step {restored.checkpoint.state.step:,}"
    scores = "probability" if config.train.loss == "cross_entropy" else "activation"
    return DigitRun(restored.model, READINGS[config.train.loss], images, labels, name, scores)


def weights(request: Request) -> Seen:
    """The weights of all first-layer neurons, or of one of them pixel by pixel."""
    network = load_digit_run(request)
    images = digits.weight_images(network.model)
    biases = network.model.layers[0].bias.detach()
    neurons = range(len(images)) if request.neuron is None else [request.neuron]
    rows = [
        (n, f"{biases[n]:+.2f}", f"{images[n].min():+.2f}", f"{images[n].max():+.2f}", f"{images[n].norm():.2f}")
        for n in neurons
    ]
    text = f"{network.name}\n\n" + table(("neuron", "bias", "min weight", "max weight", "norm"), rows, left=0)
    if request.neuron is not None:
        text += "\n\n" + shaded(images[request.neuron])
    sentence = (
        "Each image shows the weights of one neuron in the first hidden layer: ink on blue pixels excites it, ink on "
        'red ones inhibits it (lesson: "But what is a neural network?").'
    )

    def draw():
        from lens.figures import digits as figures

        shown = {n: (images[n].numpy(), float(biases[n])) for n in neurons}
        return figures.weights(shown, network.name, sentence)

    return Seen(text, sentence, draw)


def shaded(image: Tensor) -> str:
    """Weights as text: + and ++ for positive, - and -- for negative, doubled above half of the largest magnitude."""
    limit = float(image.abs().max()) or 1.0
    signs = {1: ("+ ", "++"), -1: ("- ", "--")}
    lines = []
    for row in (image / limit).tolist():
        lines.append("".join("  " if abs(v) < 0.25 else signs[1 if v > 0 else -1][abs(v) > 0.5] for v in row).rstrip())
    return "\n".join(lines)


def activations(request: Request) -> Seen:
    """All layers' activations for a digit and three non-digits, and the network's confidence on noise."""
    network = load_digit_run(request)
    image = read_image(request.image) if request.image else network.images[0]
    shown = digits.specimens(image, request.seed)
    layers = {name: digits.activations(network.model, x.unsqueeze(0), network.read) for name, x in shown.items()}
    confidence = {
        "test images": digits.top_scores(network.model, network.images, network.read),
        "noise": digits.top_scores(network.model, digits.noise(1_000, request.seed), network.read),
    }
    rows = []
    for name, values in layers.items():
        best, second = values[-1][0].topk(2).indices.tolist()
        outputs = values[-1][0].tolist()
        lit = ", ".join(f"{int((layer[0] > 0.5).sum())} of {layer.size(1)}" for layer in values[1:-1])
        rows.append((name, lit, f"{best} ({outputs[best]:.1%})", f"{second} ({outputs[second]:.1%})"))
    text = f"{network.name}\n\n{drawn(image)}\n\n" + table(
        ("input", "hidden above 0.5", "predicted", "second"), rows, left=4
    )
    text += f"\n\nhighest {network.scores}\n" + table(
        ("images", "mean", "above 0.9"),
        [(n, f"{s.mean():.2f}", f"{(s > 0.9).float().mean():.1%}") for n, s in confidence.items()],
    )
    sentence = (
        "Each layer's activations determine the next layer's: bright neurons are active, blue edges excite, red edges "
        "inhibit. A network trained only on digits may be confident about non-digits; the histogram shows how often "
        '(lesson: "But what is a neural network?").'
    )

    def draw():
        from lens.figures import digits as figures

        arrays = {name: [layer[0].numpy() for layer in values] for name, values in layers.items()}
        matrices = [layer.weight.detach().numpy() for layer in network.model.layers]
        scores = {name: values.numpy() for name, values in confidence.items()}
        return figures.activations(arrays, matrices, scores, network.scores, network.name, sentence)

    return Seen(text, sentence, draw)


def mistakes(request: Request) -> Seen:
    """The most confident mistakes, and the confusion matrix."""
    network = load_digit_run(request)
    errors = digits.mistakes(network.model, network.images, network.labels, network.read)
    wrong, total = len(errors.which), len(network.labels)
    text = f"{network.name}: {wrong:,} of {total:,} test images misclassified, {wrong / total:.2%}\n\n"
    names = [f"pred {digit}" for digit in range(len(errors.confusion))]
    text += table(
        ("", *names), [(f"label {d}", *(n or "." for n in row)) for d, row in enumerate(errors.confusion.tolist())]
    )
    answers = [
        (int(network.labels[i]), int(answer), float(score), network.images[i].view(28, 28).numpy())
        for i, answer, score in zip(errors.which.tolist(), errors.read_as, errors.scores, strict=True)
    ]
    for label, answer, score, image in answers[: min(request.top, 3)]:
        text += f"\n\nlabel {label}, predicted {answer} ({score:.1%})\n" + drawn(Tensor(image).flatten())
    sentence = (
        "Misclassified images, the most confident first; a network that must always answer is just as confident when "
        'wrong (lesson: "Gradient descent").'
    )

    def draw():
        from lens.figures import digits as figures

        return figures.mistakes(answers, errors.confusion.numpy(), network.name, sentence)

    return Seen(text, sentence, draw)


VIEWS: dict[str, Callable[[Request], Seen]] = {"weights": weights, "activations": activations, "mistakes": mistakes}

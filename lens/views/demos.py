"""Demo views: the lessons' small examples as tables and pictures."""

from collections.abc import Callable

import torch

from configs.schema import DataConfig
from data.digits import open_digits
from lens import demos
from lens.request import Request
from lens.seen import Seen, table


def softmax(request: Request) -> Seen:
    """The lesson's seven scores at five temperatures."""
    rows = demos.softmax_at(demos.TEMPERATURES)
    head = ["score", *(f"T = {T:g}" for T in demos.TEMPERATURES)]
    text = table(
        head,
        [(f"{s:4.1f}", *(f"{p:.3f}" for p in column)) for s, column in zip(demos.SCORES, rows.T.tolist(), strict=True)],
    )
    sentence = (
        "Softmax turns any scores into probabilities: a low temperature favours the largest, a high one levels them, "
        'and the order never changes (lesson: "What is a GPT?").'
    )

    def draw():
        from lens.figures import demos as figures

        return figures.softmax(demos.SCORES, demos.TEMPERATURES, rows.numpy(), sentence)

    return Seen(text, sentence, draw)


WAYS = {  # name: (start, learning rate)
    "small steps, from the right": ((2.0, 1.5), 0.02),
    "small steps, from the left": ((-1.8, -1.5), 0.02),
    "larger steps": ((2.0, -1.5), 0.08),
    "too large: oscillates": ((0.4, 1.8), 0.3),
}


def descent(request: Request) -> Seen:
    """Gradient descent from several starts and learning rates."""
    paths = {name: demos.descend(start, rate, 40) for name, (start, rate) in WAYS.items()}
    rows = []
    for name, path in paths.items():
        x, y = path[-1].tolist()
        cost = float(demos.surface(path[-1]))
        rows.append((name, f"{WAYS[name][1]:g}", len(path) - 1, f"({x:.2f}, {y:.2f})", f"{cost:.3f}"))
    text = table(("path", "rate", "steps", "end", "final cost"), rows)
    sentence = (
        "Each step follows the negative gradient, the direction of steepest descent: the start decides which minimum "
        'is reached, and steps that are too large overshoot it (lesson: "Gradient descent").'
    )

    def draw():
        from lens.figures import demos as figures

        return figures.descent(demos.surface, {name: path.numpy() for name, path in paths.items()}, WAYS, sentence)

    return Seen(text, sentence, draw)


DIMENSIONS = (3, 100, 768, 12_288)
VECTORS, SPACE = 600, 100


def directions(request: Request) -> Seen:
    """Angles between random vectors, and two attempts to fit 600 nearly perpendicular ones into 100 dimensions."""
    drawn = {d: demos.random_angles(d, seed=request.seed) for d in DIMENSIONS}
    rows = [(f"{d:,}", f"{a.mean():.2f}", f"{a.std():.2f}", f"{57.29578 / d**0.5:.2f}") for d, a in drawn.items()]
    packed = {
        "random": demos.angles(demos.pack(VECTORS, SPACE, steps=0, seed=request.seed)),
        "cost: excess of |cosine| over 0.01": demos.angles(demos.pack(VECTORS, SPACE, demos.hinge, seed=request.seed)),
        "cost: 16-norm of cosines": demos.angles(demos.pack(VECTORS, SPACE, demos.high_power, seed=request.seed)),
    }
    least = demos.welch_degrees(VECTORS, SPACE)
    text = table(("dimensions", "mean angle", "std", "1 / sqrt(d), degrees"), rows) + "\n\n"
    text += f"{VECTORS:,} vectors in {SPACE} dimensions\n"
    found = [
        (
            name,
            f"{((a - 90).abs() < 1).float().mean():.1%}",
            f"{(a - 90).abs().max():.1f}",
            f"{((a < 10) | (a > 170)).sum():,}",
        )
        for name, a in packed.items()
    ]
    text += table(("vectors", "pairs within 1 degree of 90", "worst pair off by", "pairs within 10 of 0 or 180"), found)
    text += (
        f"\n\nWelch bound: the worst pair is off by at least {least:.2f} degrees; with all pairs within 1 degree of\n"
        f"90, at most {demos.most_vectors(SPACE, 1)} vectors fit in {SPACE} dimensions, far fewer than 10,000"
    )
    sentence = (
        "Random directions are nearly perpendicular, more so in higher dimensions; but 10,000 vectors within 1 degree "
        "of 90 do not fit in 100 dimensions: the first cost hides pairs that collapsed to 0 or 180, visible only on "
        'the full axis (lesson: "How LLMs store facts", with the correction on its site).'
    )

    def draw():
        from lens.figures import demos as figures

        arrays = [{k: v.numpy() for k, v in group.items()} for group in (drawn, packed)]
        return figures.directions(*arrays, least, (VECTORS, SPACE), sentence)

    return Seen(text, sentence, draw)


def fact(request: Request) -> Seen:
    """A hand-set neuron that stores "Michael Jordan plays basketball"."""
    spaces = {
        "perpendicular": demos.fact_neuron(128, True, request.seed),
        "random, 128 dimensions": demos.fact_neuron(128, False, request.seed),
        "random, 12,288 dimensions": demos.fact_neuron(12_288, False, request.seed),
    }
    names = next(iter(spaces.values())).names
    rows = [(name, *(f"{found.basketball[i]:.3f}" for found in spaces.values())) for i, name in enumerate(names)]
    text = 'component along "basketball" that the MLP adds\n' + table(("input", *spaces), rows)
    sentence = (
        "A neuron with row M + J, bias -1 and column B adds basketball for Michael Jordan only; if the directions are "
        'only nearly perpendicular, a little leaks to others (lesson: "How LLMs store facts").'
    )

    def draw():
        from lens.figures import demos as figures

        return figures.fact(names, {k: v.basketball.numpy() for k, v in spaces.items()}, sentence)

    return Seen(text, sentence, draw)


def some_digits(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images and labels from mnist-5k, which needs no download."""
    images, labels = open_digits(DataConfig(path="mnist-5k"), [784, 10], seed=0).splits["train"]
    return images[:count], labels[:count]


def zero(request: Request) -> Seen:
    """Train two networks on the same digits, one with zero initial weights."""
    images, labels = some_digits(1_000)
    learned = {init: demos.learn(init, images, labels, seed=request.seed) for init in ("zero", "uniform")}
    weights = {init: found.model.layers[0].weight.detach().view(-1, 28, 28) for init, found in learned.items()}
    rows = [
        (init, f"{found.accuracy[-1]:.1%}", len(weights[init].flatten(1).unique(dim=0)))
        for init, found in learned.items()
    ]
    text = table(("initial weights", "accuracy", "distinct neurons of 16"), rows)
    sentence = (
        "With zero initial weights all neurons of a layer get the same gradient and stay identical; random initial "
        'weights break the symmetry (lesson: "Gradient descent").'
    )

    def draw():
        from lens.figures import demos as figures

        curves = {init: found.accuracy for init, found in learned.items()}
        return figures.zero({k: v.numpy() for k, v in weights.items()}, curves, sentence)

    return Seen(text, sentence, draw)


def saturation(request: Request) -> Seen:
    """First-layer activations on digits before training, for two initialisations."""
    images, _ = some_digits(1_000)
    names = {"N(0, 1), as in the lessons": "normal", "U(-1/28, 1/28), PyTorch's default": "uniform"}
    found = {name: demos.first_activations(init, images, request.seed) for name, init in names.items()}
    rows = [(name, f"{demos.saturated(a):.1%}") for name, a in found.items()]
    text = table(("initial weights", "activations below 0.05 or above 0.95"), rows)
    sentence = (
        "A sum of hundreds of pixels weighted by N(0, 1) is far from zero, where the sigmoid is flat: most neurons "
        'start fully off or on and learn slowly (lesson: "But what is a neural network?").'
    )

    def draw():
        from lens.figures import demos as figures

        return figures.saturation({k: v.numpy() for k, v in found.items()}, sentence)

    return Seen(text, sentence, draw)


def vanishing(request: Request) -> Seen:
    """Gradient norms by depth, for sigmoid and ReLU, with and without residuals."""
    kinds = [(name, residual) for name in ("sigmoid", "relu") for residual in (False, True)]
    found = {
        f"{name}, {'with' if residual else 'without'} residuals": demos.layer_lengths(name, residual, seed=request.seed)
        for name, residual in kinds
    }
    rows = [
        (name, f"{lengths[0]:.1e}", f"{lengths[-1]:.1e}", f"{lengths[0] / lengths[-1]:.1e}")
        for name, lengths in found.items()
    ]
    text = table(("20 MLPs of width 64", "gradient norm of first", "of last", "ratio"), rows)
    sentence = (
        "The gradient vanishes as it propagates back through twenty MLPs, so the first ones hardly learn; residual "
        'connections preserve it (lesson: "Backpropagation").'
    )

    def draw():
        from lens.figures import demos as figures

        return figures.vanishing(found, sentence)

    return Seen(text, sentence, draw)


VIEWS: dict[str, Callable[[Request], Seen]] = {
    "softmax": softmax,
    "descent": descent,
    "directions": directions,
    "fact": fact,
    "zero": zero,
    "saturation": saturation,
    "vanishing": vanishing,
}

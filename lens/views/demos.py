"""The lessons' own examples in words."""

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
        "Softmax turns any scores into probabilities: a low temperature gives all to the largest, a high one makes "
        'them equal, and their order stays (lesson: "What is a GPT?").'
    )

    def draw():
        from lens.figures import demos as figures

        return figures.softmax(demos.SCORES, demos.TEMPERATURES, rows.numpy(), sentence)

    return Seen(text, sentence, draw)


WAYS = {  # what it shows: start, rate
    "small steps, from the right": ((2.0, 1.5), 0.02),
    "small steps, from the left": ((-1.8, -1.5), 0.02),
    "larger steps": ((2.0, -1.5), 0.08),
    "too large: from side to side": ((0.4, 1.8), 0.3),
}


def descent(request: Request) -> Seen:
    """Four ways down one surface."""
    ways = {name: demos.descend(start, rate, 40) for name, (start, rate) in WAYS.items()}
    rows = []
    for name, way in ways.items():
        x, y = way[-1].tolist()
        cost = float(demos.surface(way[-1]))
        rows.append((name, f"{WAYS[name][1]:g}", len(way) - 1, f"({x:.2f}, {y:.2f})", f"{cost:.3f}"))
    text = table(("way", "rate", "steps", "ends at", "cost"), rows)
    sentence = (
        "Each step goes against the gradient, the steepest way down: which valley it ends in depends on where it "
        'starts, and steps that are too large leap over it (lesson: "Gradient descent").'
    )

    def draw():
        from lens.figures import demos as figures

        return figures.descent(demos.surface, {name: way.numpy() for name, way in ways.items()}, WAYS, sentence)

    return Seen(text, sentence, draw)


DIMENSIONS = (3, 100, 768, 12_288)
VECTORS, SPACE = 600, 100


def directions(request: Request) -> Seen:
    """Angles between random vectors, and two attempts to pack six hundred into a hundred dimensions."""
    drawn = {d: demos.random_angles(d, seed=request.seed) for d in DIMENSIONS}
    rows = [(f"{d:,}", f"{a.mean():.2f}", f"{a.std():.2f}", f"{57.29578 / d**0.5:.2f}") for d, a in drawn.items()]
    packed = {
        "random": demos.angles(demos.pack(VECTORS, SPACE, steps=0, seed=request.seed)),
        "a cost of all that is beyond 0.01": demos.angles(demos.pack(VECTORS, SPACE, demos.hinge, seed=request.seed)),
        "a cost of the worst pairs": demos.angles(demos.pack(VECTORS, SPACE, demos.high_power, seed=request.seed)),
    }
    least = demos.welch_degrees(VECTORS, SPACE)
    text = table(("dimensions", "mean angle", "deviation", "1 / sqrt(d)"), rows) + "\n\n"
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
    text += table(
        ("after training with", "within 1 degree", "worst pair is off by", "pairs within 10 of 0 or 180"), found
    )
    text += (
        f"\n\nby the Welch bound the worst pair is off by {least:.2f} degrees at least, and with all pairs within 1\n"
    )
    text += (
        f"degree of 90 there is room for {demos.most_vectors(SPACE, 1)} vectors in {SPACE} dimensions, not for 10,000"
    )
    sentence = (
        "Random directions are nearly perpendicular, the more so the more dimensions; but ten thousand within one "
        "degree of 90 don't fit into a hundred: the first cost hides pairs that fell together at 0 and 180, which only "
        'the whole axis shows (lesson: "How LLMs store facts", as its site corrects it).'
    )

    def draw():
        from lens.figures import demos as figures

        arrays = [{k: v.numpy() for k, v in group.items()} for group in (drawn, packed)]
        return figures.directions(*arrays, least, (VECTORS, SPACE), sentence)

    return Seen(text, sentence, draw)


def fact(request: Request) -> Seen:
    """Michael Jordan plays basketball, by hand."""
    spaces = {
        "perpendicular": demos.fact_neuron(128, True, request.seed),
        "random, 128 dimensions": demos.fact_neuron(128, False, request.seed),
        "random, 12,288 dimensions": demos.fact_neuron(12_288, False, request.seed),
    }
    names = next(iter(spaces.values())).names
    rows = [(name, *(f"{found.basketball[i]:.3f}" for found in spaces.values())) for i, name in enumerate(names)]
    text = "how much basketball the MLP adds\n" + table(("what comes in", *spaces), rows)
    sentence = (
        "A neuron with the row M + J, the bias -1 and the column B answers basketball to Michael Jordan alone; where "
        'directions are only nearly perpendicular, a little leaks (lesson: "How LLMs store facts").'
    )

    def draw():
        from lens.figures import demos as figures

        return figures.fact(names, {k: v.basketball.numpy() for k, v in spaces.items()}, sentence)

    return Seen(text, sentence, draw)


def some_digits(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images and labels that are always at hand."""
    images, labels = open_digits(DataConfig(path="mnist-5k"), [784, 10], seed=0).splits["train"]
    return images[:count], labels[:count]


def zero(request: Request) -> Seen:
    """Two networks learn the same digits, one from zero."""
    images, labels = some_digits(1_000)
    learned = {init: demos.learn(init, images, labels, seed=request.seed) for init in ("zero", "uniform")}
    weights = {init: found.model.layers[0].weight.detach().view(-1, 28, 28) for init, found in learned.items()}
    rows = [
        (init, f"{found.accuracy[-1]:.1%}", len(weights[init].flatten(1).unique(dim=0)))
        for init, found in learned.items()
    ]
    text = table(("first weights", "accuracy", "different neurons of 16"), rows)
    sentence = (
        "From zero all neurons of a layer get the same gradient, so they stay one neuron, sixteen times over; random "
        'first weights tell them apart (lesson: "Gradient descent").'
    )

    def draw():
        from lens.figures import demos as figures

        curves = {init: found.accuracy for init, found in learned.items()}
        return figures.zero({k: v.numpy() for k, v in weights.items()}, curves, sentence)

    return Seen(text, sentence, draw)


def saturation(request: Request) -> Seen:
    """What a first layer says to digits before it has learned."""
    images, _ = some_digits(1_000)
    names = {"N(0, 1), the lessons'": "normal", "U(-1/28, 1/28), PyTorch's": "uniform"}
    found = {name: demos.first_activations(init, images, request.seed) for name, init in names.items()}
    rows = [(name, f"{demos.saturated(a):.1%}") for name, a in found.items()]
    text = table(("first weights", "neurons below 0.05 or above 0.95"), rows)
    sentence = (
        "A sum of hundreds of pixels with weights from N(0, 1) is far from zero, where sigmoid is flat: most neurons "
        'begin fully off or on and hardly learn (lesson: "But what is a neural network?").'
    )

    def draw():
        from lens.figures import demos as figures

        return figures.saturation({k: v.numpy() for k, v in found.items()}, sentence)

    return Seen(text, sentence, draw)


def vanishing(request: Request) -> Seen:
    """The gradient at every depth of four networks."""
    kinds = [(name, residual) for name in ("sigmoid", "relu") for residual in (False, True)]
    found = {
        f"{name}, {'with' if residual else 'without'} residuals": demos.layer_lengths(name, residual, seed=request.seed)
        for name, residual in kinds
    }
    rows = [
        (name, f"{lengths[0]:.1e}", f"{lengths[-1]:.1e}", f"{lengths[0] / lengths[-1]:.1e}")
        for name, lengths in found.items()
    ]
    text = table(("20 MLPs of width 64", "gradient of the first", "of the last", "ratio"), rows)
    sentence = (
        "On its way back through twenty MLPs the gradient fades until the first ones learn nothing; with residual "
        'sums it arrives undiminished (lesson: "Backpropagation").'
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

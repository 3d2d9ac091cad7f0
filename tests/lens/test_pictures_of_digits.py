"""What stands beside the numbers of a digit network, of any run and of the demos: the right name, axis and unit."""

import json
import math
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from configs.schema import Config, DataConfig, MLPConfig, TrainConfig
from lens import demos
from lens.figures.digits import DOWN, UP
from lens.views import demos as demo_views
from lens.views import digits as digit_views
from lens.views import runs as run_views
from model import MLP
from tests.lens.pictures import bars, cells, lines, panels, rows, seen, ticks, title, words
from tests.lessons.helpers_b import drawn
from training.checkpoint import Checkpoint, State
from training.loss import READINGS
from training.report import draw_curves
from training.restore import Restored
from training.run import Record

SIZES = [784, 16, 12, 10]


def restored(model: MLP, loss: str = "cross_entropy", sizes: list[int] = SIZES) -> Restored:
    """A run that holds this network."""
    train = TrainConfig(steps=7, loss=loss)
    config = Config(model=MLPConfig(sizes=sizes), data=DataConfig(path="mnist-5k"), train=train)
    record = Record(asked={}, origins={}, resolved=config, data_sha256="", machine={})
    checkpoint = Checkpoint(Path("runs/net/checkpoints/step-000007"), State(step=7, log_bytes=0), None)
    return Restored(Path("runs/net"), record, checkpoint, model, None)


@pytest.fixture
def loss(request) -> str:
    """How the network's outputs are read; ten sigmoids unless a test says otherwise."""
    return getattr(request, "param", "squared_error")


both = pytest.mark.parametrize("loss", ["cross_entropy", "squared_error"], indirect=True)


@pytest.fixture
def model(monkeypatch, loss) -> MLP:
    """A network of 16 and 12 hidden neurons; explore.py finds it in every run."""
    model = drawn(MLP(SIZES)).float()
    with torch.no_grad():
        model.layers[0].weight /= 10
    images = torch.rand(60, 784, generator=torch.Generator().manual_seed(0)) ** 3
    test = images, torch.arange(60) % 10
    monkeypatch.setattr(digit_views, "restore", lambda name, which: restored(model, loss))
    monkeypatch.setattr(digit_views, "open_digits", lambda *given, **more: SimpleNamespace(splits={"test": test}))
    return model


@torch.no_grad()
def outputs(model: MLP, x: torch.Tensor, loss: str) -> torch.Tensor:
    """The network's answers as its cost reads them."""
    return READINGS[loss](model(x))


def test_each_image_of_first_weights_has_its_neurons_number_and_bias(model):
    figure, first = seen("weights").draw(), model.layers[0]
    shown = [axes for axes in panels(figure) if axes.images]
    assert len(shown) == 16 and "net, step 7" in figure.get_suptitle()
    limit = float(first.weight.detach().abs().max())
    for number, axes in enumerate(shown):
        assert title(axes) == f"{number}: bias {float(first.bias[number].detach()):+.1f}"
        np.testing.assert_allclose(cells(axes), first.weight[number].detach().view(28, 28), atol=1e-6)
        assert axes.images[0].norm.vmax == pytest.approx(limit) == -axes.images[0].norm.vmin
    assert axes.images[0].colorbar.ax.get_ylabel() == "weight"
    (one,) = panels(seen("weights", neuron=5).draw())
    assert title(one).startswith("5: bias")
    np.testing.assert_allclose(cells(one), first.weight[5].detach().view(28, 28), atol=1e-6)


def test_the_table_of_first_weights_has_each_neurons_extremes(model):
    table = rows(seen("weights").text, "neuron bias min weight max weight norm")
    W, b = model.layers[0].weight.detach(), model.layers[0].bias.detach()
    assert table == [
        [str(n), f"{b[n]:+.2f}", f"{W[n].min():+.2f}", f"{W[n].max():+.2f}", f"{W[n].square().sum() ** 0.5:.2f}"]
        for n in range(16)
    ]
    shade = seen("weights", neuron=3).text.split("\n\n")[-1].split("\n")
    assert rows(seen("weights", neuron=3).text, "neuron bias")[0] == table[3]
    grid = W[3].view(28, 28) / W[3].abs().max()
    for y, x in product(range(28), repeat=2):
        mark = shade[y].ljust(56)[2 * x : 2 * x + 2].strip()
        strength = 0 if grid[y, x].abs() < 0.25 else 1 if grid[y, x].abs() <= 0.5 else 2
        assert mark == strength * ("+" if grid[y, x] > 0 else "-")


NAMES = ["the digit", "shifted by 6 pixels", "noise", "a blank"]


def specimens() -> torch.Tensor:
    """A digit and three things that are none, from the definition of each."""
    digit = (torch.rand(60, 784, generator=torch.Generator().manual_seed(0)) ** 3)[0]
    shifted = torch.zeros(28, 28)
    shifted[:, 6:] = digit.view(28, 28)[:, :22]
    noise = torch.rand(1, 784, generator=torch.Generator().manual_seed(0))[0]
    return torch.stack([digit, shifted.flatten(), noise, torch.zeros(784)])


@both
def test_each_image_stands_beside_the_network_it_lights_and_is_named_with_its_answer(model, loss):
    found = panels(seen("activations").draw())
    scored = {"cross_entropy": "probability", "squared_error": "activation"}[loss]
    for number, x in enumerate(specimens()):
        left, right = found[2 * number : 2 * number + 2]
        answers = outputs(model, x, loss)
        assert title(left) == NAMES[number]
        np.testing.assert_allclose(left.images[0].get_array(), x.view(28, 28), atol=1e-6)
        best = int(answers.argmax())
        assert title(right) == f"predicted {best}, {scored} {float(answers[best]):.2f}"
        hidden = model.layers[0](x).sigmoid().detach()
        layers = [hidden, model.layers[1](hidden).sigmoid().detach(), answers]
        for place, (column, values) in enumerate(zip(right.collections[-3:], layers, strict=True)):
            points = np.asarray(column.get_offsets())
            assert (points[:, 0] == place).all() and (np.diff(points[:, 1]) < 0).all()  # the first neuron on top
            np.testing.assert_allclose(column.get_array(), values, atol=1e-5)
        written = {text: y for (_, y), text in words(right).items()}
        assert [written[str(digit)] for digit in range(10)] == pytest.approx(list(points[:, 1]))


def test_edges_are_blue_where_they_push_up_and_red_where_they_hold_down(model):
    right = panels(seen("activations").draw())[1]
    first, second = right.collections[:2]
    columns = [np.asarray(column.get_offsets()) for column in right.collections[-3:]]
    hidden = [model.layers[0](specimens()[0]).sigmoid().detach()]
    hidden.append(model.layers[1](hidden[0]).sigmoid().detach())
    for number, edges in enumerate((first, second)):
        pushes = (model.layers[number + 1].weight * hidden[number]).detach()
        colors = dict(zip(map(to_key, edges.get_segments()), edges.get_colors(), strict=True))
        for end, start in product(range(len(columns[number + 1])), range(len(columns[number]))):
            color = colors[to_key([columns[number][start], columns[number + 1][end]])]
            push = float(pushes[end, start])
            assert tuple(color[:3]) == pytest.approx(UP if push > 0 else DOWN)
            assert color[3] == pytest.approx(abs(push) / float(pushes.abs().max()), abs=1e-5)
    assert UP[2] > UP[0] and DOWN[0] > DOWN[2]


def to_key(points: Any) -> tuple:
    """The two ends of an edge."""
    return tuple(round(float(value), 5) for point in points for value in point)


def test_the_histogram_says_of_which_images_a_network_is_how_sure(model, loss):
    axes = panels(seen("activations").draw())[-1]
    noise = torch.rand(1_000, 784, generator=torch.Generator().manual_seed(0))
    images = torch.rand(60, 784, generator=torch.Generator().manual_seed(0)) ** 3
    wanted = {"test images": images, "noise": noise}
    legend = axes.get_legend()
    assert [text.get_text() for text in legend.get_texts()] == list(wanted)
    for handle, text, container in zip(legend.legend_handles, legend.get_texts(), axes.containers, strict=True):
        assert to_hex(handle.get_facecolor()) == to_hex(container[0].get_facecolor())
        sure = outputs(model, wanted[text.get_text()], loss).amax(dim=-1).numpy()
        share, edges = np.histogram(sure, np.linspace(0, 1, 51))
        np.testing.assert_allclose([bar.get_height() for bar in container], share / len(sure), atol=1e-9)
        np.testing.assert_allclose([bar.get_x() for bar in container], edges[:-1], atol=1e-9)
    scored = {"cross_entropy": "probability", "squared_error": "activation"}[loss]
    assert scored in axes.get_xlabel() and axes.get_ylabel() == "fraction of images"


@both
def test_the_table_of_activations_counts_lit_neurons_and_names_the_two_best_answers(model, loss):
    text = seen("activations").text
    lines = text[text.index("input ") :].split("\n\n")[0].split("\n")[1:]
    for line, name, x in zip(lines, NAMES, specimens(), strict=True):
        hidden = model.layers[0](x).sigmoid()
        lit = [int((layer > 0.5).sum()) for layer in (hidden, model.layers[1](hidden).sigmoid())]
        answers = outputs(model, x, loss)
        best, second = answers.argsort(descending=True).tolist()[:2]
        named = [f"{answer} ({answers[answer]:.1%})" for answer in (best, second)]
        expected = f"{name} {lit[0]} of 16, {lit[1]} of 12 {named[0]} {named[1]}"
        assert " ".join(line.split()) == expected
    table = rows(text, "images mean above 0.9")
    images = torch.rand(60, 784, generator=torch.Generator().manual_seed(0)) ** 3
    sure = outputs(model, images, loss).amax(dim=-1)
    assert table[0] == ["test", "images", f"{sure.mean():.2f}", f"{(sure > 0.9).float().mean():.1%}"]


def wrong_ones(model: MLP, loss: str) -> list[tuple[float, int, int, int]]:
    """(score, place, label, answer) of every image that is read wrongly, the surest first."""
    images = torch.rand(60, 784, generator=torch.Generator().manual_seed(0)) ** 3
    answers = outputs(model, images, loss)
    pairs = [(float(a.max()), n, n % 10, int(a.argmax())) for n, a in enumerate(answers)]
    return sorted((pair for pair in pairs if pair[2] != pair[3]), key=lambda pair: -pair[0])


def test_each_mistake_says_what_it_is_what_it_was_read_as_and_how_surely(model, loss):
    figure, wrong = seen("mistakes").draw(), wrong_ones(model, loss)
    assert figure.get_suptitle() == f"Mistakes (net, step 7): {len(wrong)} of 60" and len(wrong) > 41
    images = torch.rand(60, 784, generator=torch.Generator().manual_seed(0)) ** 3
    small = panels(figure)[:40]
    for axes, (score, place, label, answer) in zip(small, wrong, strict=False):
        assert title(axes) == f"{label} as {answer}, {score:.0%}"
        np.testing.assert_allclose(axes.images[0].get_array(), images[place].view(28, 28), atol=1e-6)
    text = seen("mistakes", top=2).text
    assert f"{len(wrong)} of 60 test images misclassified, {len(wrong) / 60:.2%}" in text
    for score, _, label, answer in wrong[:2]:
        assert f"label {label}, predicted {answer} ({score:.1%})" in text


def test_the_table_of_who_is_taken_for_whom_has_what_it_is_down_and_what_it_is_read_as_across(model, loss):
    counts = np.zeros((10, 10), int)
    images = torch.rand(60, 784, generator=torch.Generator().manual_seed(0)) ** 3
    for place, answer in enumerate(outputs(model, images, loss).argmax(dim=-1).tolist()):
        counts[place % 10, answer] += 1
    axes = panels(seen("mistakes").draw())[-1]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "label")
    assert set(ticks(axes, "x")) == set(ticks(axes, "y")) == {*range(10)}
    grid, written = cells(axes), words(axes)
    for label, answer in product(range(10), repeat=2):
        assert written[answer, label] == str(counts[label, answer])
        assert np.isnan(grid[label, answer]) if label == answer else grid[label, answer] == counts[label, answer]
    assert "misclassified" in axes.images[0].colorbar.ax.get_ylabel()
    assert (counts != counts.T).any()
    text = seen("mistakes").text
    head, *table = [line.split() for line in text.split("\n\n")[1].split("\n")]
    assert head == [word for digit in range(10) for word in ("pred", str(digit))]
    assert table == [["label", str(d), *(str(n or ".") for n in counts[d])] for d in range(10)]


# Any run


def test_every_bar_of_parameters_has_its_matrixs_name_product_number_and_share(tmp_path):
    config = tmp_path / "net.toml"
    config.write_text(
        '[model]\nkind = "mlp"\nsizes = [784, 16, 12, 10]\n[data]\npath = "mnist-5k"\n[train]\nsteps = 1\n'
    )
    counts = {"Weights 1": 784 * 16, "Weights 2": 16 * 12, "Weights 3": 12 * 10, "Biases": 16 + 12 + 10}
    total = sum(counts.values())
    found = seen("parameters", target=config)
    figure = found.draw()
    assert figure.get_suptitle() == f"{total:,} parameters (net)" and f"net: {total:,} parameters" in found.text
    top, bottom = panels(figure)
    names = ticks(bottom, "y")
    assert list(names.values()) == list(counts) and bottom.yaxis_inverted()
    start = 0
    for place, segment, count in zip(names, top.patches, counts.values(), strict=True):
        assert bars(bottom)[place][0] == count == segment.get_width() and segment.get_x() == start
        (told,) = (text for (_, y), text in words(bottom).items() if y == place)
        assert told.endswith(f"= {count:,} ({count / total:.1%})")
        assert worth(told.split(" = ")[0]) == count
        start += count
    (largest,) = (text for text in words(top).values())
    assert largest == names[0]
    table = rows(found.text, "matrix product total share")
    for row, name, count in zip(table, names.values(), counts.values(), strict=True):
        assert " ".join(row).startswith(name) and row[-2:] == [f"{count:,}", f"{count / total:.1%}"]
    assert " + ".join(f"{count:,}" for count in counts.values()) + f" = {total:,}" in found.text
    tensors = rows(found.text, "tensor shape: outputs x inputs parameters")
    assert tensors[0] == ["layers.0.weight", "16", "x", "784", "12,544"]
    assert tensors[-1] == ["layers.2.bias", "10", "10"]


def worth(product: str) -> int:
    """ "16 neurons x 784 inputs" -> 12,544."""
    return math.prod(int(factor.split()[0]) for factor in product.split(" x "))


LOG = [
    {"step": 0, "loss": 2.5, "lr": 0.1, "grad_norm": 7.0},
    {"step": 0, "val_loss": 2.6, "val_accuracy": 0.1},
    {"step": 10, "loss": 1.5, "lr": 0.4, "grad_norm": 3.0},
    {"step": 20, "loss": 1.25, "lr": 0.2, "grad_norm": 2.0},
    {"step": 20, "val_loss": 1.75, "val_accuracy": 0.6},
    {"step": 20, "of": 20, "test_loss": 1.8, "test_accuracy": 0.55},
]
LAYERS = {"layers.0": [(0, 5.0), (20, 1.0)], "layers.1": [(0, 4.0), (20, 0.5)]}


@pytest.fixture
def logged(monkeypatch) -> None:
    """A run with this log."""
    monkeypatch.setattr(run_views, "restore", lambda name, which: restored(drawn(MLP(SIZES)).float()))
    monkeypatch.setattr(run_views, "read_log", lambda folder: LOG)
    monkeypatch.setattr(run_views, "gradients_by_layer", lambda restored: LAYERS)


def of(key: str) -> list[tuple[float, float]]:
    """A series of the log."""
    return [(line["step"], line[key]) for line in LOG if key in line]


def test_every_curve_of_a_run_is_drawn_under_its_name(logged):
    figure = seen("curves").draw()
    cost, quality, rate, gradient = panels(figure)
    assert figure.get_suptitle() == "Training curves (net)"
    drawn_ = lines(cost)
    assert title(cost) == "cost" and len(drawn_) == 2
    assert next(points for name, points in drawn_.items() if name.startswith("training")) == of("loss")
    assert next(points for name, points in drawn_.items() if name.startswith("validation")) == of("val_loss")
    assert "accuracy" in title(quality) and points_of(quality) == [of("val_accuracy")]
    assert title(rate) == "learning rate" and points_of(rate) == [of("lr")] and rate.get_xlabel() == "step"
    assert "gradient" in title(gradient) and gradient.get_xlabel() == "step" and gradient.get_yscale() == "log"
    drawn_ = lines(gradient)
    assert drawn_.pop(next(name for name in drawn_ if name.startswith("global"))) == of("grad_norm")
    assert drawn_ == LAYERS


def points_of(axes: Axes) -> list[list[tuple[float, float]]]:
    """The points of every curve."""
    return [[tuple(map(float, point)) for point in zip(*line.get_data(), strict=True)] for line in axes.lines]


def test_the_table_of_a_run_has_a_column_for_each_series(logged):
    text = seen("curves").text
    head, *table = (line for line in text.split("\n\n")[1].split("\n"))
    assert head.split() == "step loss lr grad norm val loss val accuracy".split()
    assert [line.split() for line in table[:3]] == [
        ["0", "2.5", "0.1", "7", "2.6", "0.1"],
        ["10", "1.5", "0.4", "3"],
        ["20", "1.25", "0.2", "2", "1.75", "0.6"],
    ]
    assert "test loss: 1.8000" in text and "test accuracy: 0.5500" in text
    assert rows(text, "layer step 0 step 20") == [
        ["layers.0", "5.00e+00", "1.00e+00"],
        ["layers.1", "4.00e+00", "5.00e-01"],
    ]


def test_of_text_the_quality_that_is_drawn_is_bits_per_byte(monkeypatch, logged):
    log = [
        {"step": 0, "val_loss": 3.0, "val_bits_per_byte": 4.5},
        {"step": 5, "val_loss": 2.0, "val_bits_per_byte": 3.5},
    ]
    monkeypatch.setattr(run_views, "read_log", lambda folder: log)
    _, quality, *_ = panels(seen("curves").draw())
    assert "bits per byte" in title(quality) and points_of(quality) == [[(0, 4.5), (5, 3.5)]]


def test_curves_png_has_each_series_under_its_own_word_over_the_steps(tmp_path, monkeypatch):
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LOG))
    shown: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *given, **more: shown.append(figure))
    draw_curves(tmp_path)
    (figure,) = shown
    top, bottom = panels(figure)
    drawn_ = lines(top)
    wanted = {"train": of("loss"), "valid": of("val_loss"), "best: step 20, accuracy 60.00%": [(20, 1.75)]}
    assert {next(key for key in wanted if key in name.lower()): points for name, points in drawn_.items()} == wanted
    assert "rate" in bottom.get_ylabel() and points_of(bottom) == [of("lr")]
    assert "loss" in top.get_ylabel() and bottom.get_xlabel() == "step" and "rate" not in top.get_ylabel()
    assert tmp_path.name in top.get_title()


# Demos


def test_softmax_has_the_probability_of_each_score_at_each_temperature():
    scores, temperatures = [-0.8, -5.0, 0.5, 1.5, 3.4, -2.3, 2.5], [0, 0.5, 1, 2, 5]
    rows_ = [[n == 4 for n in range(7)] if T == 0 else np.exp(np.array(scores) / T) for T in temperatures]
    shares = [np.array(row, float) / sum(row) for row in rows_]
    found = seen("softmax")
    figure = found.draw()
    for axes, T, row in zip(panels(figure), temperatures, shares, strict=True):
        assert title(axes) == f"T = {T:g}"
        assert [text.get_text() for text in axes.texts] == [f"{p:.3f}" for p in row]
        assert [bars(axes)[place][0] for place in range(7)] == pytest.approx(list(row), abs=1e-6)
    figure.draw_without_rendering()
    assert [ticks(panels(figure)[0], "y")[place] for place in range(7)] == [f"{score:.1f}" for score in scores]
    assert panels(figure)[0].get_ylabel() == "score" and panels(figure)[2].get_xlabel() == "probability"
    head, *table = (line.split() for line in found.text.split("\n"))
    assert head == ["score", *(word for T in temperatures for word in ("T", "=", f"{T:g}"))]
    assert table == [[f"{s:.1f}", *(f"{row[n]:.3f}" for row in shares)] for n, s in enumerate(scores)]


def test_each_way_down_is_drawn_over_the_surface_under_its_name_and_rate(monkeypatch):
    filled: list[tuple] = []
    contourf = Axes.contourf
    monkeypatch.setattr(
        Axes, "contourf", lambda axes, *grid, **more: filled.append(grid) or contourf(axes, *grid, **more)
    )
    found = seen("descent")
    (axes,) = panels(found.draw())
    ((x, y, cost),) = filled
    for row, column in ((0, 0), (10, 150), (120, 30), (159, 199)):
        w, v = float(x[column]), float(y[row])
        assert cost[row, column] == pytest.approx((w**2 - 1) ** 2 + w / 4 + v**2, rel=1e-4)
    assert axes.get_xlabel() == "one weight" and axes.get_ylabel() == "another weight"
    named = {line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")}
    assert len(named) == len(demo_views.WAYS) == len(axes.get_legend().get_texts())
    for name, (start, rate) in demo_views.WAYS.items():
        way = demos.descend(start, rate, 40)
        line = named[f"{name} (rate {rate:g})"]
        np.testing.assert_allclose(np.array(line.get_data()).T, way.numpy(), atol=1e-6)
        w, v = way[-1].tolist()
        told = next(row for row in found.text.split("\n") if row.startswith(name)).removeprefix(name).split("  ")
        ends = [cell.strip() for cell in told if cell.strip()]
        height = (w**2 - 1) ** 2 + w / 4 + v**2
        assert ends == [f"{rate:g}", str(len(way) - 1), f"({w:.2f}, {v:.2f})", f"{height:.3f}"]


def test_angles_are_drawn_and_counted_under_their_number_of_dimensions(monkeypatch):
    for name, value in (("VECTORS", 40), ("SPACE", 15), ("DIMENSIONS", (3, 100))):
        monkeypatch.setattr(demo_views, name, value)
    pack = demos.pack  # a few steps tell the costs apart
    monkeypatch.setattr(demos, "pack", lambda *given, steps=4, seed=0: pack(*given, steps=min(steps, 4), seed=seed))
    found = seen("directions")
    top, bottom = panels(found.draw())
    wanted = {d: demos.random_angles(d).numpy() for d in (3, 100)}
    table = rows(found.text, "dimensions mean angle std 1 / sqrt(d), degrees")
    for (d, angles), stairs, row in zip(wanted.items(), top.patches, table, strict=True):
        assert stairs.get_label() == f"{d} dimensions: {angles.std():.2f} degrees standard deviation"
        heights, edges = np.histogram(angles, np.linspace(0, 180, 361), density=True)
        np.testing.assert_allclose(stairs.get_data().values, heights, atol=1e-9)
        np.testing.assert_allclose(stairs.get_data().edges, edges)
        assert row == [str(d), f"{angles.mean():.2f}", f"{angles.std(ddof=1):.2f}", f"{np.degrees(d**-0.5):.2f}"]
    costs = {"random": (None, 0), "cost: excess of |cosine| over 0.01": (demos.hinge, 4),
             "cost: 16-norm of cosines": (demos.high_power, 4)}  # fmt: skip
    for (name, (cost, steps)), stairs in zip(costs.items(), bottom.patches, strict=True):
        angles = demos.angles(pack(40, 15, cost or demos.hinge, steps=steps))
        off = float((angles - 90).abs().max())
        assert stairs.get_label() == f"{name}: worst pair off by {off:.1f}"
        row = next(line for line in found.text.split("\n") if line.startswith(name)).removeprefix(name).split()
        near, ends = (float(chosen.float().mean()) for chosen in ((angles - 90).abs() < 1, (angles - 90).abs() > 80))
        assert row == [f"{near:.1%}", f"{off:.1f}", str(round(ends * len(angles)))]
    assert bottom.get_xlabel().endswith("degrees") and bottom.get_ylabel() == "pairs" and top.get_ylabel() == "density"
    least = demos.welch_degrees(40, 15)
    bounds = [line.get_xdata()[0] for line in bottom.lines if len(line.get_xdata())]
    assert bounds == pytest.approx([90 - least, 90 + least]) and f"{least:.2f} degrees" in found.text
    assert "40 vectors in 15 dimensions" in title(bottom)


def test_what_the_fact_neuron_says_is_drawn_over_the_name_that_it_heard():
    found = seen("fact")
    (axes,) = panels(found.draw())
    spaces = {
        "perpendicular": demos.fact_neuron(128, True),
        "random, 128 dimensions": demos.fact_neuron(128, False),
        "random, 12,288 dimensions": demos.fact_neuron(12_288, False),
    }
    people = ["Michael Jordan", "Michael", "Jordan", "Michael Phelps"]
    assert list(ticks(axes, "x").values()) == people and axes.get_ylabel().startswith('"basketball"')
    places = list(ticks(axes, "x"))
    legend = axes.get_legend()
    for container, text, handle, (name, fact) in zip(
        axes.containers, legend.get_texts(), legend.legend_handles, spaces.items(), strict=True
    ):
        assert text.get_text() == f"directions {name}"
        assert to_hex(handle.get_facecolor()) == to_hex(container[0].get_facecolor())
        for bar, place, value in zip(container, places, fact.basketball.tolist(), strict=True):
            assert bar.get_height() == pytest.approx(value, abs=1e-6) and abs(bar.get_x() + 0.125 - place) < 0.5
    for n, person in enumerate(people):
        row = next(line for line in found.text.split("\n") if line.startswith(f"{person}  "))
        assert row.split()[-3:] == [f"{fact.basketball[n]:.3f}" for fact in spaces.values()]


@pytest.fixture
def few_digits(monkeypatch) -> tuple[torch.Tensor, torch.Tensor]:
    """A hundred images for the demos that learn."""
    images, labels = demo_views.some_digits(100)
    monkeypatch.setattr(demo_views, "some_digits", lambda count: (images, labels))
    return images, labels


def test_first_weights_and_how_they_learn_are_drawn_beside_where_they_began(few_digits, monkeypatch):
    learn = demos.learn  # twenty steps do
    monkeypatch.setattr(demos, "learn", lambda *given, seed=0: learn(*given, steps=20, seed=seed))
    found = seen("zero")
    figure = found.draw()
    learned = {"zero": demos.learn("zero", *few_digits), "random": demos.learn("uniform", *few_digits)}
    grid, curves = panels(figure)[:16], panels(figure)[16]
    for row, (start, network) in zip((grid[:8], grid[8:]), learned.items(), strict=True):
        assert row[0].get_ylabel() == f"{start} start"
        for number, axes in enumerate(row):
            np.testing.assert_allclose(cells(axes), network.model.layers[0].weight[number].detach().view(28, 28))
    drawn_ = lines(curves)
    assert {name: [y for _, y in points] for name, points in drawn_.items()} == {
        f"{start} start": pytest.approx(network.accuracy) for start, network in learned.items()
    }
    assert curves.get_xlabel() == "step" and curves.get_ylabel() == "accuracy"
    table = rows(found.text, "initial weights accuracy distinct neurons of 16")
    assert table == [
        ["zero", f"{learned['zero'].accuracy[-1]:.1%}", "1"],
        ["uniform", f"{learned['random'].accuracy[-1]:.1%}", "16"],
    ]


def test_how_many_neurons_are_saturated_is_said_of_the_first_weights_that_did_it(few_digits):
    found = seen("saturation")
    drawn_ = panels(found.draw())
    for axes, init, name in zip(drawn_, ("normal", "uniform"), ("N(0, 1)", "U(-1/28, 1/28)"), strict=True):
        values = demos.first_activations(init, few_digits[0]).numpy()
        share = float(((values < 0.05) | (values > 0.95)).mean())
        assert name in title(axes) and title(axes).endswith(f": {share:.0%} saturated")
        heights, _ = np.histogram(values, np.linspace(0, 1, 41))
        found_ = [bar.get_height() for bar in axes.containers[0]]
        np.testing.assert_allclose(found_, heights / values.size, atol=1e-9)
        assert axes.get_xlabel().startswith("activation")
        row = next(line for line in found.text.split("\n") if line.startswith(name))
        assert row.split()[-1] == f"{share:.1%}"
    assert drawn_[0].get_ylabel() == "fraction of activations"


def test_the_gradients_of_twenty_layers_are_drawn_from_the_inputs_on_under_their_network():
    found = seen("vanishing")
    (axes,) = panels(found.draw())
    named = {line.get_label(): line for line in axes.lines}
    assert [text.get_text() for text in axes.get_legend().get_texts()] == list(named)
    for name, residual in product(("sigmoid", "relu"), (False, True)):
        label = f"{name}, {'with' if residual else 'without'} residuals"
        lengths = demos.layer_lengths(name, residual)
        assert list(named[label].get_xdata()) == [*range(1, 21)]
        assert list(named[label].get_ydata()) == pytest.approx(lengths, rel=1e-4)
        row = next(line for line in found.text.split("\n") if line.startswith(label)).split()
        assert row[-3:] == [f"{v:.1e}" for v in (lengths[0], lengths[-1], lengths[0] / lengths[-1])]
    assert axes.get_yscale() == "log" and axes.get_xlabel().startswith("layer") and "gradient" in axes.get_ylabel()
    looks = {(line.get_color(), line.get_linestyle(), line.get_marker()) for line in axes.lines}
    assert len(looks) == 4

"""The curves view: training curves, and the gradient norm of each layer at each checkpoint."""

from collections.abc import Callable

from torch import Tensor

from configs.errors import UserError
from configs.schema import MLPConfig
from data.digits import open_digits
from data.text import open_text
from lens.gradients import layer_gradients
from lens.request import Request
from lens.seen import Seen, table
from training import checkpoint
from training.loss import LOSSES
from training.restore import Restored, restore
from training.run import read_log
from training.validation import judged_by

BATCH = 256  # examples for the gradient of each layer; an eighth of that for text
LINES = 12

Series = dict[str, list[tuple[int, float]]]


def curves(request: Request) -> Seen:
    """The logged metrics, and each layer's gradient norm at every checkpoint kept."""
    restored = restore(str(request.target), request.checkpoint)
    folder = restored.folder
    config = restored.record.resolved
    costs, log = (config.train.loss, judged_by(config)), series(read_log(folder))
    if not log:
        raise UserError(f"nothing to plot: {folder}/log.jsonl is empty", 1)
    layers = gradients_by_layer(restored)
    names = [name for name in log if name.startswith("val_") or name in ("loss", "lr", "grad_norm")]
    steps = sorted({step for name in names for step, _ in log[name]})
    shown = {*steps[:: max(1, len(steps) // LINES)], steps[-1]}
    by_step = {name: dict(points) for name, points in log.items()}
    rows = [[f"{step:,}", *(number(by_step[name].get(step)) for name in names)] for step in sorted(shown)]
    differ = "" if costs[0] == costs[1] else f"loss: {costs[0]}; val loss: {costs[1]}\n".replace("_", " ")
    text = f"{folder.name}\n\n{differ}" + table(("step", *(name.replace("_", " ") for name in names)), rows, left=0)
    tests = {name: points[-1][1] for name, points in log.items() if name.startswith(("test_", "mnist-test_"))}
    text += "".join(f"\n{name.replace('_', ' ')}: {value:.4f}" for name, value in tests.items())
    if layers:
        kept = [step for step, _ in next(iter(layers.values()))]
        rows = [[name, *(f"{value:.2e}" for _, value in points)] for name, points in layers.items()]
        text += "\n\ngradient norm of each layer, at the checkpoints kept\n"
        text += table(("layer", *(f"step {step:,}" for step in kept[:LINES])), [row[: LINES + 1] for row in rows])
    sentence = (
        "Training descends the cost; each layer's gradient norm shows how strongly it is being updated "
        '(lesson: "Gradient descent").'
    )

    def draw():
        from lens.figures import runs as figures

        return figures.curves(log, layers, folder.name, sentence, costs)

    return Seen(text, sentence, draw)


def series(log: list[dict]) -> Series:
    """Each numeric metric of the log as (step, value) pairs."""
    found: Series = {}
    for line in log:
        for name, value in line.items():
            if name not in ("step", "of") and "step" in line and isinstance(value, int | float):
                found.setdefault(name, []).append((line["step"], float(value)))
    return found


def number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def gradients_by_layer(restored: Restored) -> Series:
    """Gradient norms at every checkpoint, all on one batch. Empty if the data is unavailable or weights are int8."""
    try:
        x, y = some_batch(restored)
    except (UserError, OSError):
        return {}
    found: Series = {}
    for folder in checkpoint.step_folders(restored.folder / "checkpoints"):
        earlier = restore(str(folder), "best")
        if earlier.checkpoint.state.quantized:
            return {}
        loss = LOSSES[restored.record.resolved.train.loss]
        for layer, norm in layer_gradients(earlier.model, x, y, loss).items():
            found.setdefault(layer, []).append((earlier.checkpoint.state.step, norm))
    return {layer: sorted(points) for layer, points in found.items()}


def some_batch(restored: Restored) -> tuple[Tensor, Tensor]:
    """A fixed batch of training examples. Raises UserError if the data is unavailable."""
    config = restored.record.resolved
    if isinstance(config.model, MLPConfig):
        return open_digits(config.data, config.model.sizes, config.train.seed).batch("train", 0, BATCH)
    context = restored.model_config.context_length
    data = open_text(config.data, context, config.train.seed, restored.tokenizer)
    return data.batch("train", 0, BATCH // 8)


VIEWS: dict[str, Callable[[Request], Seen]] = {"curves": curves}

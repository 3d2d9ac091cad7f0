"""What holds for any network, in words: how it learned."""

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

BATCH = 256  # examples, of which the gradient of each layer is taken; an eighth of that for text
LINES = 12

Series = dict[str, list[tuple[int, float]]]


def curves(request: Request) -> Seen:
    """The log as series, and each layer's gradient at every checkpoint that is kept."""
    restored = restore(str(request.target), request.checkpoint)
    folder = restored.folder
    config = restored.record.resolved
    costs, log = (config.train.loss, judged_by(config)), series(read_log(folder))
    if not log:
        raise UserError(f"{folder}/log.jsonl holds nothing to draw", 1)
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
        text += "\n\nlength of the gradient in each layer, at the checkpoints kept\n"
        text += table(("layer", *(f"step {step:,}" for step in kept[:LINES])), [row[: LINES + 1] for row in rows])
    sentence = (
        "Learning is a way down: the cost falls as fast as the rate and the gradient's length allow, and each layer's "
        'share of the gradient says how loudly it is taught (lesson: "Gradient descent").'
    )

    def draw():
        from lens.figures import runs as figures

        return figures.curves(log, layers, folder.name, sentence, costs)

    return Seen(text, sentence, draw)


def series(log: list[dict]) -> Series:
    """Each number of the log over the steps."""
    found: Series = {}
    for line in log:
        for name, value in line.items():
            if name not in ("step", "of") and "step" in line and isinstance(value, int | float):
                found.setdefault(name, []).append((line["step"], float(value)))
    return found


def number(value: float | None) -> str:
    """Four digits, or nothing."""
    return "" if value is None else f"{value:.4g}"


def gradients_by_layer(restored: Restored) -> Series:
    """On one and the same batch, at every checkpoint of the run. Empty if its data is not at hand."""
    try:
        x, y = some_batch(restored)
    except (UserError, OSError):
        return {}
    found: Series = {}
    for folder in checkpoint.step_folders(restored.folder / "checkpoints"):
        then = restore(str(folder), "best")
        if then.checkpoint.state.quantized:
            return {}
        loss = LOSSES[restored.record.resolved.train.loss]
        for layer, length in layer_gradients(then.model, x, y, loss).items():
            found.setdefault(layer, []).append((then.checkpoint.state.step, length))
    return {layer: sorted(points) for layer, points in found.items()}


def some_batch(restored: Restored) -> tuple[Tensor, Tensor]:
    """Training examples, the same each time. Raises UserError if they can't be had."""
    config = restored.record.resolved
    if isinstance(config.model, MLPConfig):
        return open_digits(config.data, config.model.sizes, config.train.seed).batch("train", 0, BATCH)
    context = restored.model_config.context_length
    data = open_text(config.data, context, config.train.seed, restored.tokenizer)
    return data.batch("train", 0, BATCH // 8)


VIEWS: dict[str, Callable[[Request], Seen]] = {"curves": curves}

"""The parameters view: the size of each matrix and their sum. It does not import torch."""

import re
from collections.abc import Callable
from pathlib import Path

from configs.command import check, read
from configs.errors import UserError
from configs.schema import Config, GPTConfig, MLPConfig
from lens.request import Request, run_of
from lens.seen import Seen, table, wrapped
from training.parameters import parameters
from training.run import read_record
from training.tally import exact_tally, lesson_tally

VOCABULARIES = {"byte": 257, "gpt2": 50_257}  # fixed, whatever the text
COUNTED = {
    "lesson": "as in the lessons, positions, biases and norms are not counted and the unembedding counts separately",
    "exact": "the total equals the sum over the network's parameters()",
}


def view(request: Request) -> Seen:
    """The parameter counts of a run's network, or of the network that a config describes."""
    assert request.target is not None
    model, name, unknown = described(request.target)
    rows = (lesson_tally if request.lesson else exact_tally)(model)
    total = sum(row.total for row in rows)
    text = f"{name}: {total:,} parameters" + (", counted as in the lessons" if request.lesson else "") + "\n\n"
    share = [(row.name, row.product, f"{row.total:,}", f"{row.total / total:.1%}") for row in rows]
    text += table(("matrix", "product", "total", "share"), share, left=2)
    text += "\n\n" + wrapped(" + ".join(f"{row.total:,}" for row in rows) + f" = {total:,}")
    if not request.lesson:
        text += "\n\n" + tensors(model)
    if unknown:
        text += f"\n\nthe vocabulary size depends on the text; these counts assume {model_vocabulary(model):,} tokens"
    lesson = "But what is a neural network?" if isinstance(model, MLPConfig) else "Attention, step by step"
    counted = COUNTED["lesson" if request.lesson else "exact"]
    sentence = f'Every matrix is a product of sizes; {counted} (lesson: "{lesson}").'

    def draw():
        from lens.figures import parameters as figures

        return figures.parameters([(row.name, row.product, row.total) for row in rows], name, sentence)

    return Seen(text, sentence, draw)


def tallies(config: MLPConfig | GPTConfig) -> dict[str, list[tuple[str, str, int]]]:
    """Both counts for the page: rows of (name, product, total)."""
    counts = {"exact": exact_tally, "lessons": lesson_tally}
    return {name: [(row.name, row.product, row.total) for row in tally(config)] for name, tally in counts.items()}


def described(target: Path) -> tuple[MLPConfig | GPTConfig, str, bool]:
    """The network's settings, its name, and whether its vocabulary size is a guess. Raises UserError for auto sizes."""
    if target.suffix != ".toml":
        folder = run_of(target)
        model = read_record(folder).resolved.model
        assert isinstance(model, MLPConfig | GPTConfig)
        return model, folder.name, False
    settings = read(str(target))
    config = check(settings, dict.fromkeys(settings, str(target)))
    if not isinstance(config.model, MLPConfig | GPTConfig):
        raise UserError(f"{target}: sizes are chosen from the text; see them with python train.py {target} --dry-run")
    if isinstance(config.model, MLPConfig):
        return config.model, target.stem, False
    size = vocabulary(config)
    model = config.model if size is None else config.model.model_copy(update={"vocab_size": size})
    return model, target.stem, size is None


def vocabulary(config: Config) -> int | None:
    """The vocabulary size; None if it depends on the text."""
    return VOCABULARIES.get(config.data.tokenizer, config.data.vocab_size)


def model_vocabulary(model: MLPConfig | GPTConfig) -> int:
    return model.vocab_size if isinstance(model, GPTConfig) else model.sizes[-1]


def tensors(model: MLPConfig | GPTConfig) -> str:
    """A table of all tensors with their shapes; the same tensor of all blocks is one row."""
    alike: dict[tuple[str, tuple[int, ...]], int] = {}
    for tensor in parameters(model):
        key = re.sub(r"^blocks\.\d+", "blocks.*", tensor.name), tensor.shape
        alike[key] = alike.get(key, 0) + tensor.count
    rows = [(name, " x ".join(f"{n:,}" for n in shape), f"{count:,}") for (name, shape), count in alike.items()]
    return table(("tensor", "shape: outputs x inputs", "parameters"), rows, left=2)


VIEWS: dict[str, Callable[[Request], Seen]] = {"parameters": view}

"""The page view: load the run, then serve its page or export it to one file."""

import sys
from functools import lru_cache
from pathlib import Path

import torch

from configs.errors import UserError
from configs.files import write_whole
from configs.schema import DataConfig, MLPConfig
from data.tokenizer import Tokenizer
from lens.answers.digits import DigitAnswers
from lens.answers.pack import Answers
from lens.answers.text import TextAnswers
from lens.request import Request, is_gpt2
from lens.views.parameters import tallies
from model import GPT, MLP
from training.checkpoint import step_folders
from training.parameters import count_weights
from training.restore import Restored, restore

CODE, PROSE = "def read(path):\n    ", "Once upon a time, "  # shown first without --prompt
READINGS = {"cross_entropy": "softmax", "squared_error": "sigmoid"}
# Parameters. Smaller networks answer in milliseconds on one thread; waiting for a busy second core can cost 200 ms.
SMALL = 4_000_000
SPECIMENS = 40  # test images offered on the page


def show(request: Request) -> None:
    """Serve the page until Ctrl-C, or export it. Raises UserError if the run cannot be loaded."""
    answers = answers_of(request)
    if request.export is None:
        from lens.server import serve

        if isinstance(answers, TextAnswers) and count_weights(answers.model.config) < SMALL:
            torch.set_num_threads(1)
        return serve(answers, request.port, not request.no_browser)
    from lens.standalone import standalone

    html = standalone(answers).encode()
    write_whole(request.export, html)
    print(f"{request.export}: {len(html) / 1e6:.1f} MB, opens in a browser without a server", file=sys.stderr)


def answers_of(request: Request) -> Answers:
    """The API of the requested network."""
    assert request.target is not None
    if is_gpt2(request.target):
        return gpt2(request.target, request.prompt)
    restored = restore(str(request.target), request.checkpoint)
    name = f"{restored.folder.name}, step {restored.checkpoint.state.step:,}"
    if isinstance(restored.model, GPT):
        assert restored.tokenizer is not None
        code = restored.record.resolved.data.path == ["python-stdlib"]
        prompt = first_prompt(restored.tokenizer, request.prompt, CODE if code else PROSE)
        return TextAnswers(restored.model, restored.tokenizer, name, prompt, tallies(restored.model.config))
    return digits(restored)


def gpt2(folder: Path, prompt: str | None) -> TextAnswers:
    """A GPT-2 in a Hugging Face folder."""
    from training.checkpoint import load_weights
    from training.huggingface import read_gpt2

    config, tokenizer, weights = read_gpt2(folder)
    model = GPT(config)
    load_weights(model, weights)
    return TextAnswers(model, tokenizer, folder.name, first_prompt(tokenizer, prompt, PROSE), tallies(config))


def first_prompt(tokenizer: Tokenizer, given: str | None, default: str) -> str:
    """The given prompt, else the default, or "" if that cannot be encoded. Raises UserError for an invalid prompt."""
    try:
        tokenizer.encode(default if given is None else given)
    except UserError:
        if given is not None:
            raise
        return ""
    return default if given is None else given


def digits(restored: Restored) -> DigitAnswers:
    """A digit network at each of its checkpoints."""
    from data.digits import open_digits

    config = restored.record.resolved
    assert isinstance(config.model, MLPConfig) and isinstance(restored.model, MLP)

    @lru_cache(maxsize=64)
    def at(step: int) -> MLP:
        model = restore(str(restored.folder), f"step-{step}").model
        assert isinstance(model, MLP)
        return model

    steps = sorted(int(folder.name[5:]) for folder in step_folders(restored.folder / "checkpoints"))
    images, labels = open_digits(DataConfig(path=config.data.path), config.model.sizes, seed=0).splits["test"]
    best, reading = restored.checkpoint.state.step, READINGS[config.train.loss]
    name, counted = restored.folder.name, tallies(config.model)
    answers = labels[:SPECIMENS].tolist()
    return DigitAnswers(config.model, at, steps, best, reading, images[:SPECIMENS], answers, name, counted)

"""Load what train.start names: the network, weights and tokenizer of a run or of a Hugging Face GPT-2."""

from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from configs.schema import GPTConfig, MLPConfig
from data.tokenizer import Tokenizer
from training.checkpoint import model_tensors
from training.report import say
from training.restore import restore
from training.run import run_folder

GPT2 = ("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl")  # OpenAI's four on the Hugging Face Hub


class Base(NamedTuple):
    """The trained model that a fine-tuning run starts from."""

    name: str
    """the value of train.start"""
    model_config: MLPConfig | GPTConfig
    tokenizer: Tokenizer | None
    """None for a digit network"""
    weights: dict[str, Tensor]
    """by this project's names; a tied weight once"""
    folder: Path | None = None
    """the run or Hugging Face folder it was read from"""


def find_base(name: str) -> Base:
    """Load the model that `train.start` names, and print which it is unless it is simply a run.

    Tried in this order: a run or one of its checkpoint folders; OpenAI's GPT-2 of that name, with or without
    `openai-community/`; a Hugging Face folder. Raises UserError if none matches or it can't be used.
    """
    known, folder = name.removeprefix("openai-community/"), Path(name).expanduser()
    is_run = (run_folder(name) / "run.json").is_file()
    if not is_run and (known in GPT2 or (folder / "config.json").is_file()):
        from training.huggingface import download, read_gpt2

        folder = download(known) if known in GPT2 else folder
        base = Base(name, *read_gpt2(folder), folder)
        say(f"starting from the Hugging Face folder {folder}")
        return base
    if is_run and name in GPT2:
        say(
            f"starting from your run {run_folder(name)}; for OpenAI's {name}, use --train.start openai-community/{name}"
        )
    restored = restore(name)
    restored.checkpoint.require_trainable()
    return Base(name, restored.model_config, restored.tokenizer, model_tensors(restored.model), restored.folder)

"""Where training starts from: the network, weights and tokenizer of something that has been trained before."""

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
    """All that a new run takes over from an old one."""

    name: str
    """as train.start has it"""
    model_config: MLPConfig | GPTConfig
    tokenizer: Tokenizer | None
    """None for a digit network"""
    weights: dict[str, Tensor]
    """by our names; a tied weight once"""
    folder: Path | None = None
    """where it was read from"""


def find_base(name: str) -> Base:
    """What `train.start` names: a run or one of its checkpoint folders; else OpenAI's GPT-2 of that name, with or
    without `openai-community/`; else a Hugging Face folder. Which it was is said.

    Raises UserError if there is none, or it can't be used.
    """
    known, folder = name.removeprefix("openai-community/"), Path(name).expanduser()
    is_run = (run_folder(name) / "run.json").is_file()
    if not is_run and (known in GPT2 or (folder / "config.json").is_file()):
        from training.huggingface import download, read_gpt2

        folder = download(known) if known in GPT2 else folder
        base = Base(name, *read_gpt2(folder), folder)
        say(f"starting from {folder}, a Hugging Face folder")
        return base
    if is_run and name in GPT2:
        say(f"starting from your run {run_folder(name)}; OpenAI's network is --train.start openai-community/{name}")
    restored = restore(name)
    restored.checkpoint.require_trainable()
    return Base(name, restored.model_config, restored.tokenizer, model_tensors(restored.model), restored.folder)

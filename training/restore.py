"""Load a trained run: its network, tokenizer and record."""

from pathlib import Path
from typing import NamedTuple

from torch import nn

from configs.errors import UserError, did_you_mean
from data.tokenizer import Tokenizer, tokenizer_in
from model import GPT, GPTConfig, MLPConfig, build_model
from training import checkpoint
from training.checkpoint import Checkpoint
from training.run import Record, read_record, run_folder
from training.sane import require_size, require_weights


class Restored(NamedTuple):
    """A run loaded for inference."""

    folder: Path
    record: Record
    checkpoint: Checkpoint
    model: nn.Module
    tokenizer: Tokenizer | None
    """None for a digit network"""

    @property
    def model_config(self) -> MLPConfig | GPTConfig:
        """The network's settings, without adapters, because they are merged."""
        model = self.record.resolved.model
        assert isinstance(model, MLPConfig | GPTConfig)
        return without_adapters(model)


def restore(name: str, which: str = "best") -> Restored:
    """Load a run's network with the weights of a checkpoint: best, last, or a step such as step-500.

    `name` is a run or one of its checkpoint folders. Adapters are merged into the weights, so the network is always a
    plain one. Raises UserError if the run or checkpoint doesn't exist or can't be used.
    """
    folder = run_folder(name)
    if checkpoint.STEP.fullmatch(folder.name) and folder.parent.name == "checkpoints":
        folder, which = folder.parents[1], folder.name
    record = read_record(folder)
    config = record.resolved.model
    if not isinstance(config, MLPConfig | GPTConfig):
        raise UserError(f"{folder}/run.json does not describe a network", 1)
    require_size(folder, config)
    found = find_checkpoint(folder / "checkpoints", which)
    require_weights(found, config)
    model = build_model(without_adapters(config) if found.state.quantized else config)
    if found.state.quantized and isinstance(model, GPT):
        from model.quantize import quantize

        quantize(model)
    checkpoint.load_model(found, model)
    if isinstance(model, GPT) and model.config.lora:
        from model.lora import merge_lora

        merge_lora(model)
    return Restored(folder, record, found, model.eval(), tokenizer_of(folder))


def without_adapters(config: MLPConfig | GPTConfig) -> MLPConfig | GPTConfig:
    """The config of the plain network that adapters are merged into."""
    return config.model_copy(update={"lora": None}) if isinstance(config, GPTConfig) else config


def find_checkpoint(checkpoints: Path, which: str) -> Checkpoint:
    """The checkpoint called best, last, step-500 or 500. Raises UserError if it doesn't exist or is damaged."""
    finders = {"best": checkpoint.best, "last": checkpoint.last}
    if which in finders:
        if found := finders[which](checkpoints):
            return found
        raise UserError(f"no intact checkpoint in {checkpoints}", 1)
    known = {int(folder.name[5:]): folder for folder in checkpoint.step_folders(checkpoints)}
    number = which.removeprefix("step-")
    if number.isdecimal() and int(number) in known:
        return checkpoint.verify(known[int(number)])
    names = ["best", "last", *(f"step-{step}" for step in known)]
    raise UserError(f"--checkpoint: {which!r} not found; available: {', '.join(names)}{did_you_mean(which, names)}")


def tokenizer_of(folder: Path) -> Tokenizer | None:
    """The run's tokenizer; None for a digit network."""
    return tokenizer_in(folder) if (folder / "tokenizer.json").is_file() else None

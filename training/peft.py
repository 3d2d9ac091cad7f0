"""Write a LoRA run's adapters as PEFT's two files, adapter_config.json and adapter_model.safetensors."""

import json
from pathlib import Path

from torch import Tensor

from configs.errors import UserError
from configs.files import write_whole
from configs.schema import GPTConfig
from model.peft import peft_config, to_peft
from training.base import WEIGHTS, base_folder
from training.restore import Restored
from training.tensorfile import read_tensors, write_tensors


def write_peft(folder: Path, restored: Restored, base: str) -> None:
    """Write what `PeftModel.from_pretrained(gpt2, folder)` loads, where `gpt2` is the exported result of `read_base`.

    `base`, a name or folder, is where AutoPeftModelForCausalLM finds it. Raises UserError for a run without adapters.
    """
    config = require_adapters(restored)
    adapters = read_tensors(restored.checkpoint.folder / WEIGHTS, None)
    write_tensors(folder / "adapter_model.safetensors", to_peft(adapters, config))
    assert config.lora is not None
    write_whole(folder / "adapter_config.json", json.dumps(peft_config(config.lora, base), indent=1) + "\n")


def read_base(restored: Restored) -> dict[str, Tensor]:
    """The base weights of a LoRA run, by our names. Raises UserError for a run without adapters."""
    require_adapters(restored)
    return read_tensors(base_folder(restored.checkpoint.folder.parent) / WEIGHTS, None)


def require_adapters(restored: Restored) -> GPTConfig:
    """The network's config. Raises UserError if it has no [model.lora], or has rotary positions."""
    config = restored.record.resolved.model
    if isinstance(config, GPTConfig) and config.lora:
        if config.position == "rotary":
            raise UserError(
                "PEFT export does not support rotary positions; omit --format peft to export the merged model"
            )
        return config
    raise UserError(f"{restored.folder} has no adapters (it was trained without [model.lora]); omit --format peft")

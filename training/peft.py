"""A LoRA run's adapters in the two files that PEFT loads."""

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
    """Write what `PeftModel.from_pretrained(gpt2, folder)` loads, where `gpt2` is what `read_base` gives, exported.

    `base` is where AutoPeftModelForCausalLM looks for it. Raises UserError for a run without adapters.
    """
    config = require_adapters(restored)
    adapters = read_tensors(restored.checkpoint.folder / WEIGHTS, None)
    write_tensors(folder / "adapter_model.safetensors", to_peft(adapters, config))
    assert config.lora is not None
    write_whole(folder / "adapter_config.json", json.dumps(peft_config(config.lora, base), indent=1) + "\n")


def read_base(restored: Restored) -> dict[str, Tensor]:
    """The weights, by our names, that a LoRA run's adapters belong to. Raises UserError for a run without adapters."""
    require_adapters(restored)
    return read_tensors(base_folder(restored.checkpoint.folder.parent) / WEIGHTS, None)


def require_adapters(restored: Restored) -> GPTConfig:
    """The run's network with its [model.lora]. Raises UserError if it has none."""
    config = restored.record.resolved.model
    if isinstance(config, GPTConfig) and config.lora:
        if config.position == "rotary":
            raise UserError("adapters of a network with rotary positions go out merged alone; leave --format peft out")
        return config
    raise UserError(f"{restored.folder} has no adapters (it was trained without [model.lora]); leave --format peft out")

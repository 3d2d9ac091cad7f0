"""Adapters as PEFT keeps them, beside GPT-2 as Hugging Face keeps it, where query, key and value are one layer.

Three products side by side are one product: with A stacked and B block by block on a diagonal,

    [B_q A_q]   [B_q        ] [A_q]
    [B_k A_k] = [    B_k    ] [A_k]
    [B_v A_v]   [        B_v] [A_v]

of three times the rank, so that three times alpha keeps alpha / rank. Tensors in, tensors out.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from configs.schema import GPTConfig, LoRAConfig
from model.lora import TARGETS

LAYERS = {
    "attn.c_attn": ["query", "key", "value"],
    "attn.c_proj": ["out"],
    "mlp.c_fc": ["up"],
    "mlp.c_proj": ["down"],
}


def to_peft(adapters: Mapping[str, Tensor], config: GPTConfig) -> dict[str, Tensor]:
    """The tensors of adapter_model.safetensors from our adapters; `config` is that of the run, with its [model.lora].

    Raises KeyError for an adapter that is missing.
    """
    assert config.lora is not None
    theirs = {}
    for n in range(config.n_layer):
        for layer, parts in LAYERS.items():
            ours = [f"blocks.{n}.{TARGETS[part]}" for part in parts if part in config.lora.targets]
            if ours:
                name = f"base_model.model.transformer.h.{n}.{layer}"
                theirs[f"{name}.lora_A.weight"] = torch.cat([adapters[f"{place}.lora_A"] for place in ours])
                blocks = [adapters[f"{place}.lora_B"] for place in ours]
                theirs[f"{name}.lora_B.weight"] = diagonal(blocks, parts, config.lora).contiguous()
    return theirs


def diagonal(blocks: list[Tensor], parts: list[str], lora: LoRAConfig) -> Tensor:
    """The blocks on a diagonal; a part without an adapter has rows of zeros."""
    given = iter(blocks)
    empty = blocks[0].new_zeros(len(blocks[0]), 0)
    return torch.block_diag(*(next(given) if part in lora.targets else empty for part in parts))


def peft_config(lora: LoRAConfig, base: str) -> dict[str, Any]:
    """adapter_config.json; `base` is the name or folder of the GPT-2 that PEFT puts the adapters beside."""
    counts = {layer: sum(part in lora.targets for part in parts) for layer, parts in LAYERS.items()}
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "target_modules": [layer for layer, count in counts.items() if count],
        "rank_pattern": {layer: count * lora.rank for layer, count in counts.items() if count > 1},
        "alpha_pattern": {layer: count * lora.alpha for layer, count in counts.items() if count > 1},
        "fan_in_fan_out": True,  # GPT-2 stores its matrices as (inputs, outputs)
        "bias": "none",
        "lora_dropout": 0.0,
        "inference_mode": True,
    }

"""Convert LoRA adapters to PEFT's, for Hugging Face's GPT-2, where query, key and value are one layer.

The three products become one, with A stacked and B block-diagonal,

    [B_q A_q]   [B_q        ] [A_q]
    [B_k A_k] = [    B_k    ] [A_k]
    [B_v A_v]   [        B_v] [A_v]

of three times the rank; three times alpha keeps alpha / rank. Tensors in, tensors out.
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
    """The tensors of adapter_model.safetensors from our adapters; `config` is the run's, with its [model.lora].

    A part of a fused layer without an adapter has rank 0, and rows of zeros in B.
    """
    assert config.lora is not None
    A0, B0 = torch.zeros(0, config.n_embd), torch.zeros(config.n_embd, 0)
    theirs = {}
    for n in range(config.n_layer):
        for layer in adapted(config.lora):
            names = [f"blocks.{n}.{TARGETS[part]}" for part in LAYERS[layer]]
            prefix = f"base_model.model.transformer.h.{n}.{layer}"
            theirs[f"{prefix}.lora_A.weight"] = torch.cat([adapters.get(f"{p}.lora_A", A0) for p in names])
            theirs[f"{prefix}.lora_B.weight"] = torch.block_diag(*(adapters.get(f"{p}.lora_B", B0) for p in names))
    return theirs


def adapted(lora: LoRAConfig) -> dict[str, int]:
    """Their layers with an adapter, and the number of our adapters in each."""
    counts = {layer: sum(part in lora.targets for part in parts) for layer, parts in LAYERS.items()}
    return {layer: count for layer, count in counts.items() if count}


def peft_config(lora: LoRAConfig, base: str) -> dict[str, Any]:
    """The content of adapter_config.json; `base` is the name or folder of the GPT-2 that the adapters belong to."""
    counts = adapted(lora)
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "target_modules": list(counts),
        "rank_pattern": {layer: count * lora.rank for layer, count in counts.items() if count > 1},
        "alpha_pattern": {layer: count * lora.alpha for layer, count in counts.items() if count > 1},
        "fan_in_fan_out": True,  # GPT-2 stores its matrices as (inputs, outputs)
        "bias": "none",
        "lora_dropout": 0.0,
        "inference_mode": True,
    }

"""Convert our GPT with rotary positions to Hugging Face's GPT-NeoX (Black et al. 2022).

It has GPT-2's blocks, but rotates queries and keys instead of adding positions. Query, key and value are one matrix,
head by head. Biases that our network lacks become zeros. Tensors in, tensors out.
"""

from collections.abc import Mapping
from itertools import product
from typing import Any

import torch
from torch import Tensor

from configs.errors import UserError
from configs.schema import GPTConfig
from model.gpt2 import their_activation

NETWORK = {"gpt_neox.embed_in": "embedding.token", "gpt_neox.final_layer_norm": "norm", "embed_out": "unembedding"}
FUSED = "attention.query_key_value"
BLOCK = {
    "input_layernorm": "norm_1",
    FUSED: FUSED,
    "attention.dense": "attention.out",
    "post_attention_layernorm": "norm_2",
    "mlp.dense_h_to_4h": "mlp.layers.0",
    "mlp.dense_4h_to_h": "mlp.layers.1",
}
WITHOUT_BIAS = ("gpt_neox.embed_in", "embed_out")


def neox_config(config: GPTConfig, end_of_text: int | None) -> dict[str, Any]:
    """The content of config.json for our network. Raises UserError for what GPT-NeoX cannot express."""
    if config.norm == "post":
        raise UserError('model.norm="post" cannot be exported: GPT-NeoX normalises before each sub-layer, not after it')
    return {
        "architectures": ["GPTNeoXForCausalLM"],
        "model_type": "gpt_neox",
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.context_length,
        "hidden_size": config.n_embd,
        "intermediate_size": 4 * config.n_embd,
        "num_hidden_layers": config.n_layer,
        "num_attention_heads": config.n_head,
        "hidden_act": their_activation(config),
        "hidden_dropout": config.dropout,
        "attention_dropout": 0.0,
        "tie_word_embeddings": config.tied,
        "use_parallel_residual": False,
        "rotary_pct": 1.0,
        "rotary_emb_base": 10_000,
        "layer_norm_eps": 1e-5,
        "bos_token_id": end_of_text,
        "eos_token_id": end_of_text,
        "torch_dtype": "float32",
    }


def to_neox(weights: Mapping[str, Tensor], config: GPTConfig) -> dict[str, Tensor]:
    """Their tensors from our weights, where a tied matrix appears once.

    Raises UserError for weights without a counterpart.
    """
    left, converted = dict(weights), {}
    for n, kind in product(range(config.n_layer), ("weight", "bias")):
        parts = [f"blocks.{n}.attention.{name}.{kind}" for name in ("query", "key", "value")]
        if parts[0] in left:
            left[f"blocks.{n}.{FUSED}.{kind}"] = by_head([left.pop(part) for part in parts], config.n_head)
    for theirs, ours in modules(config.n_layer).items():
        if config.tied and theirs == "embed_out":
            continue
        weight = left.pop(f"{ours}.weight")
        converted[f"{theirs}.weight"] = weight.contiguous()
        if theirs not in WITHOUT_BIAS:
            converted[f"{theirs}.bias"] = left.pop(f"{ours}.bias", weight.new_zeros(weight.size(0)))
    if left:
        raise UserError(f"{next(iter(left))} has no counterpart in GPT-NeoX")
    return converted


def modules(n_layer: int) -> dict[str, str]:
    """Their layer names and ours."""
    blocks = {
        f"gpt_neox.layers.{n}.{theirs}": f"blocks.{n}.{ours}" for n in range(n_layer) for theirs, ours in BLOCK.items()
    }
    return NETWORK | blocks


def by_head(parts: list[Tensor], n_head: int) -> Tensor:
    """One matrix or bias: query, key and value of the first head, then of the second, and so on."""
    heads = [part.unflatten(0, (n_head, -1)) for part in parts]
    return torch.stack(heads, dim=1).flatten(0, 2)

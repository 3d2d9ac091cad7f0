"""Convert config and weights between our GPT and Hugging Face's GPT-2, the same network with other names and layout.

OpenAI computed a layer as a one-dimensional convolution, so four matrices of a block are stored as (inputs, outputs),
the transpose of ours, and query, key and value are one matrix. Everything else is renaming.
Tensors in, tensors out; training/huggingface.py reads and writes the files.
"""

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from pydantic import ConfigDict, Field, model_validator
from torch import Tensor

from configs.errors import UserError
from configs.schema import GPTConfig, Probability, Settings
from model.gpt import GPT
from model.position import SinusoidalPosition

NETWORK = {
    "transformer.wte": ["embedding.token"],
    "transformer.wpe": ["embedding.position"],
    "transformer.ln_f": ["norm"],
    "lm_head": ["unembedding"],
}
BLOCK = {
    "ln_1": ["norm_1"],
    "attn.c_attn": ["attention.query", "attention.key", "attention.value"],
    "attn.c_proj": ["attention.out"],
    "ln_2": ["norm_2"],
    "mlp.c_fc": ["mlp.layers.0"],
    "mlp.c_proj": ["mlp.layers.1"],
}
CONVOLUTIONS = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
WITHOUT_BIAS = ("transformer.wte", "transformer.wpe", "lm_head")
BUFFERS = (".attn.bias", ".attn.masked_bias")  # the causal mask, which old files contain too
ACTIVATIONS = {
    "gelu_new": "gelu_tanh",  # first, so that exports use GPT-2's own name
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu": "gelu",
    "relu": "relu",
    "tanh": "tanh",
    "sigmoid": "sigmoid",
}
SYNONYMS = {
    "hidden_size": "n_embd",
    "max_position_embeddings": "n_positions",
    "num_attention_heads": "n_head",
    "num_hidden_layers": "n_layer",
}
ONLY = {  # the only values that our network supports
    "model_type": "gpt2",
    "layer_norm_epsilon": 1e-5,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "reorder_and_upcast_attn": False,
    "add_cross_attention": False,
    "auto_map": None,
    "quantization_config": None,
}

Size = Annotated[int, Field(ge=1, le=2**24)]


class GPT2Config(Settings):
    """config.json: the keys that define the network, with the defaults of `transformers`.

    Other keys (initializer_range, task_specific_params, summary_type ...) do not affect the logits and are ignored.
    """

    model_config = ConfigDict(extra="ignore")

    model_type: str
    vocab_size: Size = 50257
    n_positions: Size = 1024
    n_embd: Size = 768
    n_layer: Annotated[int, Field(ge=1, le=256)] = 12
    n_head: Size = 12
    n_inner: Size | None = None
    """neurons in an MLP (default: 4 n_embd, the only supported value)"""
    activation_function: str = "gelu_new"
    embd_pdrop: Probability = 0.1
    attn_pdrop: Probability = 0.1
    resid_pdrop: Probability = 0.1
    tie_word_embeddings: bool = True
    layer_norm_epsilon: float = 1e-5
    scale_attn_weights: bool = True
    scale_attn_by_inverse_layer_idx: bool = False
    reorder_and_upcast_attn: bool = False
    add_cross_attention: bool = False
    auto_map: Any = None
    """names code in the folder; not supported, never run"""
    quantization_config: Any = None

    @model_validator(mode="before")
    @classmethod
    def resolve_synonyms(cls, given: Any) -> Any:
        """Rename the synonyms that transformers accepts for four sizes."""
        if not isinstance(given, dict):
            return given
        renamed = {SYNONYMS[name]: value for name, value in given.items() if name in SYNONYMS}
        for name in renamed.keys() & given.keys():
            if renamed[name] != given[name]:
                raise ValueError(f"{name} has two values, {given[name]!r:.40} and {renamed[name]!r:.40}")
        return given | renamed

    @model_validator(mode="after")
    def validate_supported(self) -> "GPT2Config":
        for name, only in {**ONLY, "n_inner": 4 * self.n_embd}.items():
            value = getattr(self, name)
            if value != only and not (name == "n_inner" and value is None):
                raise ValueError(f"{name}={value!r:.60} is not supported, only {only!r}")
        if self.activation_function not in ACTIVATIONS:
            known = ", ".join(ACTIVATIONS)
            raise ValueError(f"activation_function={self.activation_function!r:.60} is not supported, only {known}")
        return self

    def ours(self) -> GPTConfig:
        """Our config for this network; dropout is the smaller of embd_pdrop and resid_pdrop (attn_pdrop is ignored).

        Raises ValueError for invalid sizes.
        """
        return GPTConfig(
            n_layer=self.n_layer,
            n_head=self.n_head,
            n_embd=self.n_embd,
            vocab_size=self.vocab_size,
            context_length=self.n_positions,
            activation=ACTIVATIONS[self.activation_function],
            dropout=min(self.embd_pdrop, self.resid_pdrop),
            tied=self.tie_word_embeddings,
        )


def their_activation(config: GPTConfig) -> str:
    """The name of our activation in transformers."""
    return next(name for name, ours in ACTIVATIONS.items() if ours == config.activation)


def gpt2_config(config: GPTConfig, end_of_text: int | None) -> dict[str, Any]:
    """The content of config.json for our network. Raises UserError for what GPT-2 cannot express.

    Sinusoidal positions are exported as a table and missing biases as zeros, see `to_gpt2`.
    """
    if config.norm == "post":
        raise UserError('model.norm="post" cannot be exported: GPT-2 normalises before each sub-layer, not after it')
    theirs = GPT2Config(
        model_type="gpt2",
        vocab_size=config.vocab_size,
        n_positions=config.context_length,
        n_embd=config.n_embd,
        n_layer=config.n_layer,
        n_head=config.n_head,
        activation_function=their_activation(config),
        embd_pdrop=config.dropout,
        attn_pdrop=0.0,
        resid_pdrop=config.dropout,
        tie_word_embeddings=config.tied,
    )
    return {
        "architectures": ["GPT2LMHeadModel"],
        **theirs.model_dump(exclude_none=True),
        "n_ctx": config.context_length,  # an older name of n_positions, which llama.cpp still requires
        "bos_token_id": end_of_text,
        "eos_token_id": end_of_text,
        "torch_dtype": "float32",
    }


def modules(n_layer: int) -> dict[str, list[str]]:
    """Their layer names and ours: three of ours where theirs is fused."""
    blocks = {
        f"transformer.h.{n}.{theirs}": [f"blocks.{n}.{name}" for name in ours]
        for n in range(n_layer)
        for theirs, ours in BLOCK.items()
    }
    return NETWORK | blocks


def full_name(name: str) -> str | None:
    """A tensor's name in the current format; None for a causal mask, which is not a weight."""
    if name.endswith(BUFFERS):
        return None
    return name if name.startswith(("transformer.", "lm_head.")) else f"transformer.{name}"


def from_gpt2(tensors: Mapping[str, Tensor], config: GPTConfig) -> dict[str, Tensor]:
    """Our weights from theirs, given by full name in the shapes of `gpt2_shapes`.

    Biases that are all zero stay biases. A tied unembedding is omitted.
    """
    ours = {}
    for theirs, names in modules(config.n_layer).items():
        for kind in ("weight", "bias"):
            if (tensor := tensors.get(f"{theirs}.{kind}")) is None or (config.tied and theirs == "lm_head"):
                continue
            layer = tensor.mT if kind == "weight" and theirs.endswith(CONVOLUTIONS) else tensor
            parts = zip(names, layer.chunk(len(names)), strict=True)
            ours |= {f"{name}.{kind}": part.contiguous() for name, part in parts}
    return ours


def to_gpt2(weights: Mapping[str, Tensor], config: GPTConfig) -> dict[str, Tensor]:
    """Their tensors from our weights, where a tied matrix appears once.

    Missing biases become zeros, and sinusoidal positions a table. Raises UserError for weights without a counterpart.
    """
    left = dict(weights)
    if config.position == "sinusoidal":
        left["embedding.position.weight"] = SinusoidalPosition(config.context_length, config.n_embd).get_buffer("waves")
    theirs = {}
    for their_name, names in modules(config.n_layer).items():
        if config.tied and their_name == "lm_head":
            continue
        weight = torch.cat([left.pop(f"{name}.weight") for name in names])
        if their_name not in WITHOUT_BIAS:
            biases = [left.pop(f"{name}.bias", None) for name in names]
            given = [bias for bias in biases if bias is not None]
            theirs[f"{their_name}.bias"] = torch.cat(given) if given else weight.new_zeros(weight.size(0))
        layer = weight.mT if their_name.endswith(CONVOLUTIONS) else weight
        theirs[f"{their_name}.weight"] = layer.contiguous()
    if left:
        raise UserError(f"{next(iter(left))} has no counterpart in GPT-2")
    return theirs


def gpt2_shapes(config: GPTConfig) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor of a GPT-2 with this config, by full name."""
    with torch.device("meta"):
        tensors = to_gpt2(dict(GPT(config).named_parameters()), config)
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}

"""GPT-2 as Hugging Face keeps it: the same network, its tensors under other names and in another layout.

OpenAI's code computed a layer as a one-dimensional convolution, so four matrices of a block are stored as
(inputs, outputs), the transpose of ours, and query, key and value are one matrix. All else is names.
Tensors in, tensors out; files are read and written in training/huggingface.py.
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
BUFFERS = (".attn.bias", ".attn.masked_bias")  # the causal mask, which old files hold too
ACTIVATIONS = {
    "gelu_new": "gelu_tanh",  # GPT-2's own comes first: it is the name that we write
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
ONLY = {  # what our network is, where theirs has a choice
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
    """config.json: the keys that say what the network is, with the defaults of `transformers`.

    The other keys of a real one (initializer_range, task_specific_params, summary_type ...) have no effect on the
    logits and are ignored.
    """

    model_config = ConfigDict(extra="ignore")

    model_type: str
    vocab_size: Size = 50257
    n_positions: Size = 1024
    n_embd: Size = 768
    n_layer: Annotated[int, Field(ge=1, le=256)] = 12
    n_head: Size = 12
    n_inner: Size | None = None
    """neurons in an MLP (default: 4 n_embd, the only number that is supported)"""
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
    """code of the folder's own, which is never run"""
    quantization_config: Any = None

    @model_validator(mode="before")
    @classmethod
    def one_name_for_each(cls, given: Any) -> Any:
        """transformers knows four sizes by a second name each."""
        if not isinstance(given, dict):
            return given
        renamed = {SYNONYMS[name]: value for name, value in given.items() if name in SYNONYMS}
        for name in renamed.keys() & given.keys():
            if renamed[name] != given[name]:
                raise ValueError(f"{name} has two values, {given[name]!r:.40} and {renamed[name]!r:.40}")
        return given | renamed

    @model_validator(mode="after")
    def is_ours(self) -> "GPT2Config":
        for name, only in {**ONLY, "n_inner": 4 * self.n_embd}.items():
            value = getattr(self, name)
            if value != only and not (name == "n_inner" and value is None):
                raise ValueError(f"{name}={value!r:.60} is not supported, only {only!r}")
        if self.activation_function not in ACTIVATIONS:
            known = ", ".join(ACTIVATIONS)
            raise ValueError(f"activation_function={self.activation_function!r:.60} is not one of {known}")
        return self

    def ours(self) -> GPTConfig:
        """The network in our terms; dropout, one number that leaves patterns whole, is the less of their other two.

        Raises ValueError for sizes that no network has.
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
    """What transformers calls our activation."""
    return next(name for name, ours in ACTIVATIONS.items() if ours == config.activation)


def gpt2_config(config: GPTConfig, end_of_text: int | None) -> dict[str, Any]:
    """Our network as config.json describes it. Raises UserError for what GPT-2 can't be.

    Sinusoidal positions become a table and missing biases become zeros, see `to_gpt2`.
    """
    if config.norm == "post":
        raise UserError('model.norm="post" can\'t be exported: GPT-2 normalises before each sub-layer, not after it')
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
        "n_ctx": config.context_length,  # an older name of n_positions, which llama.cpp still asks for
        "bos_token_id": end_of_text,
        "eos_token_id": end_of_text,
        "torch_dtype": "float32",
    }


def modules(n_layer: int) -> dict[str, list[str]]:
    """Their layers' names and ours, three of ours where theirs is fused."""
    blocks = {
        f"transformer.h.{n}.{theirs}": [f"blocks.{n}.{name}" for name in ours]
        for n in range(n_layer)
        for theirs, ours in BLOCK.items()
    }
    return NETWORK | blocks


def full_name(name: str) -> str | None:
    """A tensor's name as files have it today; None for a mask, which is no weight."""
    if name.endswith(BUFFERS):
        return None
    return name if name.startswith(("transformer.", "lm_head.")) else f"transformer.{name}"


def from_gpt2(tensors: Mapping[str, Tensor], config: GPTConfig) -> dict[str, Tensor]:
    """Our weights from theirs, which have their full names and the shapes of `gpt2_shapes`.

    Biases that are all zero stay biases. A tied unembedding is left out.
    """
    ours = {}
    for theirs, names in modules(config.n_layer).items():
        for kind in ("weight", "bias"):
            if (tensor := tensors.get(f"{theirs}.{kind}")) is None or (config.tied and theirs == "lm_head"):
                continue
            turned = tensor.mT if kind == "weight" and theirs.endswith(CONVOLUTIONS) else tensor
            parts = zip(names, turned.chunk(len(names)), strict=True)
            ours |= {f"{name}.{kind}": part.contiguous() for name, part in parts}
    return ours


def to_gpt2(weights: Mapping[str, Tensor], config: GPTConfig) -> dict[str, Tensor]:
    """Their tensors from our weights, where a tied matrix appears once.

    Biases that our network does without are zeros there; sinusoidal positions are the table of their waves.
    Raises UserError for weights that GPT-2 has no place for.
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
        turned = weight.mT if their_name.endswith(CONVOLUTIONS) else weight
        theirs[f"{their_name}.weight"] = turned.contiguous()
    if left:
        raise UserError(f"{next(iter(left))} has no place in GPT-2")
    return theirs


def gpt2_shapes(config: GPTConfig) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor that a GPT-2 of this config has, by its full name."""
    with torch.device("meta"):
        tensors = to_gpt2(dict(GPT(config).named_parameters()), config)
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}

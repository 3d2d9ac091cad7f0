"""The networks of the lessons, a digit MLP and a GPT, and text generation from logits."""

from configs.schema import GPTConfig, MLPConfig
from model.gpt import GPT
from model.initialise import initialise_mlp
from model.mlp import MLP

__all__ = ["GPT", "MLP", "GPTConfig", "MLPConfig", "build_model"]


def build_model(config: MLPConfig | GPTConfig) -> MLP | GPT:
    """The network that a config describes, with initial weights from torch's global random generator.

    With [model.lora], only the adapters are trainable. Raises UserError for too high a rank.
    """
    match config:
        case MLPConfig():
            model = MLP(config.sizes, config.activation, config.dropout)
            initialise_mlp(model, config.init)
            return model
        case GPTConfig():
            model = GPT(config)
            if config.lora:
                from model.lora import add_lora

                add_lora(model, config.lora)
            return model

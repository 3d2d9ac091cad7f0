"""Batch-independent memory: parameters, gradients, optimiser state. Does not import torch."""

from configs.schema import Config, GPTConfig, MLPConfig
from training.parameters import Parameter, parameters

SINGLE = 4  # bytes per float32 value: weights, gradients and optimiser state


def what_learns(config: Config) -> list[Parameter]:
    """All parameters, with `learns` false for those in train.freeze; either name of a tied matrix freezes it."""
    assert isinstance(config.model, MLPConfig | GPTConfig)
    everything = parameters(config.model)
    if not config.train.freeze:
        return everything
    from training.freeze import places

    frozen = tuple(f"{place}." for part in config.train.freeze for place in places(part))
    tied = {"embedding.token.weight": "unembedding.weight"} if getattr(config.model, "tied", False) else {}

    def is_frozen(name: str) -> bool:
        return f"{name}.".startswith(frozen) or (name in tied and f"{tied[name]}.".startswith(frozen))

    return [p._replace(learns=p.learns and not is_frozen(p.name)) for p in everything]


def count_parameters(config: Config, learning: bool = False) -> int:
    """Number of parameters, or of the trainable ones."""
    return sum(p.count for p in what_learns(config) if p.learns or not learning)


def is_hidden(p: Parameter, config: Config) -> bool:
    """Whether Muon updates it: a matrix that maps hidden vectors to hidden vectors."""
    last = f"layers.{len(config.model.sizes) - 2}." if isinstance(config.model, MLPConfig) else "embedding."
    return len(p.shape) == 2 and p.name.startswith(("blocks.", "layers.")) and not p.name.startswith(last)


def moments(config: Config) -> int:
    """Number of values in the optimiser's state."""
    name, momentum = config.optim.name, bool(config.optim.momentum)
    learning = [p for p in what_learns(config) if p.learns]
    each = {"sgd": int(momentum), "rmsprop": 1 + momentum, "adam": 2, "adamw": 2, "muon": 2}[name]
    by_muon = sum(p.count for p in learning if is_hidden(p, config)) if name == "muon" else 0  # one value each, not two
    return each * sum(p.count for p in learning) - by_muon


def state_bytes(config: Config) -> int:
    """Bytes of weights, gradients and optimiser state."""
    return SINGLE * (count_parameters(config) + count_parameters(config, learning=True) + moments(config))


def checkpoint_bytes(config: Config) -> int:
    """Bytes of a checkpoint: weights (for LoRA only the adapters) and optimiser state."""
    everything = what_learns(config)
    saved = [p for p in everything if ".lora_" in p.name] or everything
    return SINGLE * (sum(p.count for p in saved) + moments(config))

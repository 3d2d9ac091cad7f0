"""What a network costs whatever it reads: the numbers that it has, learns, and that its optimiser keeps. No torch."""

from configs.schema import Config, GPTConfig, MLPConfig
from training.parameters import Parameter, parameters

SINGLE = 4  # bytes of a float32: weights, gradients and moments are kept in it


def what_learns(config: Config) -> list[Parameter]:
    """All parameters; those that train.freeze names don't learn. A tied matrix is frozen by either of its names."""
    assert isinstance(config.model, MLPConfig | GPTConfig)
    found = parameters(config.model)
    if not config.train.freeze:
        return found
    from training.freeze import places

    frozen = tuple(f"{place}." for part in config.train.freeze for place in places(part))
    tied = {"embedding.token.weight": "unembedding.weight"} if getattr(config.model, "tied", False) else {}

    def still(name: str) -> bool:
        return f"{name}.".startswith(frozen) or (name in tied and f"{tied[name]}.".startswith(frozen))

    return [p._replace(learns=p.learns and not still(p.name)) for p in found]


def count_parameters(config: Config, learning: bool = False) -> int:
    """How many numbers the network has, or learns."""
    return sum(p.count for p in what_learns(config) if p.learns or not learning)


def is_hidden(p: Parameter, config: Config) -> bool:
    """Whether Muon takes it: a matrix from hidden vectors to hidden vectors."""
    last = f"layers.{len(config.model.sizes) - 2}." if isinstance(config.model, MLPConfig) else "embedding."
    return len(p.shape) == 2 and p.name.startswith(("blocks.", "layers.")) and not p.name.startswith(last)


def moments(config: Config) -> int:
    """How many numbers the optimiser keeps."""
    name, momentum = config.optim.name, bool(config.optim.momentum)
    learning = [p for p in what_learns(config) if p.learns]
    each = {"sgd": int(momentum), "rmsprop": 1 + momentum, "adam": 2, "adamw": 2, "muon": 2}[name]
    spared = sum(p.count for p in learning if is_hidden(p, config)) if name == "muon" else 0
    return each * sum(p.count for p in learning) - spared


def state_bytes(config: Config) -> int:
    """Weights, gradients and the optimiser's memory: what training takes whatever the batch."""
    return SINGLE * (count_parameters(config) + count_parameters(config, learning=True) + moments(config))


def checkpoint_bytes(config: Config) -> int:
    """The size of a checkpoint: weights (of a LoRA run the adapters alone) and the optimiser's state."""
    everything = what_learns(config)
    saved = [p for p in everything if ".lora_" in p.name] or everything
    return SINGLE * (sum(p.count for p in saved) + moments(config))

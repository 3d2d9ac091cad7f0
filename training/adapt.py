"""Fine-tuning: adapt the network of train.start to a new run's context length, vocabulary and adapters."""

import torch
from jaxtyping import Float
from torch import Tensor

from configs.errors import UserError
from configs.schema import AutoConfig, Config, GPTConfig
from data.dataset import Dataset
from data.text import Text
from data.tokenizer import CharTokenizer
from training.learner import build_network
from training.report import say
from training.start import Base

MAY_DIFFER = ("lora", "dropout", "context_length")
POSITIONS = "embedding.position.weight"
VOCABULARY = ("embedding.token.weight", "unembedding.weight")  # one row per token


def with_base(asked: Config, base: Base) -> Config:
    """The config with the network of train.start, in which only MAY_DIFFER may change.

    Raises UserError if another setting of [model] differs, if the context is longer than the learned positions, or if
    new characters are combined with adapters or a frozen embedding.
    """
    model, start = base.model_config, f"train.start={asked.train.start}"
    given = {name: getattr(asked.model, name) for name in asked.model.model_fields_set} if asked.model else {}
    if isinstance(asked.model, AutoConfig):
        given.pop("kind", None)
    for name, value in given.items():
        theirs = repr(getattr(model, name)) if hasattr(model, name) else "no such setting"
        if theirs != repr(value) and not (hasattr(model, name) and name in MAY_DIFFER):
            raise UserError(f"model.{name}={value!r} conflicts with {start}, which has {theirs}; omit it")
    length = given.get("context_length", 0)
    if isinstance(model, GPTConfig) and model.position == "learned" and length > model.context_length:
        raise UserError(
            f"model.context_length={length} exceeds the context length of {start}, {model.context_length}, and its "
            f"learned positions cannot be extended; use {model.context_length} or less"
        )
    update = {name: value for name, value in given.items() if name in MAY_DIFFER}
    config = asked.model_copy(update={"model": model.model_copy(update=update)})
    require_trainable_rows(config)
    return config


def fitted(config: Config, base: Base, data: Dataset) -> tuple[Config, Base]:
    """Config and weights resized for `data`: positions cut to the context, and a row added for each new character."""
    if not (isinstance(config.model, GPTConfig) and isinstance(data, Text)):
        return config, base
    assert isinstance(base.model_config, GPTConfig)
    known, size, weights = base.model_config.vocab_size, data.tokenizer.vocab_size, dict(base.weights)
    if POSITIONS in weights:
        weights[POSITIONS] = weights[POSITIONS][: config.model.context_length]
    if size > known:
        config = config.model_copy(update={"model": config.model.model_copy(update={"vocab_size": size})})
        weights |= {name: with_rows(weights[name], size) for name in VOCABULARY if name in weights}
        assert isinstance(data.tokenizer, CharTokenizer)
        new = data.tokenizer.more[known - size :]
        shown = " ".join(map(repr, new[:20])) + " ..." * (len(new) > 20)
        say(f"adding {len(new)} characters to the vocabulary of {base.name}: {shown}")
    return config, base._replace(weights=weights)


def with_rows(rows: Float[Tensor, "V C"], size: int) -> Float[Tensor, "W C"]:
    """Append copies of the mean row up to `size` rows: a new token starts at most as likely as the average one.

    (Hewitt 2021, "Initializing new word embeddings for pretrained language models".) The new rows start equal and
    diverge with the first gradients.
    """
    return torch.cat((rows, rows.mean(dim=0).expand(size - len(rows), -1)))


def require_trainable_rows(config: Config) -> None:
    """Raises UserError for invalid adapters or frozen parts, and if the embedding rows of new characters are frozen."""
    with torch.device("meta"):
        parameters = dict(build_network(config).named_parameters())
    if config.data.extend and not all(parameters[name].requires_grad for name in VOCABULARY if name in parameters):
        raise UserError(
            "data.extend adds rows to the embedding, which [model.lora] or train.freeze freezes; "
            "fine-tune without them first, then start from that run"
        )

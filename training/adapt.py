"""A new run takes over the network of train.start: the same, but for the few things that may differ."""

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
VOCABULARY = ("embedding.token.weight", "unembedding.weight")  # a row for each token


def with_base(asked: Config, base: Base) -> Config:
    """The config with the network of train.start; adapters are the new run's own, and the context may be shorter.

    Raises UserError for any other setting of [model] that differs, for more positions than were learned, and for
    adapters, frozen parts and new characters that don't go together.
    """
    model, start = base.model_config, f"train.start={asked.train.start}"
    given = {name: getattr(asked.model, name) for name in asked.model.model_fields_set} if asked.model else {}
    if isinstance(asked.model, AutoConfig):
        given.pop("kind", None)
    for name, value in given.items():
        theirs = repr(getattr(model, name)) if hasattr(model, name) else "no such setting"
        if theirs != repr(value) and not (hasattr(model, name) and name in MAY_DIFFER):
            raise UserError(f"model.{name}={value!r} does not fit {start}, whose network has {theirs}; leave it out")
    length = given.get("context_length", 0)
    if isinstance(model, GPTConfig) and model.position == "learned" and length > model.context_length:
        raise UserError(
            f"model.context_length={length} is more than the {model.context_length} of {start}: its positions are "
            f"learned, and it has no weights for places it never saw; choose {model.context_length} or less"
        )
    update = {name: value for name, value in given.items() if name in MAY_DIFFER}
    config = asked.model_copy(update={"model": model.model_copy(update=update)})
    require_that_it_can_learn(config)
    return config


def fitted(config: Config, base: Base, data: Dataset) -> tuple[Config, Base]:
    """Config and weights for the tokens of `data`: positions cut to the context, and a row for each new character."""
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
        say(f"{len(new)} characters are new to {base.name}: {' '.join(map(repr, new[:20]))}{' ...' * (len(new) > 20)}")
    return config, base._replace(weights=weights)


def with_rows(rows: Float[Tensor, "V C"], size: int) -> Float[Tensor, "W C"]:
    """The same rows and, up to `size`, their mean: each new token is then at most as likely as the average one.

    (Hewitt 2021, "Initializing new word embeddings for pretrained language models".) Rows that begin equal part with
    the first gradient, for each has its own occurrences.
    """
    return torch.cat((rows, rows.mean(dim=0).expand(size - len(rows), -1)))


def require_that_it_can_learn(config: Config) -> None:
    """Raises UserError for adapters and frozen parts that don't fit, and if rows for new characters could not learn."""
    with torch.device("meta"):
        parameters = dict(build_network(config).named_parameters())
    if config.data.extend and not all(parameters[name].requires_grad for name in VOCABULARY if name in parameters):
        raise UserError(
            "data.extend gives new characters rows in the embedding, which [model.lora] and train.freeze keep still; "
            "fine-tune without them first, then start from that run"
        )

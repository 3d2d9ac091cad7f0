"""What every data set answers, and which one a config means."""

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

from torch import Tensor

from configs.schema import Config, MLPConfig
from data.tokenizer import Tokenizer

Batch = tuple[Tensor, Tensor]
IGNORED = -100  # a target that counts for nothing


@runtime_checkable
class Dataset(Protocol):
    """Numbered batches to learn from, and every split in order to be judged by."""

    positions: int
    """targets in one example"""
    sha256: str
    """of everything in it"""

    def count(self, split: str) -> int:
        """Examples in the split; 0 if there is no such split."""
        ...

    def batch(self, split: str, number: int, size: int) -> Batch:
        """Inputs and targets; a pure function of the seed and the arguments."""
        ...

    def in_order(self, split: str, size: int) -> Iterator[Batch]:
        """The whole split once, in batches of one shape; the last is filled up with ignored targets."""
        ...


def open_data(config: Config, tokenizer: Tokenizer | None = None) -> Dataset:
    """Digits for an MLP, text for a GPT. Raises UserError for what can't be read or doesn't fit."""
    if isinstance(config.model, MLPConfig):
        from data.digits import open_digits

        return open_digits(config.data, config.model.sizes, config.train.seed)
    from data.text import open_text

    assert config.model is not None
    return open_text(config.data, config.model.context_length, config.train.seed, tokenizer)

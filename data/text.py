"""The dataset for text networks: windows of tokens, cut from a tokenized corpus."""

import math
from collections.abc import Iterator

import numpy as np
import torch

from configs.errors import UnfitData
from configs.schema import DataConfig
from data.corpus import open_corpus
from data.dataset import IGNORED, Batch
from data.prepare import prepare
from data.seeds import seed_for
from data.shards import Prepared
from data.tokenizer import Tokenizer


class Text:
    """Tokens by split; each batch is a pure function of the seed and its number.

    Inputs are windows of `context_length` tokens; targets are the same windows, one token later.
    Raises UnfitData if a split is too short for one window.
    """

    recipe = 1

    def __init__(self, prepared: Prepared, context_length: int, seed: int = 0) -> None:
        self.prepared = prepared
        self.tokenizer = prepared.tokenizer
        self.tokens = prepared.tokens
        self.positions = context_length  # targets per example
        self.seed = seed
        self.sha256 = prepared.sha256
        need = context_length + 1
        for split, count in {"train": 0, **prepared.counts}.items():
            if count < need:
                raise UnfitData(
                    f"the corpus is too small: its {split} split has {count} tokens and one window needs "
                    f"{need}; use a longer text, a smaller model.context_length, or data.val_fraction = 0"
                )

    def count(self, split: str) -> int:
        """Number of adjacent windows that cover the split; 0 if it does not exist."""
        return math.ceil((len(self.tokens[split]) - 1) / self.positions) if split in self.tokens else 0

    def batch(self, split: str, number: int, size: int) -> Batch:
        """Windows from random positions in the split, determined by the seed and the batch number."""
        tokens = self.tokens[split]
        generator = torch.Generator().manual_seed(seed_for(self.seed, split, number))
        starts = torch.randint(len(tokens) - self.positions, (size,), generator=generator)
        windows = torch.from_numpy(tokens.windows(starts.numpy(), self.positions + 1))
        return windows[:, :-1], windows[:, 1:]

    def in_order(self, split: str, size: int) -> Iterator[Batch]:
        """The whole split once, in adjacent windows; the last batch is padded with ignored targets."""
        tokens = self.tokens[split]
        T, predicted = self.positions, len(tokens) - 1
        for first in range(0, predicted, size * T):
            chunk = tokens[first : first + size * T + 1]
            x, y = np.zeros(size * T, np.int64), np.full(size * T, IGNORED)
            x[: len(chunk) - 1], y[: len(chunk) - 1] = chunk[:-1], chunk[1:]
            yield torch.from_numpy(x.reshape(size, T)), torch.from_numpy(y.reshape(size, T))

    def byte_count(self, split: str) -> int:
        """UTF-8 bytes of the split's targets: all of its text but the first token."""
        first = self.tokenizer.token_bytes(int(self.tokens[split][:1][0]))
        return self.prepared.index.splits[split].byte_count - len(first)


def open_text(config: DataConfig, context_length: int, seed: int, tokenizer: Tokenizer | None = None) -> Text:
    """The corpus at `config.path`, split and tokenized (by `tokenizer`, if given).

    Raises UserError if there is no text, or too little for one window.
    """
    return Text(prepare(open_corpus(config), config, tokenizer), context_length, seed)

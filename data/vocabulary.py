"""Choose a tokenizer and vocabulary size for a corpus."""

from typing import Literal, NamedTuple

import numpy as np

from configs.errors import UserError
from configs.schema import DataConfig
from data.corpus import Corpus
from data.tokenizer import ByteTokenizer, CharTokenizer, Tokenizer

SMALL = 300_000  # bytes; a shorter text has too few frequent byte sequences for BPE
ALPHABET = 256  # distinct characters; with more, most of them are rare
VOCABULARIES = {  # minimum bytes of text: number of BPE tokens
    0: 512,
    300_000: 1024,
    1_000_000: 4096,
    16_000_000: 8192,
    256_000_000: 16_384,
    4_000_000_000: 32_768,
}


class Choice(NamedTuple):
    """A kind of tokenizer, its size, and the reason for choosing it."""

    kind: Literal["char", "byte", "bpe", "gpt2"]
    vocab_size: int | None
    """tokens for bpe to learn; None for other kinds"""
    reason: str


def choose_tokenizer(byte_count: int, characters: int) -> Choice:
    """What `auto` means for a corpus of `byte_count` bytes with `characters` distinct characters."""
    if byte_count >= SMALL:
        return Choice(
            "bpe",
            vocabulary_size(byte_count),
            f"{byte_count / 1e6:,.1f} MB of text is enough to learn a BPE vocabulary",
        )
    if characters <= ALPHABET:
        return Choice("char", None, f"short text with {characters} distinct characters")
    return Choice("byte", None, f"short text with {characters:,} distinct characters, too many for char")


def vocabulary_size(byte_count: int) -> int:
    """Number of tokens that BPE learns by default from `byte_count` bytes."""
    return max(size for least, size in VOCABULARIES.items() if byte_count >= least)


def chosen(config: DataConfig, corpus: Corpus) -> Choice:
    """The kind and size that the settings specify, with `auto` and a missing size resolved.

    Raises UserError if a size is set for a kind other than bpe.
    """
    if config.tokenizer == "auto" and config.vocab_size is None:
        small = corpus.byte_count < SMALL
        return choose_tokenizer(corpus.byte_count, len(alphabet(corpus)) if small else 0)
    if config.tokenizer in ("auto", "bpe"):
        return Choice("bpe", config.vocab_size or vocabulary_size(corpus.byte_count), "set by data.tokenizer")
    if config.vocab_size is not None:
        raise UserError(f"data.vocab_size only applies to --data.tokenizer bpe; omit it with {config.tokenizer}")
    return Choice(config.tokenizer, None, "set by data.tokenizer")


def make_tokenizer(choice: Choice, corpus: Corpus, cuts: np.ndarray) -> Tokenizer:
    """A new tokenizer for a corpus; BPE learns only from the training split (before the cuts)."""
    match choice.kind:
        case "char":
            return CharTokenizer(alphabet(corpus), end_of_text=corpus.document_count > 1)
        case "byte":
            return ByteTokenizer()
    from data.bpe import gpt2_tokenizer, train_bpe

    if choice.kind == "gpt2":
        return gpt2_tokenizer()
    texts = (piece.text for piece in corpus.read("train", cuts))
    return train_bpe(texts, choice.vocab_size or vocabulary_size(corpus.byte_count), int(cuts.sum()))


def alphabet(corpus: Corpus) -> str:
    """Every distinct character in the corpus."""
    return "".join(set().union(*(set(piece.text) for piece in corpus.read("train", corpus.cuts(0)))))

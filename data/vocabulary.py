"""Which tokenizer a corpus gets, and how many tokens it has."""

from typing import Literal, NamedTuple

import numpy as np

from configs.errors import UserError
from configs.schema import DataConfig
from data.corpus import Corpus
from data.tokenizer import ByteTokenizer, CharTokenizer, Tokenizer

SMALL = 300_000  # bytes; below, a text teaches too little about runs of bytes
ALPHABET = 256  # characters; above, most of them are rare
VOCABULARIES = {  # bytes of text from which on so many tokens are learned
    0: 512,
    300_000: 1024,
    1_000_000: 4096,
    16_000_000: 8192,
    256_000_000: 16_384,
    4_000_000_000: 32_768,
}


class Choice(NamedTuple):
    """A kind of tokenizer, and why."""

    kind: Literal["char", "byte", "bpe", "gpt2"]
    vocab_size: int | None
    """tokens to be learned by bpe; the others have as many as they have"""
    reason: str


def choose_tokenizer(byte_count: int, characters: int) -> Choice:
    """What `auto` means for a corpus of so many bytes with so many different characters."""
    if byte_count >= SMALL:
        return Choice(
            "bpe",
            vocabulary_size(byte_count),
            f"{byte_count / 1e6:,.1f} MB of text are enough to learn frequent runs of bytes",
        )
    if characters <= ALPHABET:
        return Choice("char", None, f"a short text, in {characters} different characters")
    return Choice("byte", None, f"a short text, but in {characters:,} different characters")


def vocabulary_size(byte_count: int) -> int:
    """Tokens that bpe learns from so many bytes, unless told otherwise."""
    return max(size for least, size in VOCABULARIES.items() if byte_count >= least)


def chosen(config: DataConfig, corpus: Corpus) -> Choice:
    """The kind and size that the settings ask for, `auto` and a size that isn't given resolved.

    Raises UserError if there is a size and the kind isn't bpe.
    """
    if config.tokenizer == "auto" and config.vocab_size is None:
        small = corpus.byte_count < SMALL
        return choose_tokenizer(corpus.byte_count, len(alphabet(corpus)) if small else 0)
    if config.tokenizer in ("auto", "bpe"):
        return Choice("bpe", config.vocab_size or vocabulary_size(corpus.byte_count), "as data.tokenizer says")
    if config.vocab_size is not None:
        raise UserError(f"data.vocab_size is for --data.tokenizer bpe; {config.tokenizer} has a size of its own")
    return Choice(config.tokenizer, None, "as data.tokenizer says")


def make_tokenizer(choice: Choice, corpus: Corpus, cuts: np.ndarray) -> Tokenizer:
    """A new tokenizer for a corpus; to bpe, what is held out (beyond the cuts) teaches nothing."""
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
    """Every character that occurs in the corpus."""
    return "".join(set().union(*(set(piece.text) for piece in corpus.read("train", corpus.cuts(0)))))

"""Tokenizers convert text to token numbers and back; a token is a character, a byte, or a frequent byte sequence.

A tokenizer is saved as plain JSON and identified by its hash. The one for byte sequences is in `data.bpe`.
"""

import base64
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from configs.errors import UnknownCharacters, UserError, reason
from configs.files import refuse_newer, small
from configs.schema import Settings

LARGEST_TOKENIZER, MOST_TOKENS = 2**25, 2**21  # bytes of tokenizer.json, and values in it


class Tokenizer(ABC):
    """The interface of every tokenizer."""

    vocab_size: int
    end_of_text: int | None
    """the token that ends a document; None if the tokenizer has none"""

    @abstractmethod
    def encode(self, text: str) -> np.ndarray:
        """The tokens of a text, int64. Raises UnknownCharacters for characters that have no token."""

    @abstractmethod
    def token_bytes(self, token: int) -> bytes:
        """The UTF-8 bytes that a token stands for; empty for end-of-text."""

    @abstractmethod
    def to_json(self) -> dict:
        """The fields of tokenizer.json."""

    @property
    def file(self) -> str:
        """The content of tokenizer.json; equal tokenizers have equal content."""
        return json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))

    @property
    def sha256(self) -> str:
        """SHA-256 of `file`."""
        return hashlib.sha256(self.file.encode()).hexdigest()


def decode(tokenizer: Tokenizer, tokens: list[int]) -> str:
    """The text of some tokens; invalid UTF-8 becomes U+FFFD."""
    return b"".join(map(tokenizer.token_bytes, tokens)).decode("utf-8", errors="replace")


def first_token(tokenizer: Tokenizer) -> int:
    """The token that replaces an empty prompt: end-of-text, else a line break, else a space, else token 0."""
    if tokenizer.end_of_text is not None:
        return tokenizer.end_of_text
    known = {tokenizer.token_bytes(token): token for token in range(tokenizer.vocab_size)}
    return known.get(b"\n", known.get(b" ", 0))


class CharTokenizer(Tokenizer):
    """One token per character of the alphabet, in the order of code points; then end-of-text, if requested.

    `more` are characters that fine-tuning added later: they come last, so that no token number changes.
    """

    def __init__(self, characters: str, end_of_text: bool = False, more: str = "") -> None:
        self.characters, self.more = "".join(sorted(set(characters))), more
        self.end_of_text = len(self.characters) if end_of_text else None
        self.alphabet = [*self.characters, *[""] * end_of_text, *more]
        self.vocab_size = len(self.alphabet)
        numbers = {ord(c): number for number, c in enumerate(self.alphabet) if c}
        self.numbers = np.full(max(numbers) + 2, -1)  # by code point; the last entry is for all higher ones
        self.numbers[list(numbers)] = list(numbers.values())

    def encode(self, text: str) -> np.ndarray:
        points = np.frombuffer(text.encode("utf-32-le", errors="surrogatepass"), dtype="<u4")
        tokens = self.numbers[np.minimum(points, len(self.numbers) - 1)]
        if tokens.min(initial=0) < 0:
            unknown = sorted({chr(point) for point in points[tokens < 0]})
            shown = " ".join(repr(c) for c in unknown[:10]) + (" ..." if len(unknown) > 10 else "")
            raise UnknownCharacters(
                f"characters not in the vocabulary: {shown}. This run knows only the characters of its training text; "
                f"fine-tune with --data.extend true to add more"
            )
        return tokens

    def extended(self, characters: Iterable[str]) -> "CharTokenizer":
        """The same tokenizer, with new tokens for the characters that have none."""
        new = "".join(sorted(set(characters) - set(self.alphabet)))
        return CharTokenizer(self.characters, self.end_of_text is not None, self.more + new)

    def token_bytes(self, token: int) -> bytes:
        return self.alphabet[token].encode(errors="surrogatepass")

    def to_json(self) -> dict:
        more = {"more": self.more} if self.more else {}
        return {"kind": "char", "characters": self.characters, "end_of_text": self.end_of_text is not None, **more}


class ByteTokenizer(Tokenizer):
    """One token per UTF-8 byte, then end-of-text: every text can be encoded."""

    vocab_size = 257
    end_of_text = 256

    def encode(self, text: str) -> np.ndarray:
        try:
            content = text.encode("utf-8", errors="surrogateescape")
        except UnicodeEncodeError as error:
            raise UserError(f"the text cannot be encoded as UTF-8: {error}") from error
        return np.frombuffer(content, dtype=np.uint8).astype(np.int64)

    def token_bytes(self, token: int) -> bytes:
        return b"" if token == self.end_of_text else bytes([token])

    def to_json(self) -> dict:
        return {"kind": "byte"}


class TokenizerFile(Settings):
    """tokenizer.json; fields that a kind does not use are omitted."""

    format: Literal[1] = 1
    """never written, because it would change the hash of every existing tokenizer"""
    kind: Literal["char", "byte", "bpe"]
    characters: Annotated[str, Field(max_length=0x110000)] = ""
    end_of_text: bool = False
    more: Annotated[str, Field(max_length=0x110000)] = ""
    pattern: Literal["gpt2"] = "gpt2"
    ranks: list[Annotated[str, Field(max_length=4096)]] = Field(max_length=2**20, default_factory=list)
    """base64"""

    def tokenizer(self) -> Tokenizer:
        """The tokenizer that the file describes. Raises ValueError for missing or duplicate tokens."""
        if self.kind == "byte":
            return ByteTokenizer()
        if self.kind == "char":
            if not self.characters or "".join(sorted(set(self.characters))) != self.characters:
                raise ValueError("characters must be non-empty, sorted and unique")
            if len(set(self.characters + self.more)) < len(self.characters + self.more):
                raise ValueError("more must not repeat a character")
            return CharTokenizer(self.characters, self.end_of_text, self.more)
        from data.bpe import BPETokenizer

        ranks = [base64.b64decode(sequence, validate=True) for sequence in self.ranks]
        if len(set(ranks)) < len(ranks) or not set(ranks) >= {bytes([byte]) for byte in range(256)}:
            raise ValueError("ranks must be distinct and cover all 256 bytes")
        return BPETokenizer(ranks, self.pattern)


def tokenizer_in(folder: Path) -> Tokenizer:
    """The tokenizer of a run or of prepared tokens. Raises UserError, or OSError if the file is missing."""
    file = folder / "tokenizer.json"
    return read_tokenizer(small(file, LARGEST_TOKENIZER, MOST_TOKENS), file)


def read_tokenizer(text: str | bytes, where: object) -> Tokenizer:
    """The tokenizer in a tokenizer.json. Raises UserError, naming `where`, for anything else."""
    try:
        return TokenizerFile.model_validate_json(text).tokenizer()
    except ValueError as error:  # pydantic's ValidationError is one too
        refuse_newer(text, where)
        raise UserError(f"{where} is not a valid tokenizer: {reason(error)}", 1) from error

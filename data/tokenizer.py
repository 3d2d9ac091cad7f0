"""Text becomes numbers and back: one number (token) for a character, a byte, or a frequent run of bytes.

A tokenizer is saved as plain JSON, and known by the hash of that. `data.bpe` has the one for runs of bytes.
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
    """What every tokenizer can do."""

    vocab_size: int
    end_of_text: int | None
    """the token that closes a document, None if there is none"""

    @abstractmethod
    def encode(self, text: str) -> np.ndarray:
        """The tokens of a text, int64. Raises UnknownCharacters for text it has no tokens for."""

    @abstractmethod
    def token_bytes(self, token: int) -> bytes:
        """The UTF-8 bytes that one token stands for; none for end-of-text."""

    @abstractmethod
    def to_json(self) -> dict:
        """All there is to know, for tokenizer.json."""

    @property
    def file(self) -> str:
        """The content of tokenizer.json, the same for the same tokenizer."""
        return json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))

    @property
    def sha256(self) -> str:
        """SHA-256 of `file`."""
        return hashlib.sha256(self.file.encode()).hexdigest()


def decode(tokenizer: Tokenizer, tokens: list[int]) -> str:
    """The text of some tokens; bytes that are no UTF-8 become U+FFFD."""
    return b"".join(map(tokenizer.token_bytes, tokens)).decode("utf-8", errors="replace")


def first_token(tokenizer: Tokenizer) -> int:
    """What a text without a prompt begins after: end-of-text, else a line break, else a space, else anything."""
    if tokenizer.end_of_text is not None:
        return tokenizer.end_of_text
    known = {tokenizer.token_bytes(token): token for token in range(tokenizer.vocab_size)}
    return known.get(b"\n", known.get(b" ", 0))


class CharTokenizer(Tokenizer):
    """One token per character of the alphabet, in the order of code points; then end-of-text, if asked for.

    `more` are characters that came with a later text: they follow, in their own order, so that no number changes.
    """

    def __init__(self, characters: str, end_of_text: bool = False, more: str = "") -> None:
        self.characters, self.more = "".join(sorted(set(characters))), more
        self.end_of_text = len(self.characters) if end_of_text else None
        self.alphabet = [*self.characters, *[""] * end_of_text, *more]
        self.vocab_size = len(self.alphabet)
        numbers = {ord(c): number for number, c in enumerate(self.alphabet) if c}
        self.numbers = np.full(max(numbers) + 2, -1)  # by code point; the last stands for all above
        self.numbers[list(numbers)] = list(numbers.values())

    def encode(self, text: str) -> np.ndarray:
        points = np.frombuffer(text.encode("utf-32-le", errors="surrogatepass"), dtype="<u4")
        tokens = self.numbers[np.minimum(points, len(self.numbers) - 1)]
        if tokens.min(initial=0) < 0:
            strange = sorted({chr(point) for point in points[tokens < 0]})
            shown = " ".join(repr(c) for c in strange[:10]) + (" ..." if len(strange) > 10 else "")
            raise UnknownCharacters(
                f"the network has never seen {shown}: its alphabet is the text it learned from; "
                f"fine-tuning with --data.extend true adds what is new in a text"
            )
        return tokens

    def extended(self, characters: Iterable[str]) -> "CharTokenizer":
        """The same numbers, and new ones for the characters that have none."""
        new = "".join(sorted(set(characters) - set(self.alphabet)))
        return CharTokenizer(self.characters, self.end_of_text is not None, self.more + new)

    def token_bytes(self, token: int) -> bytes:
        return self.alphabet[token].encode(errors="surrogatepass")

    def to_json(self) -> dict:
        more = {"more": self.more} if self.more else {}
        return {"kind": "char", "characters": self.characters, "end_of_text": self.end_of_text is not None, **more}


class ByteTokenizer(Tokenizer):
    """One token per byte of UTF-8, then end-of-text: nothing is ever out of vocabulary."""

    vocab_size = 257
    end_of_text = 256

    def encode(self, text: str) -> np.ndarray:
        try:
            content = text.encode("utf-8", errors="surrogateescape")
        except UnicodeEncodeError as error:
            raise UserError(f"this is no text that UTF-8 can hold: {error}") from error
        return np.frombuffer(content, dtype=np.uint8).astype(np.int64)

    def token_bytes(self, token: int) -> bytes:
        return b"" if token == self.end_of_text else bytes([token])

    def to_json(self) -> dict:
        return {"kind": "byte"}


class TokenizerFile(Settings):
    """tokenizer.json; what a kind has no use for is left out."""

    format: Literal[1] = 1
    """never written, so that a tokenizer keeps its hash"""
    kind: Literal["char", "byte", "bpe"]
    characters: Annotated[str, Field(max_length=0x110000)] = ""
    end_of_text: bool = False
    more: Annotated[str, Field(max_length=0x110000)] = ""
    pattern: Literal["gpt2"] = "gpt2"
    ranks: list[Annotated[str, Field(max_length=4096)]] = Field(max_length=2**20, default_factory=list)
    """base64"""

    def tokenizer(self) -> Tokenizer:
        """What the file describes. Raises ValueError unless tokens and bytes answer to each other one to one."""
        if self.kind == "byte":
            return ByteTokenizer()
        if self.kind == "char":
            if not self.characters or "".join(sorted(set(self.characters))) != self.characters:
                raise ValueError("characters must be there, sorted and unique")
            if len(set(self.characters + self.more)) < len(self.characters + self.more):
                raise ValueError("more must be new and unique")
            return CharTokenizer(self.characters, self.end_of_text, self.more)
        from data.bpe import BPETokenizer

        ranks = [base64.b64decode(run, validate=True) for run in self.ranks]
        if len(set(ranks)) < len(ranks) or not set(ranks) >= {bytes([byte]) for byte in range(256)}:
            raise ValueError("ranks must be distinct and cover all 256 bytes")
        return BPETokenizer(ranks, self.pattern)


def tokenizer_in(folder: Path) -> Tokenizer:
    """The tokenizer of a run or of prepared tokens. Raises UserError, and OSError if there is none."""
    file = folder / "tokenizer.json"
    return read_tokenizer(small(file, LARGEST_TOKENIZER, MOST_TOKENS), file)


def read_tokenizer(text: str | bytes, where: object) -> Tokenizer:
    """The tokenizer that a tokenizer.json holds. Raises UserError for anything else, naming `where`."""
    try:
        return TokenizerFile.model_validate_json(text).tokenizer()
    except ValueError as error:  # pydantic's are of this kind too
        refuse_newer(text, where)
        raise UserError(f"{where} is not a tokenizer: {reason(error)}", 1) from error

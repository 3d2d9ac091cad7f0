"""Text becomes numbers and back: one number (token) for a character, a byte, or a frequent run of bytes.

A tokenizer is saved as plain JSON. Every one of them has `encode`, `decode`, `token_bytes`, `vocab_size` and
`end_of_text`, the token that closes a document (None if it has none).
"""

import base64
import os
from collections.abc import Iterable
from typing import Annotated, Literal, Protocol, runtime_checkable

import numpy as np
from pydantic import Field

from configs.errors import UserError
from configs.schema import Settings
from data.fetch import FILES, folders

# A file names its split pattern; it never brings one, for a regex from a file can hang the machine.
PATTERNS = {
    "gpt2": r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s""",
}


@runtime_checkable
class Tokenizer(Protocol):
    """What every tokenizer can do."""

    vocab_size: int
    end_of_text: int | None

    def encode(self, text: str) -> np.ndarray:
        """The tokens of a text, int64. Raises UserError for text it has no tokens for."""

    def token_bytes(self, token: int) -> bytes:
        """The UTF-8 bytes that one token stands for; none for end-of-text."""

    def to_json(self) -> dict:
        """All there is to know, for tokenizer.json."""


def decode(tokenizer: Tokenizer, tokens: list[int]) -> str:
    """The text of some tokens; bytes that are no UTF-8 become U+FFFD."""
    return b"".join(map(tokenizer.token_bytes, tokens)).decode("utf-8", errors="replace")


def first_token(tokenizer: Tokenizer) -> int:
    """What a text without a prompt begins after: end-of-text, else a line break, else a space, else anything."""
    if tokenizer.end_of_text is not None:
        return tokenizer.end_of_text
    known = {tokenizer.token_bytes(token): token for token in range(tokenizer.vocab_size)}
    return known.get(b"\n", known.get(b" ", 0))


class CharTokenizer:
    """One token per character of the alphabet, in the order of code points; then end-of-text, if asked for.

    `more` are characters that came later, with a new text. They are numbered after all the rest, in their own order,
    so that every number keeps its meaning.
    """

    def __init__(self, characters: str, end_of_text: bool = False, more: str = "") -> None:
        self.characters = "".join(sorted(set(characters)))
        self.end_of_text = len(self.characters) if end_of_text else None
        self.more = more
        self.alphabet = [*self.characters, *[""] * end_of_text, *more]
        self.vocab_size = len(self.alphabet)
        numbers = sorted((ord(c), token) for token, c in enumerate(self.alphabet) if c)
        self.points = np.array([point for point, _ in numbers], dtype=np.uint32)
        self.numbers = np.array([token for _, token in numbers])

    def encode(self, text: str) -> np.ndarray:
        points = np.frombuffer(text.encode("utf-32-le", errors="surrogatepass"), dtype=np.uint32)
        places = np.searchsorted(self.points, points).clip(max=len(self.points) - 1)
        known = self.points[places] == points
        if not known.all():
            strange = sorted({chr(point) for point in points[~known]})
            shown = " ".join(repr(c) for c in strange[:10]) + (" ..." if len(strange) > 10 else "")
            raise UserError(
                f"the network has never seen {shown}: its alphabet is the text it learned from; "
                f"fine-tuning with --data.extend true adds what is new in a text"
            )
        return self.numbers[places]

    def extended(self, characters: Iterable[str]) -> "CharTokenizer":
        """The same numbers, and new ones for the characters that have none."""
        new = "".join(sorted(set(characters) - set(self.alphabet)))
        return CharTokenizer(self.characters, self.end_of_text is not None, self.more + new)

    def token_bytes(self, token: int) -> bytes:
        return self.alphabet[token].encode(errors="surrogatepass")

    def to_json(self) -> dict:
        described = {"kind": "char", "characters": self.characters, "end_of_text": self.end_of_text is not None}
        return described | ({"more": self.more} if self.more else {})


class ByteTokenizer:
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


class BPETokenizer:
    """One token per frequent run of bytes (byte-pair encoding, Sennrich et al. 2016), encoded by tiktoken.

    `ranks` are the runs in the order in which they were learned; end-of-text follows them. Special tokens in
    a text stay text.
    """

    def __init__(self, ranks: list[bytes], pattern: str) -> None:
        import tiktoken

        self.ranks = ranks
        self.pattern = pattern
        self.end_of_text = len(ranks)
        self.vocab_size = len(ranks) + 1
        self.encoding = tiktoken.Encoding(
            "pellucid",
            pat_str=PATTERNS[pattern],
            mergeable_ranks={run: rank for rank, run in enumerate(ranks)},
            special_tokens={},
        )

    def encode(self, text: str) -> np.ndarray:
        return np.array(self.encoding.encode_ordinary(text), dtype=np.int64)

    def token_bytes(self, token: int) -> bytes:
        return b"" if token == self.end_of_text else self.ranks[token]

    def to_json(self) -> dict:
        ranks = [base64.b64encode(run).decode() for run in self.ranks]
        return {"kind": "bpe", "pattern": self.pattern, "ranks": ranks}


def gpt2_tokenizer() -> BPETokenizer:
    """GPT-2's own 50,257 tokens, through tiktoken (which downloads them once, checked by SHA-256)."""
    if "TIKTOKEN_CACHE_DIR" not in os.environ:  # its default is a guessable temporary folder
        found = [folder / "tiktoken" for folder in folders() if (folder / "tiktoken").is_dir()]
        os.environ["TIKTOKEN_CACHE_DIR"] = str((found or [FILES / "tiktoken"])[0])
    try:
        from tiktoken_ext.openai_public import gpt2

        table = gpt2()["mergeable_ranks"]
    except ImportError as error:
        raise UserError("data.tokenizer: gpt2 needs tiktoken: pip install tiktoken") from error
    except (OSError, ValueError) as error:
        raise UserError(
            "cannot download GPT-2's vocabulary; set TIKTOKEN_CACHE_DIR to a folder that has it, "
            "or choose --data.tokenizer byte"
        ) from error
    return BPETokenizer(sorted(table, key=table.__getitem__), "gpt2")


def choose_tokenizer(kind: str, texts: list[str]) -> Tokenizer:
    """A new tokenizer of that kind for these documents; char gets an end-of-text if there are several."""
    if kind == "char":
        return CharTokenizer("".join({c for text in texts for c in set(text)}), end_of_text=len(texts) > 1)
    return ByteTokenizer() if kind == "byte" else gpt2_tokenizer()


class TokenizerFile(Settings):
    """tokenizer.json; what a kind has no use for is left out."""

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
        ranks = [base64.b64decode(run, validate=True) for run in self.ranks]
        if len(set(ranks)) < len(ranks) or not set(ranks) >= {bytes([byte]) for byte in range(256)}:
            raise ValueError("ranks must be distinct and cover all 256 bytes")
        return BPETokenizer(ranks, self.pattern)


def read_tokenizer(text: str | bytes, where: object) -> Tokenizer:
    """The tokenizer that a tokenizer.json holds. Raises UserError for anything else, naming `where`."""
    try:
        return TokenizerFile.model_validate_json(text).tokenizer()
    except ValueError as error:  # pydantic's are of this kind too
        raise UserError(f"{where} is not a tokenizer: {str(error).splitlines()[-1]}", 1) from error

"""Tokens on disk: flat files of token numbers (shards), an index with their hashes, and the tokenizer.

    index.json  tokenizer.json  train-00000.bin  train-00001.bin ...  val-00000.bin

Such a folder is a complete corpus: it can be moved, and used for training without the text.
"""

import hashlib
import json
from bisect import bisect_right
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
from pydantic import Field, ValidationError
from tqdm import tqdm

from configs.errors import reason as why
from configs.files import Damaged, refuse_newer, small, write_whole
from configs.schema import Count, Settings
from data.progress import progress
from data.tokenizer import Tokenizer, tokenizer_in

BLOCK = 2**22  # bytes read at once
SHARD_BYTES = 2**28

Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Shard(Settings):
    """One file of tokens."""

    tokens: Annotated[int, Field(ge=1, le=SHARD_BYTES // 2)]
    sha256: Digest


class Split(Settings):
    """The training or validation split, in consecutive shards."""

    byte_count: Count
    """UTF-8 bytes of its text"""
    shards: Annotated[list[Shard], Field(min_length=1)]


class Index(Settings):
    """index.json: describes the other files, with their hashes."""

    format: Literal[1] = 1
    corpus: Digest
    """hash of the corpus, as in `Corpus.sha256`"""
    document_count: Count
    tokenizer: Digest
    dtype: Literal["uint16", "uint32"]
    splits: dict[Literal["train", "val"], Split]

    @property
    def byte_count(self) -> int:
        """UTF-8 bytes of the text, both splits together."""
        return sum(split.byte_count for split in self.splits.values())

    @property
    def sha256(self) -> str:
        """Hash of the index, and so, through the hashes in it, of every file."""
        return hashlib.sha256(json.dumps(self.model_dump(), sort_keys=True).encode()).hexdigest()


class Sealed(Settings):
    """The index as it is stored, with its own hash, so that changes to it are detected too."""

    index: Index
    sha256: Digest


class Tokens:
    """A split's tokens, concatenated over its shards and read on demand.

    A shard is memory-mapped only during a call: a permanent map keeps every page that was ever touched, so memory
    use would grow with the corpus.
    """

    def __init__(self, files: list[Path], counts: list[int], dtype: str) -> None:
        self.files = files
        self.ends = np.cumsum(counts).tolist()
        self.dtype = np.dtype(dtype).newbyteorder("<")

    def __len__(self) -> int:
        return self.ends[-1]

    def __getitem__(self, span: slice) -> np.ndarray:
        """The tokens of a slice, int64."""
        start, stop, _ = span.indices(len(self))
        return self.windows(np.array([start]), max(0, stop - start))[0]

    def windows(self, starts: np.ndarray, length: int) -> np.ndarray:
        """`length` tokens from each start on, int64, (starts, length)."""
        mapped = cache(lambda number: np.memmap(self.files[number], self.dtype, mode="r"))
        rows = np.empty((len(starts), length), np.int64)
        for row, start in zip(rows, starts.tolist(), strict=True):
            filled = 0
            while filled < length:
                number = bisect_right(self.ends, start + filled)
                first = start + filled - (self.ends[number - 1] if number else 0)
                part = mapped(number)[first : first + length - filled]
                row[filled : filled + len(part)] = part
                filled += len(part)
        return rows


class Prepared(NamedTuple):
    """A tokenized corpus, with every token checked."""

    index: Index
    tokenizer: Tokenizer
    tokens: dict[str, Tokens]
    """by split"""
    reason: str
    """why it has this tokenizer"""

    @property
    def sha256(self) -> str:
        """Fingerprint of the content, by recipe 1.

        Runs record it and compare it later, so a change to this dictionary needs a new `Text.recipe`.
        """
        index = self.index
        described = {
            "format": 1,
            "corpus": index.corpus,
            "document_count": index.document_count,
            "tokenizer": index.tokenizer,
            "dtype": index.dtype,
            "splits": {
                name: {
                    "byte_count": split.byte_count,
                    "shards": [{"tokens": shard.tokens, "sha256": shard.sha256} for shard in split.shards],
                }
                for name, split in index.splits.items()
            },
        }
        return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()

    @property
    def counts(self) -> dict[str, int]:
        """Tokens by split."""
        return {split: len(tokens) for split, tokens in self.tokens.items()}


def is_prepared(folder: Path) -> bool:
    """Whether the folder contains prepared tokens rather than text."""
    return (folder / "index.json").is_file() and any(
        (folder / n).is_file() for n in ("tokenizer.json", "train-00000.bin")
    )


def shard_file(folder: Path, split: str, number: int) -> Path:
    return folder / f"{split}-{number:05}.bin"


def write_index(folder: Path, index: Index) -> None:
    write_whole(folder / "index.json", Sealed(index=index, sha256=index.sha256).model_dump_json(indent=1))


def read_index(folder: Path) -> Index:
    """The content of index.json. Raises Damaged, or UserError if a newer version wrote it."""
    content = small(folder / "index.json")
    try:
        sealed = Sealed.model_validate_json(content)
    except (ValidationError, RecursionError) as error:
        refuse_newer(content, folder / "index.json")
        raise Damaged(folder, f"index.json: {why(error)}") from error
    if sealed.index.sha256 != sealed.sha256:
        raise Damaged(folder, "index.json has changed since it was written")
    return sealed.index


def open_shards(folder: Path, reason: str) -> Prepared:
    """Open the tokens in a folder and check every one. Raises Damaged, naming the file that is missing or wrong."""
    try:
        index = read_index(folder)
        tokenizer = tokenizer_in(folder)
        if tokenizer.sha256 != index.tokenizer:
            raise Damaged(folder, "tokenizer.json is not the tokenizer that made its tokens")
        tokens = {}
        with progress("checking tokens", sum(f.stat().st_size for f in folder.glob("*.bin"))) as bar:
            for split, described in index.splits.items():
                files = [shard_file(folder, split, number) for number in range(len(described.shards))]
                for file, shard in zip(files, described.shards, strict=True):
                    check(file, shard, np.dtype(index.dtype).newbyteorder("<"), tokenizer.vocab_size, bar)
                tokens[split] = Tokens(files, [shard.tokens for shard in described.shards], index.dtype)
    except FileNotFoundError as error:
        raise Damaged(folder, f"{Path(error.filename).name} is missing") from error
    return Prepared(index, tokenizer, tokens, reason)


def check(file: Path, shard: Shard, dtype: np.dtype, vocab_size: int, bar: tqdm) -> None:
    """Raises Damaged unless the file has the shard's size and hash, and its tokens are in the vocabulary."""
    if (size := file.stat().st_size) != shard.tokens * dtype.itemsize:
        raise Damaged(file.parent, f"{file.name} has {size:,} bytes instead of {shard.tokens * dtype.itemsize:,}")
    digest, largest = hashlib.sha256(), 0
    with file.open("rb") as content:
        while block := content.read(BLOCK):
            digest.update(block)
            largest = max(largest, int(np.frombuffer(block, dtype).max()))
            bar.update(len(block))
    if largest >= vocab_size:
        raise Damaged(file.parent, f"{file.name} contains token {largest:,}; the vocabulary size is {vocab_size:,}")
    if digest.hexdigest() != shard.sha256:
        raise Damaged(file.parent, f"{file.name} has changed since it was written")

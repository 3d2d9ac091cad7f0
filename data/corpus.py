"""A corpus is a row of documents. However long they are, only a block of them is ever in memory."""

import codecs
import gzip
import hashlib
import os
import re
import sys
import zlib
from array import array
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from tqdm import tqdm

from configs.errors import UserError
from configs.schema import DataConfig
from data.find import NAMES, Found, find_files
from data.progress import progress
from data.shards import is_prepared, read_index

BLOCK = 2**20  # bytes read at once
PIECE = 2**20  # characters encoded at once
MANY = 10  # documents; from here on whole documents are held out
SLACK, RATIO = 2**24, 100  # of unpacked bytes: so many in any case, and so many for each packed one
PLACE = re.compile(r"(?<=\S)[ \n](?=\S)")  # reads the same backwards


class File(NamedTuple):
    """What a corpus knows of one of its files."""

    name: str
    path: Path
    sizes: np.ndarray
    """UTF-8 bytes of each document; a .jsonl file has many, any other one"""
    sha256: str
    """of the documents' texts"""
    stamp: tuple[int, int]
    """when it was written last, and its size on disk"""


class Piece(NamedTuple):
    """A part of a document that can be encoded by itself."""

    text: str
    last: bool
    """whether its document ends here"""


class Corpus(NamedTuple):
    """Documents in files, or the tokens that were prepared from them."""

    files: list[File]
    field: str
    """of .jsonl files"""
    sha256: str
    """of all names and texts, wherever the files lie"""
    byte_count: int
    """UTF-8 bytes of text"""
    document_count: int
    """of those that aren't empty"""
    tokens: Path | None = None
    """the folder of a corpus that was prepared before; then there are no files"""

    def cuts(self, val_fraction: float) -> np.ndarray:
        """Bytes of every document that are learned from; the rest is held out."""
        sizes = np.concatenate([file.sizes for file in self.files])
        return split((name for file in self.files for name in document_names(file)), sizes, val_fraction)

    def read(self, split: str, cuts: np.ndarray) -> Iterator[Piece]:
        """The documents of a split ("train" or "val") in pieces, one after the other."""
        first = 0
        for file in self.files:
            cut, first = cuts[first : first + len(file.sizes)], first + len(file.sizes)
            starts, stops = (np.zeros_like(cut), cut) if split == "train" else (cut, file.sizes)
            if (starts < stops).any():
                yield from read_file(file, self.field, starts, stops)


def open_corpus(config: DataConfig) -> Corpus:
    """What `config.path` leads to; every file is read once, to be hashed and measured.

    A folder in which a corpus was prepared stands for that corpus. Raises UserError if there is nothing to read.
    """
    for folder in (Path(os.path.expanduser(path)) for path in config.path if path not in NAMES):
        if is_prepared(folder):
            if len(config.path) > 1:
                raise UserError(f"data.path: {folder} holds tokens; they can't be joined to anything, so name it alone")
            index = read_index(folder)
            return Corpus([], config.field, index.corpus, index.byte_count, index.document_count, folder)
    files = survey(find_files(config.path, config.extensions), config.field)
    byte_count = sum(int(file.sizes.sum()) for file in files)
    if not byte_count:
        raise UserError(f"data.path: {' '.join(config.path)} holds no text")
    digest = hashlib.sha256()
    for file in files:
        digest.update(hashlib.sha256(file.name.encode(errors="surrogatepass")).digest() + bytes.fromhex(file.sha256))
    document_count = sum(np.count_nonzero(file.sizes) for file in files)
    return Corpus(files, config.field, digest.hexdigest(), byte_count, int(document_count))


def survey(found: list[Found], field: str) -> list[File]:
    """Hash and measure the files; hidden ones and those that aren't text are skipped and counted.

    Raises UserError for a file that was named alone and isn't text.
    """
    files = []
    with progress("reading", sum(file.path.stat().st_size for file in found)) as bar:
        for file in found:
            try:
                if not file.hidden:
                    files.append(measure(file, field, bar))
            except ValueError as error:
                if file.alone:
                    way_out = f"convert it with: iconv -f LATIN1 -t UTF-8 {file.path} > new.txt"
                    raise UserError(f"data.path: {file.path} is not UTF-8 text ({error}); {way_out}") from error
    if skipped := len(found) - len(files):
        print(f"skipped {skipped:,} of {len(found):,} files: hidden or not UTF-8 text", file=sys.stderr)
    return files


def measure(found: Found, field: str, bar: tqdm) -> File:
    """One file, read once. Raises ValueError if it isn't text."""
    sizes, digest = array("q"), hashlib.sha256()
    with found.path.open("rb") as raw:
        begin, stamp = bar.n, stamp_of(raw)
        for document in documents(raw, found.path, field):
            size = 0
            for block in document:
                content = block.encode()
                digest.update(content)
                size += len(content)
                bar.update(begin + raw.tell() - bar.n)
            digest.update(size.to_bytes(8, "little"))
            sizes.append(size)
    return File(found.name, found.path, np.array(sizes, np.int64), digest.hexdigest(), stamp)


def stamp_of(raw: BinaryIO) -> tuple[int, int]:
    """What changes with a file."""
    status = os.fstat(raw.fileno())
    return status.st_mtime_ns, status.st_size


def documents(raw: BinaryIO, path: Path, field: str) -> Iterator[Iterable[str]]:
    """The documents of an open file, each in blocks that are to be read before the next is asked for."""
    if is_jsonl(path):
        from data.jsonl import LONGEST, texts

        lines = unpacked(raw, path, lambda file: file.readline(LONGEST))
        yield from ([text] for text in texts(lines, field, path))
    else:
        yield decoded(unpacked(raw, path, lambda file: file.read(BLOCK)))


def is_jsonl(path: Path) -> bool:
    """Whether each line of the file is a document."""
    return path.name.removesuffix(".gz").endswith(".jsonl")


def unpacked(raw: BinaryIO, path: Path, read: Callable[[BinaryIO], bytes]) -> Iterator[bytes]:
    """What `read` takes from the file until it is at its end, unpacked if it is a .gz.

    Raises UserError if it is damaged, and for a .gz that unpacks to far more than any text would: it fills the disk.
    """
    packed, count = path.suffix == ".gz", 0
    file = gzip.GzipFile(fileobj=raw) if packed else raw
    try:
        for block in iter(partial(read, file), b""):
            count += len(block)
            if packed and count > SLACK + RATIO * raw.tell():
                raise UserError(f"data.path: {path} unpacks to more than {RATIO} times its size, as no text does")
            yield block
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"data.path: {path} is damaged: {error}") from error


def decoded(blocks: Iterable[bytes]) -> Iterator[str]:
    """Blocks of UTF-8 as text. Raises ValueError for anything else, and for NUL, which no text contains."""
    for text in codecs.iterdecode(blocks, "utf-8"):
        if "\0" in text:
            raise ValueError("it contains NUL")
        yield text


def read_file(file: File, field: str, starts: np.ndarray, stops: np.ndarray) -> Iterator[Piece]:
    """Every document of the file from its start to its stop (in bytes), in pieces.

    Raises UserError if the file is no longer what was measured.
    """
    with file.path.open("rb") as raw:
        spans = zip(starts.tolist(), stops.tolist(), file.sizes.tolist(), strict=True)
        for (start, stop, size), document in zip(spans, documents(raw, file.path, field), strict=False):
            if start < stop:
                yield from pieces(document if stop - start == size else part(document, start, stop))
        if stamp_of(raw) != file.stamp:
            raise UserError(f"data.path: {file.path} has changed while it was read; start again")


def part(blocks: Iterable[str], start: int, stop: int) -> Iterator[str]:
    """A text from one of its bytes to another; both move back to where a character begins."""
    at = 0
    for block in blocks:
        content = block.encode()
        first, end = (len(content[: max(0, place - at)].decode(errors="ignore")) for place in (start, stop))
        yield block[first:end]
        at += len(content)


def pieces(blocks: Iterable[str]) -> Iterator[Piece]:
    """A document in pieces of about a million characters whose tokens are those of the whole.

    They are cut before a single space or line break between two characters that are neither: there every split
    pattern has a border, so that no token can span it. A million characters without such a place are cut anyway.
    """
    rest = ""
    for block in blocks:
        rest += block
        while len(rest) > PIECE:
            place = PLACE.search(rest[::-1])
            cut = len(rest) - place.end() if place else PIECE
            yield Piece(rest[:cut], last=False)
            rest = rest[cut:]
    if rest:
        yield Piece(rest, last=True)


def document_names(file: File) -> Iterator[str]:
    """The file's name, with a number behind it for each document of a .jsonl file."""
    if not is_jsonl(file.path):
        return iter([file.name])
    return (f"{file.name}:{number}" for number in range(1, len(file.sizes) + 1))


def split(names: Iterable[str], sizes: np.ndarray, val_fraction: float) -> np.ndarray:
    """Bytes of every document that are learned from; the rest is held out.

    Of a few documents that is the end of each; of many, some are held out whole, chosen by the hash of their names.
    """
    if np.count_nonzero(sizes) < MANY:
        return (sizes * (1 - val_fraction)).astype(np.int64)
    hashes = np.fromiter(map(name_hash, names), np.uint64, len(sizes))
    cuts, held, most = sizes.copy(), 0, val_fraction * int(sizes.sum())
    for number in np.argsort(hashes, kind="stable").tolist():
        if held + int(sizes[number]) <= most:
            held += int(sizes[number])
            cuts[number] = 0
    return cuts


def name_hash(name: str) -> int:
    """A number of 64 bits that depends on the name alone."""
    return int.from_bytes(hashlib.sha256(name.encode(errors="surrogatepass")).digest()[:8], "big")

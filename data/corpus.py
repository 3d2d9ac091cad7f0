"""Read a text corpus, document by document and in blocks, so that it need not fit in memory."""

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
PIECE = 2**20  # characters that are encoded together
MANY = 10  # documents; with at least this many, entire documents are held out
SLACK, RATIO = 2**24, 100  # a .gz may expand to SLACK bytes, plus RATIO bytes per compressed byte
BOUNDARY = re.compile(r"(?<=\S)[ \n](?=\S)")  # symmetric, because it is searched in reversed text


class File(NamedTuple):
    """One file of a corpus, and what was measured when it was first read."""

    name: str
    path: Path
    sizes: np.ndarray
    """UTF-8 bytes of each document; only a .jsonl file has more than one"""
    sha256: str
    """of the documents' texts"""
    stamp: tuple[int, int]
    """modification time and size on disk"""


class Piece(NamedTuple):
    """A part of a document that can be encoded on its own."""

    text: str
    last: bool
    """whether it ends its document"""


class Corpus(NamedTuple):
    """Documents in files, or a folder of tokens already prepared from them."""

    files: list[File]
    field: str
    """the text field of .jsonl files"""
    sha256: str
    """of all names and texts, wherever the files are"""
    byte_count: int
    """UTF-8 bytes of text"""
    document_count: int
    """not counting empty ones"""
    tokens: Path | None = None
    """folder of prepared tokens; `files` is then empty"""

    def cuts(self, val_fraction: float) -> np.ndarray:
        """Training bytes of each document; the rest is held out for validation."""
        sizes = np.concatenate([file.sizes for file in self.files])
        return split((name for file in self.files for name in document_names(file)), sizes, val_fraction)

    def read(self, split: str, cuts: np.ndarray) -> Iterator[Piece]:
        """The documents of a split ("train" or "val"), one after another, in pieces."""
        first = 0
        for file in self.files:
            cut, first = cuts[first : first + len(file.sizes)], first + len(file.sizes)
            starts, stops = (np.zeros_like(cut), cut) if split == "train" else (cut, file.sizes)
            if (starts < stops).any():
                yield from read_file(file, self.field, starts, stops)


def open_corpus(config: DataConfig) -> Corpus:
    """The corpus at `config.path`; reads every file once to hash and measure it.

    A folder of prepared tokens stands for the corpus they came from. Raises UserError if there is no text.
    """
    for folder in (Path(os.path.expanduser(path)) for path in config.path if path not in NAMES):
        if is_prepared(folder):
            if len(config.path) > 1:
                raise UserError(f"data.path: {folder} contains prepared tokens and cannot be combined with other paths")
            index = read_index(folder)
            return Corpus([], config.field, index.corpus, index.byte_count, index.document_count, folder)
    files = measure_all(find_files(config.path, config.extensions), config.field)
    byte_count = sum(int(file.sizes.sum()) for file in files)
    if not byte_count:
        raise UserError(f"data.path: {' '.join(config.path)} contains no text")
    digest = hashlib.sha256()
    for file in files:
        digest.update(hashlib.sha256(file.name.encode(errors="surrogatepass")).digest() + bytes.fromhex(file.sha256))
    document_count = sum(np.count_nonzero(file.sizes) for file in files)
    return Corpus(files, config.field, digest.hexdigest(), byte_count, int(document_count))


def measure_all(found: list[Found], field: str) -> list[File]:
    """Hash and measure the files; skips hidden and non-text files, and prints how many.

    Raises UserError for a non-text file that the user named.
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
    """Read one file and measure it. Raises ValueError if it is not text."""
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
    """Modification time (ns) and size: if neither differs, the file has not changed."""
    status = os.fstat(raw.fileno())
    return status.st_mtime_ns, status.st_size


def documents(raw: BinaryIO, path: Path, field: str) -> Iterator[Iterable[str]]:
    """The documents of an open file, each in blocks; read all of them before taking the next document."""
    if is_jsonl(path):
        from data.jsonl import LONGEST, texts

        lines = decompressed(raw, path, lambda file: file.readline(LONGEST))
        yield from ([text] for text in texts(lines, field, path))
    else:
        yield decoded(decompressed(raw, path, lambda file: file.read(BLOCK)))


def is_jsonl(path: Path) -> bool:
    """Whether every line of the file is a document of its own."""
    return path.name.removesuffix(".gz").endswith(".jsonl")


def decompressed(raw: BinaryIO, path: Path, read: Callable[[BinaryIO], bytes]) -> Iterator[bytes]:
    """Call `read` on the file, decompressed if it is a .gz, until its end.

    Raises UserError for a damaged .gz, and for one that expands far more than text would: it could fill the disk.
    """
    packed, count = path.suffix == ".gz", 0
    file = gzip.GzipFile(fileobj=raw) if packed else raw
    try:
        for block in iter(partial(read, file), b""):
            count += len(block)
            if packed and count > SLACK + RATIO * raw.tell():
                raise UserError(
                    f"data.path: {path} expands to over {RATIO} times its size; refused as implausible for text"
                )
            yield block
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"data.path: {path} is damaged: {error}") from error


def decoded(blocks: Iterable[bytes]) -> Iterator[str]:
    """Decode blocks of UTF-8. Raises ValueError if they are not UTF-8, and for NUL, which text never contains."""
    for text in codecs.iterdecode(blocks, "utf-8"):
        if "\0" in text:
            raise ValueError("it contains a NUL byte")
        yield text


def read_file(file: File, field: str, starts: np.ndarray, stops: np.ndarray) -> Iterator[Piece]:
    """Each document of the file between its start and its stop (in bytes), in pieces.

    Raises UserError if the file has changed since it was measured.
    """
    with file.path.open("rb") as raw:
        spans = zip(starts.tolist(), stops.tolist(), file.sizes.tolist(), strict=True)
        for (start, stop, size), document in zip(spans, documents(raw, file.path, field), strict=False):
            if start < stop:
                yield from pieces(document if stop - start == size else cut_text(document, start, stop))
        if stamp_of(raw) != file.stamp:
            raise UserError(f"data.path: {file.path} changed while being read; run again")


def cut_text(blocks: Iterable[str], start: int, stop: int) -> Iterator[str]:
    """The text between two byte offsets, each moved back to the start of a character."""
    read = 0
    for block in blocks:
        content = block.encode()
        first, end = (len(content[: max(0, offset - read)].decode(errors="ignore")) for offset in (start, stop))
        yield block[first:end]
        read += len(content)


def pieces(blocks: Iterable[str]) -> Iterator[Piece]:
    """Cut a document into pieces of about a million characters, without changing its tokens.

    Cuts are made before a single space or line break between two other characters: every split pattern has a
    boundary there, so no token can span it. A million characters without such a boundary are cut anyway.
    """
    rest = ""
    for block in blocks:
        rest += block
        while len(rest) > PIECE:
            boundary = BOUNDARY.search(rest[::-1])
            cut = len(rest) - boundary.end() if boundary else PIECE
            yield Piece(rest[:cut], last=False)
            rest = rest[cut:]
    if rest:
        yield Piece(rest, last=True)


def document_names(file: File) -> Iterator[str]:
    """A name for each document: the file's own, or `a.jsonl:1`, `a.jsonl:2`, ... for those of a .jsonl file."""
    if not is_jsonl(file.path):
        return iter([file.name])
    return (f"{file.name}:{number}" for number in range(1, len(file.sizes) + 1))


def split(names: Iterable[str], sizes: np.ndarray, val_fraction: float) -> np.ndarray:
    """Training bytes of each document; the rest is held out for validation.

    With fewer than `MANY` documents, the end of each is held out; otherwise entire documents are, selected by
    the hash of their names.
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
    """A 64-bit number that depends only on the name."""
    return int.from_bytes(hashlib.sha256(name.encode(errors="surrogatepass")).digest()[:8], "big")

"""Tokenize a corpus to disk, on all cores and in bounded memory, without ever leaving a partial result."""

import os
import shutil
import signal
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from tqdm import tqdm

from configs.errors import UserError
from configs.files import lock, open_lock, whole_folder, write_whole
from data.corpus import PIECE, Corpus, Piece
from data.fetch import sha256
from data.progress import progress
from data.shards import SHARD_BYTES, Index, Shard, Split, shard_file, write_index
from data.tokenizer import Tokenizer
from data.vocabulary import Choice, make_tokenizer


def write(folder: Path, corpus: Corpus, val_fraction: float, wanted: Tokenizer | Choice) -> None:
    """Tokenize the corpus into the folder: completely, or not at all if anything goes wrong."""
    cuts = corpus.cuts(val_fraction)
    tokenizer = wanted if isinstance(wanted, Tokenizer) else make_tokenizer(wanted, corpus, cuts)
    with whole_folder(folder) as beside:  # replaces an existing folder, which is damaged
        dtype = "uint16" if tokenizer.vocab_size <= 2**16 else "uint32"
        with progress("tokenizing", corpus.byte_count) as bar:
            made = {
                split: write_split(beside, split, encoded(corpus.read(split, cuts), tokenizer, dtype), bar)
                for split in ("train", "val")
            }
        splits = {split: described for split, described in made.items() if described}
        described = {"corpus": corpus.sha256, "document_count": corpus.document_count, "tokenizer": tokenizer.sha256}
        write_index(beside, Index(**described, dtype=dtype, splits=splits))
        write_whole(beside / "tokenizer.json", tokenizer.file)


def write_split(folder: Path, split: str, parts: Iterable[tuple[np.ndarray, int]], bar: tqdm) -> Split | None:
    """Write parts (tokens, and their number of UTF-8 bytes) into shards; None if there are no tokens."""
    count = byte_count = 0
    for tokens, size in parts:
        most = SHARD_BYTES // tokens.itemsize
        while len(tokens):
            number, used = divmod(count, most)
            with shard_file(folder, split, number).open("ab") as file:
                file.write(tokens[: most - used])
            count += len(tokens[: most - used])
            tokens = tokens[most - used :]
        byte_count += size
        bar.update(size)
    files = sorted(folder.glob(f"{split}-*.bin"))
    shards = [Shard(tokens=file.stat().st_size // tokens.itemsize, sha256=sha256(file)) for file in files]
    return Split(byte_count=byte_count, shards=shards) if shards else None


def encoded(pieces: Iterable[Piece], tokenizer: Tokenizer, dtype: str) -> Iterator[tuple[np.ndarray, int]]:
    """The tokens of the pieces, in order, each array with its number of UTF-8 bytes; uses all cores."""
    cores = os.cpu_count() or 1
    pool = ThreadPoolExecutor(cores)  # threads suffice: tiktoken and numpy release the GIL
    waiting: deque[Future[tuple[np.ndarray, int]]] = deque()
    try:
        for batch in batches(pieces):
            waiting.append(pool.submit(encode, batch, tokenizer, dtype))
            if len(waiting) > 2 * cores:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def batches(pieces: Iterable[Piece]) -> Iterator[list[Piece]]:
    """The pieces in lists of at least `PIECE` characters, worth a thread's overhead."""
    batch, size = [], 0
    for piece in pieces:
        batch.append(piece)
        size += len(piece.text)
        if size >= PIECE:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def encode(batch: list[Piece], tokenizer: Tokenizer, dtype: str) -> tuple[np.ndarray, int]:
    """The pieces' tokens and number of UTF-8 bytes; end-of-text follows each document if the tokenizer has it."""
    end = np.array([] if tokenizer.end_of_text is None else [tokenizer.end_of_text], dtype)
    parts = [part for p in batch for part in (tokenizer.encode(p.text).astype(dtype), end[: int(p.last)])]
    return np.concatenate(parts), sum(len(piece.text.encode()) for piece in batch)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Lock the folder, waiting for other processes to finish, and delete partial folders that killed ones left."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot create folder {folder}: {error.strerror}", 1) from error
    with open_lock(folder / ".lock") as file:
        lock(file, held=lambda: print("waiting for another process that is already preparing tokens", file=sys.stderr))
        for dead in folder.glob("*.partial"):
            shutil.rmtree(dead, ignore_errors=True)
        yield


@contextmanager
def interruptible() -> Iterator[None]:
    """Inside, Ctrl-C raises KeyboardInterrupt, whatever it does outside, so that files are cleaned up."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield
        return
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)

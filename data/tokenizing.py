"""Text becomes tokens on disk: all cores work, memory is bounded, and what is written is whole or not there."""

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
    """Make the folder: all of it, or nothing if anything goes wrong."""
    cuts = corpus.cuts(val_fraction)
    tokenizer = wanted if isinstance(wanted, Tokenizer) else make_tokenizer(wanted, corpus, cuts)
    with whole_folder(folder) as beside:  # an older one is damaged
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
    """Write tokens, which come with the bytes they stand for, into shards; None if there are none."""
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
    """The pieces as tokens, in order, with the number of bytes they stand for; all cores work on a few at a time."""
    cores = os.cpu_count() or 1
    pool = ThreadPoolExecutor(cores)  # threads suffice: tiktoken and numpy let others run meanwhile
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
    """The pieces in lists that are worth a thread's while."""
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
    """The tokens of some pieces, end-of-text behind each document if the tokenizer has it, and their bytes."""
    end = np.array([] if tokenizer.end_of_text is None else [tokenizer.end_of_text], dtype)
    parts = [part for p in batch for part in (tokenizer.encode(p.text).astype(dtype), end[: int(p.last)])]
    return np.concatenate(parts), sum(len(piece.text.encode()) for piece in batch)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Wait until nobody else prepares anything in this folder; what others left unfinished is cleared away."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {folder}: {error.strerror}", 1) from error
    with open_lock(folder / ".lock") as file:
        lock(file, held=lambda: print("waiting for another process that prepares tokens", file=sys.stderr))
        for dead in folder.glob("*.partial"):
            shutil.rmtree(dead, ignore_errors=True)
        yield


@contextmanager
def interruptible() -> Iterator[None]:
    """Inside, Ctrl-C is an exception, whatever it is outside, so that there is time to clear up."""
    if threading.current_thread() is not threading.main_thread():  # where Python forbids handlers
        yield
        return
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)

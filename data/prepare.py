"""Text becomes tokens on disk, once: found again by what went in, written whole or not at all."""

import hashlib
import json
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
from typing import TextIO

import numpy as np
from tqdm import tqdm

from configs.errors import UserError
from configs.schema import DataConfig
from data import fetch
from data.corpus import PIECE, Corpus, Piece
from data.progress import progress
from data.shards import Damaged, Index, Prepared, Shard, Split, open_shards, shard_file, write_index
from data.tokenizer import CharTokenizer, Tokenizer
from data.vocabulary import alphabet, chosen, make_tokenizer

VERSION = 1  # of all that turns text into tokens; with another one, what was prepared before is not found
SHARD_BYTES = 2**28


def prepare(corpus: Corpus, config: DataConfig, tokenizer: Tokenizer | None = None) -> Prepared:
    """The corpus as tokens of `tokenizer`, or of one that the settings ask for; made if they aren't there.

    They lie in data/files/tokens, in a folder named by a hash of all that they depend on, so that what is found
    there can't be out of date. Raises UserError.
    """
    if corpus.tokens:
        return as_it_is(corpus.tokens, config, tokenizer)
    if config.extend and isinstance(tokenizer, CharTokenizer):
        tokenizer = tokenizer.extended(alphabet(corpus))
    choice = chosen(config, corpus)
    asked = tokenizer.sha256 if tokenizer else [choice.kind, choice.vocab_size]
    ingredients = [VERSION, SHARD_BYTES, corpus.sha256, config.val_fraction, asked]
    folder = fetch.FILES / "tokens" / hashlib.sha256(json.dumps(ingredients).encode()).hexdigest()[:32]
    reason = "it came with the network" if tokenizer else choice.reason
    if found := whole(folder, reason):
        return found
    with interruptible(), alone_in(folder.parent):
        found = whole(folder, reason)  # another process may have been quicker
        if found is None:
            cuts = corpus.cuts(config.val_fraction)
            texts = (piece.text for piece in corpus.read("train", cuts))  # what is held out teaches nothing
            write(folder, corpus, cuts, tokenizer or make_tokenizer(choice, corpus, texts, int(cuts.sum())))
    return found or open_shards(folder, reason)


def as_it_is(folder: Path, config: DataConfig, tokenizer: Tokenizer | None) -> Prepared:
    """A corpus that was prepared before. Raises UserError if it has another tokenizer than is needed or asked for."""
    found = open_shards(folder, "it came with the tokens")
    if tokenizer and tokenizer.sha256 != found.tokenizer.sha256:
        raise UserError(f"data.path: {folder} was prepared with another tokenizer than the network has; give the text")
    kind, asked = found.tokenizer.to_json()["kind"], config.tokenizer.replace("gpt2", "bpe")
    if not tokenizer and "tokenizer" in config.model_fields_set and asked not in ("auto", kind):
        raise UserError(f"data.tokenizer={config.tokenizer}, but {folder} was prepared with {kind}; say auto")
    return found


def whole(folder: Path, reason: str) -> Prepared | None:
    """The tokens in the folder; None, with a warning, if they are damaged, and without one if there are none."""
    try:
        return open_shards(folder, reason) if folder.exists() else None
    except Damaged as error:
        print(f"warning: {error}; preparing it again", file=sys.stderr)
        return None


def write(folder: Path, corpus: Corpus, cuts: np.ndarray, tokenizer: Tokenizer) -> None:
    """Make the folder: all of it, or nothing if anything goes wrong. Raises UserError if the text changes meanwhile."""
    beside = folder.with_name(f"{folder.name}.partial")
    beside.mkdir()
    try:
        dtype = "uint16" if tokenizer.vocab_size <= 2**16 else "uint32"
        with progress("tokenizing", corpus.byte_count) as bar:
            made = {
                split: write_split(beside, split, encoded(corpus.read(split, cuts), tokenizer, dtype), bar)
                for split in ("train", "val")
            }
        splits = {split: described for split, described in made.items() if described}
        if sum(split.byte_count for split in splits.values()) != corpus.byte_count:
            raise UserError("the corpus has changed while it was read; start again")
        described = {"corpus": corpus.sha256, "document_count": corpus.document_count, "tokenizer": tokenizer.sha256}
        write_index(beside, Index(**described, dtype=dtype, splits=splits))
        (beside / "tokenizer.json").write_text(tokenizer.file)
        if folder.exists():  # it is damaged
            shutil.rmtree(folder)
        beside.rename(folder)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise


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
    shards = [Shard(tokens=file.stat().st_size // tokens.itemsize, sha256=fetch.sha256(file)) for file in files]
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
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a") as file:
        lock(file)
        for dead in folder.glob("*.partial"):
            shutil.rmtree(dead, ignore_errors=True)
        yield


def lock(file: TextIO) -> None:
    """Lock the file until it is closed; wait as long as another process has it locked."""
    if os.name == "nt":
        import msvcrt

        while True:
            try:
                return msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
            except OSError:  # after ten seconds
                continue
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("waiting for another process, which prepares tokens too", file=sys.stderr)
        fcntl.flock(file, fcntl.LOCK_EX)


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

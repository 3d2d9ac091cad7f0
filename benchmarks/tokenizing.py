"""Tokenizing speed: python -m benchmarks.tokenizing [--megabytes 10] [--repeats 5].

Measures MB/s of all four tokenizers in `prepare` (read, encode on all cores, hash, write, verify), against plain
tiktoken and Hugging Face's tokenizers on the same text in memory; and the CPU seconds of learning a vocabulary, against
tokenizers and rustbpe. Everything that is compared alternates in one process; the text is Python's own source code.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import data.prepare
from benchmarks.figures import about
from configs.schema import DataConfig
from data.bpe import PATTERNS, BPETokenizer, gpt2_tokenizer, train_bpe
from data.corpus import PIECE, open_corpus
from data.find import python_stdlib
from data.tokenizer import ByteTokenizer, CharTokenizer, Tokenizer

RESULT = Path(__file__).resolve().parents[1] / "benchmarks" / "results" / "tokenizing.json"
VOCABULARY = 4096
CORES = os.cpu_count() or 1

Call = Callable[[], Any]


def source(size: int) -> str:
    """`size` characters of Python's own source code, repeated if it is too short."""
    text = "\n".join(file.path.read_text("utf-8") for file in python_stdlib())
    return (text * (size // len(text) + 1))[:size]


def in_pieces(text: str) -> list[str]:
    """The text in pieces of the size that `prepare` encodes in one call."""
    return [text[at : at + PIECE] for at in range(0, len(text), PIECE)]


def through_prepare(file: Path, tokenizer: Tokenizer) -> None:
    """Turn a text file into prepared tokens, as training does."""
    config = DataConfig(path=str(file), val_fraction=0)
    with tempfile.TemporaryDirectory() as folder:
        data.prepare.TOKENS = Path(folder)
        data.prepare.prepare(open_corpus(config), config, tokenizer)


def hugging_face(texts: list[str]) -> Any:
    """A byte-level BPE tokenizer of the package tokenizers, with `VOCABULARY` tokens learned from the texts."""
    from tokenizers import Tokenizer as Theirs
    from tokenizers import decoders, models, pre_tokenizers, trainers

    theirs = Theirs(models.BPE())
    theirs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    theirs.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY - 1, initial_alphabet=alphabet, show_progress=False)
    theirs.train_from_iterator(texts, trainer)
    return theirs


def rust_bpe(texts: list[str]) -> Any:
    """rustbpe's tokenizer, trained on the texts."""
    import rustbpe

    theirs = rustbpe.Tokenizer()
    theirs.train_from_iterator(iter(texts), VOCABULARY - 1, pattern=PATTERNS["gpt2"])
    return theirs


def alternating(calls: dict[str, Call], repeats: int, clock: Callable[[], float]) -> dict[str, list[float]]:
    """Seconds of every repetition of every call; the calls take turns."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            begin = clock()
            call()
            seconds[name].append(clock() - begin)
    return seconds


def encoding(text: str, repeats: int) -> list[dict[str, Any]]:
    """MB/s from text to tokens."""
    pieces, size = in_pieces(text), len(text.encode())
    ours: BPETokenizer = train_bpe(pieces, VOCABULARY, size)
    theirs = hugging_face(pieces)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "text.py"
        file.write_bytes(text.encode())
        wanted = {"char": CharTokenizer(text), "byte": ByteTokenizer(), "bpe": ours, "gpt2": gpt2_tokenizer()}
        calls: dict[str, Call] = {f"{n}, prepare": partial(through_prepare, file, t) for n, t in wanted.items()}
        calls["bpe, tiktoken, one core"] = lambda: [ours.encoding.encode_ordinary(piece) for piece in pieces]
        calls["bpe, tiktoken, all cores"] = lambda: ours.encoding.encode_ordinary_batch(pieces, num_threads=CORES)
        calls["bpe, tokenizers, all cores"] = lambda: theirs.encode_batch_fast(pieces)
        seconds = alternating(calls, repeats, time.perf_counter)
    return [{"what": n, "MB/s": size / 1e6 / statistics.median(s), "seconds": s} for n, s in seconds.items()]


def learning(text: str, repeats: int) -> list[dict[str, Any]]:
    """CPU seconds from text to vocabulary."""
    pieces, size = in_pieces(text), len(text.encode())
    calls: dict[str, Call] = {
        "ours": lambda: train_bpe(pieces, VOCABULARY, size),
        "rustbpe": lambda: rust_bpe(pieces),
        "tokenizers": lambda: hugging_face(pieces),
    }
    seconds = alternating(calls, repeats, time.process_time)
    return [{"what": f"learning, {n}", "cpu_seconds": statistics.median(s), "each": s} for n, s in seconds.items()]


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--megabytes", type=float, default=10, help="size of the text (default: 10)")
    parser.add_argument("--repeats", type=int, default=5, help="repetitions (default: 5)")
    asked = parser.parse_args()
    text = source(int(asked.megabytes * 1e6))
    rows = encoding(text, asked.repeats) + learning(text, asked.repeats)
    result = {"figure": "tokenizing", "bytes": len(text.encode()), "vocabulary": VOCABULARY, "rows": rows}
    RESULT.write_text(json.dumps(result | {"machine": about()}, indent=1) + "\n")
    for row in rows:
        print(*(f"{v:10.2f}" if isinstance(v, float) else f"{v:30}" for v in row.values() if not isinstance(v, list)))


if __name__ == "__main__":
    main()

"""Text as a stream of tokens: a file, a folder, a glob, or a corpus with a name."""

import glob
import hashlib
import itertools
import math
import os
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from configs.errors import UserError
from configs.schema import DataConfig
from data.dataset import IGNORED, Batch
from data.fetch import Source, fetch
from data.seeds import seed_for
from data.tokenizer import CharTokenizer, Tokenizer, choose_tokenizer

MANY = 10  # documents; from here on whole documents are held out
SHAKESPEARE = Source(
    "tinyshakespeare.txt",
    "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
    "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    1_115_394,
)
NOT_STDLIB = {
    "site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "encodings", "pydoc_data",
}  # fmt: skip


class Document(NamedTuple):
    """A text with a name that stays the same wherever its folder lies."""

    name: str
    text: str


class Text:
    """Tokens by split; every batch is a pure function of the seed and its number.

    A batch is windows of `context_length` tokens, and as targets the same windows one token later.
    """

    def __init__(
        self, splits: dict[str, list[Document]], tokenizer: Tokenizer, context_length: int, seed: int = 0
    ) -> None:
        self.tokenizer = tokenizer
        self.positions = context_length  # targets per example
        self.seed = seed
        self.sha256 = fingerprint(splits)
        kind = np.uint16 if tokenizer.vocab_size <= 2**16 else np.uint32
        self.tokens = {
            split: join(documents, tokenizer).astype(kind) for split, documents in splits.items() if documents
        }
        self.require_windows()

    def require_windows(self) -> None:
        """Raises UserError if a split is too short for one window."""
        need = self.positions + 1
        for split, tokens in self.tokens.items():
            if len(tokens) < need:
                raise UserError(
                    f"the corpus is too small: its {split} split has {len(tokens)} tokens and one window needs "
                    f"{need}; use a longer text, a smaller model.context_length, or data.val_fraction = 0"
                )

    def count(self, split: str) -> int:
        """Windows that fit into the split side by side; 0 if there is no such split."""
        return math.ceil((len(self.tokens[split]) - 1) / self.positions) if split in self.tokens else 0

    def batch(self, split: str, number: int, size: int) -> Batch:
        """Windows that start anywhere in the split, drawn from the seed and the number."""
        tokens = self.tokens[split]
        generator = torch.Generator().manual_seed(seed_for(self.seed, split, number))
        starts = torch.randint(len(tokens) - self.positions, (size,), generator=generator)
        return windows(tokens, starts.numpy(), self.positions)

    def in_order(self, split: str, size: int) -> Iterator[Batch]:
        """The whole split once, window beside window; what is missing at the end are ignored targets."""
        tokens = self.tokens[split]
        T, predicted = self.positions, len(tokens) - 1
        for first in range(0, predicted, size * T):
            chunk = tokens[first : first + size * T + 1].astype(np.int64)
            x, y = np.zeros(size * T, np.int64), np.full(size * T, IGNORED)
            x[: len(chunk) - 1], y[: len(chunk) - 1] = chunk[:-1], chunk[1:]
            yield torch.from_numpy(x.reshape(size, T)), torch.from_numpy(y.reshape(size, T))

    def byte_count(self, split: str) -> int:
        """UTF-8 bytes of all that the split asks a network to predict: everything but its first token."""
        lengths = np.array([len(self.tokenizer.token_bytes(t)) for t in range(self.tokenizer.vocab_size)])
        return int(lengths[self.tokens[split][1:]].sum())


def windows(tokens: np.ndarray, starts: np.ndarray, length: int) -> Batch:
    """The tokens from each start on, and the ones that follow each of them."""
    spans = tokens[starts[:, None] + np.arange(length + 1)].astype(np.int64)
    return torch.from_numpy(spans[:, :-1]), torch.from_numpy(spans[:, 1:])


def join(documents: list[Document], tokenizer: Tokenizer) -> np.ndarray:
    """All tokens in a row, each document closed by end-of-text if the tokenizer has it."""
    end = [] if tokenizer.end_of_text is None else [tokenizer.end_of_text]
    return np.concatenate([part for d in documents for part in (tokenizer.encode(d.text), np.array(end, int))])


def fingerprint(splits: dict[str, list[Document]]) -> str:
    """SHA-256 over every document's name and text."""
    digest = hashlib.sha256()
    for name, text in sorted(document for documents in splits.values() for document in documents):
        for part in (name, text):
            data = part.encode("utf-8", errors="surrogatepass")
            digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


def open_text(config: DataConfig, context_length: int, seed: int, tokenizer: Tokenizer | None = None) -> Text:
    """The corpus that `config.path` names, split and tokenized, by `tokenizer` if one is given.

    Raises UserError if there is nothing to read or too little.
    """
    documents = [d for path in config.path for d in read_documents(path) if d.text]
    if not documents:
        raise UserError(f"data.path: {' '.join(config.path)} holds no text")
    tokenizer = tokenizer or choose_tokenizer(config.tokenizer, [d.text for d in documents])
    if config.extend and isinstance(tokenizer, CharTokenizer):
        tokenizer = tokenizer.extended({c for d in documents for c in set(d.text)})
    return Text(split(documents, config.val_fraction), tokenizer, context_length, seed)


def split(documents: list[Document], val_fraction: float) -> dict[str, list[Document]]:
    """Hold out the end of the text or, where there are many documents, some of them, chosen by name alone."""
    if val_fraction == 0:
        return {"train": documents}
    total = sum(len(d.text) for d in documents)
    if len(documents) < MANY:
        cuts = [int(len(d.text) * (1 - val_fraction)) for d in documents]
        return {
            "train": [Document(d.name, d.text[:cut]) for d, cut in zip(documents, cuts, strict=True)],
            "val": [Document(d.name, d.text[cut:]) for d, cut in zip(documents, cuts, strict=True)],
        }
    held, size = set(), 0
    for d in sorted(documents, key=lambda d: hashlib.sha256(d.name.encode("utf-8", "replace")).digest()):
        if size + len(d.text) <= val_fraction * total:
            held.add(d.name)
            size += len(d.text)
    return {
        "train": [d for d in documents if d.name not in held],
        "val": [d for d in documents if d.name in held],
    }


def read_documents(path: str) -> list[Document]:
    """A corpus with a name, or the texts of a file, a folder or a glob. Raises UserError if there is none."""
    match path:
        case "python-stdlib":
            return python_stdlib()
        case "shakespeare":
            return [Document("tinyshakespeare.txt", fetch(SHAKESPEARE).read_bytes().decode())]
        case "mnist" | "mnist-5k":
            raise UserError(f"data.path: {path} holds digits, and a GPT reads text")
    place = Path(os.path.expanduser(path))
    if place.is_dir():
        return read_files(place, sorted(p for p in place.rglob("*") if p.is_file()))
    if place.exists():
        try:
            return [Document(place.name, place.read_bytes().decode())]
        except UnicodeDecodeError as error:
            raise UserError(f"data.path: {place} is not UTF-8 text: {error}") from error
    if found := sorted(Path(p) for p in glob.glob(str(place), recursive=True) if Path(p).is_file()):
        fixed = itertools.takewhile(lambda part: not glob.has_magic(part), place.parts)
        return read_files(Path(*fixed), found)
    raise UserError(f"data.path: there is no file, folder or corpus {path!r}")


def read_files(root: Path, files: list[Path]) -> list[Document]:
    """The files that are UTF-8; the others, and hidden ones, are skipped and counted."""
    documents, skipped = [], 0
    for file in files:
        name = file.relative_to(root).as_posix() if root.parts else file.as_posix()
        try:
            hidden = any(part.startswith(".") and part not in (".", "..") for part in Path(name).parts)
            text = None if hidden else file.read_bytes().decode("utf-8")
        except UnicodeDecodeError:
            text = None
        if text is None:
            skipped += 1
        else:
            documents.append(Document(name, text))
    if skipped:
        print(f"skipped {skipped} of {len(files)} files: hidden or not UTF-8", file=sys.stderr)
    return documents


def python_stdlib() -> list[Document]:
    """The source of the Python that is running: its .py files without tests, tables and installed packages."""
    root = Path(sysconfig.get_paths()["stdlib"])
    files = sorted(p for p in root.rglob("*.py") if not NOT_STDLIB & set(p.relative_to(root).parts[:-1]))
    if not files:
        raise UserError(f"this Python has no sources in {root}; choose a text with --data.path")
    return read_files(root, files)

"""Text: how windows of tokens are cut from a corpus, and that they are what they always were."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from configs.errors import UserError
from configs.schema import DataConfig
from data.bpe import BPETokenizer
from data.dataset import IGNORED
from data.find import python_stdlib
from data.seeds import seed_for
from data.text import Text, open_text
from data.tokenizer import ByteTokenizer, CharTokenizer
from tests.conftest import data_folder, text_of
from training.evaluate import Evaluation, evaluate
from training.loss import cross_entropy

thorough = settings(deadline=None, max_examples=60)


def counting(count: int, context_length: int, seed: int = 0) -> Text:
    """A text whose tokens are 0, 1, 2, ... count - 1."""
    letters = "".join(chr(0x4E00 + i) for i in range(count))
    return text_of([letters], CharTokenizer(letters), context_length, seed)


def opened(path: Path | str, context_length: int = 4, **settings) -> Text:
    """The corpus at this path."""
    return open_text(DataConfig(path=str(path), **settings), context_length, seed=0)


def texts_of(data: Text, split: str) -> str:
    """All characters of a split, end-of-text as nothing."""
    return b"".join(map(data.tokenizer.token_bytes, data.tokens[split][:].tolist())).decode()


def folder_of(folder: Path, files: dict[str, str]) -> Path:
    """A folder with these files."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


MANY = {f"part{n % 3}/{n}.txt": f"<{n}>" * (5 + n % 7) for n in range(40)}


@thorough
@given(count=st.integers(9, 200), length=st.integers(2, 8), number=st.integers(0, 5), size=st.integers(1, 9))
def test_targets_are_the_windows_one_token_later(count, length, number, size):
    x, y = counting(count, length).batch("train", number, size)
    assert x.shape == y.shape == (size, length)
    assert x.equal(x[:, :1] + torch.arange(length)), "a window is consecutive tokens"
    assert y.equal(x + 1)
    assert x.min() >= 0 and y.max() < count


def test_every_window_can_be_drawn_the_first_and_the_last_too():
    x, _ = counting(10, context_length=4).batch("train", 0, 500)
    assert sorted(set(x[:, 0].tolist())) == [0, 1, 2, 3, 4, 5]


def test_a_batch_depends_on_the_seed_and_its_number_alone():
    wanted = counting(500, 4, seed=3).batch("train", 2, 8)
    again = counting(500, 4, seed=3)
    again.batch("train", 0, 5)  # what was asked before doesn't matter
    assert all(a.equal(b) for a, b in zip(wanted, again.batch("train", 2, 8), strict=True))
    others = [counting(500, 4, seed=3).batch("train", 1, 8), counting(500, 4, seed=4).batch("train", 2, 8)]
    assert not any(wanted[0].equal(other[0]) for other in others)


@thorough
@given(count=st.integers(9, 60), length=st.integers(2, 8), shard=st.integers(1, 30))
def test_windows_are_the_same_however_the_tokens_are_cut_into_shards(count, length, shard):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("data.tokenizing.SHARD_BYTES", 2 * shard)
        patch.setattr("data.prepare.SHARD_BYTES", 2 * shard)
        cut = counting(count, length)
    assert len(cut.prepared.index.splits["train"].shards) == -(-count // shard)
    x, y = cut.batch("train", 0, 9)
    assert x.equal(x[:, :1] + torch.arange(length)) and y.equal(x + 1)
    assert cut.tokens["train"][:].tolist() == list(range(count))
    assert cut.tokens["train"][3:7].tolist() == [3, 4, 5, 6] and cut.tokens["train"][5:5].tolist() == []


def by_definition(texts: dict[str, str], val_fraction: float) -> dict[str, list[str]]:
    """The split as the README of old had it: in characters, all in memory."""
    if len(texts) < 10:
        cuts = {name: int(len(text) * (1 - val_fraction)) for name, text in texts.items()}
        return {"train": [t[: cuts[n]] for n, t in texts.items()], "val": [t[cuts[n] :] for n, t in texts.items()]}
    held, size, total = set(), 0, sum(map(len, texts.values()))
    for name in sorted(texts, key=lambda name: hashlib.sha256(name.encode()).digest()):
        if size + len(texts[name]) <= val_fraction * total:
            held.add(name)
            size += len(texts[name])
    learned = [text for name, text in texts.items() if name not in held]
    return {"train": learned, "val": [text for name, text in texts.items() if name in held]}


def shakespeare() -> tuple[dict[str, str], CharTokenizer]:
    """Tiny Shakespeare, letter by letter."""
    text = (data_folder() / "tinyshakespeare.txt").read_text()
    return {"tinyshakespeare.txt": text}, CharTokenizer(text)


def stdlib() -> tuple[dict[str, str], ByteTokenizer]:
    """The source of this Python, byte by byte."""
    texts = {file.name: file.path.read_bytes().decode() for file in python_stdlib()}
    return {name: text for name, text in texts.items() if text}, ByteTokenizer()


@pytest.mark.parametrize(
    ("name", "kind", "val_fraction", "source"),
    [
        pytest.param("shakespeare", "char", 0.1, shakespeare, marks=pytest.mark.data),
        ("python-stdlib", "byte", 0.015, stdlib),
    ],
)
def test_a_batch_is_windows_of_all_documents_in_a_row_from_starts_that_are_drawn(name, kind, val_fraction, source):
    texts, tokenizer = source()
    found = opened(name, 64, tokenizer=kind, val_fraction=val_fraction)
    end = [] if tokenizer.end_of_text is None or len(texts) == 1 else [tokenizer.end_of_text]
    for split, documents in by_definition(texts, val_fraction).items():
        stream = np.concatenate([part for text in documents for part in (tokenizer.encode(text), np.array(end, int))])
        assert np.array_equal(found.tokens[split][:], stream)
        draw = torch.Generator().manual_seed(seed_for(0, split, 3))
        starts = torch.randint(len(stream) - 64, (24,), generator=draw).tolist()
        x, y = found.batch(split, 3, 24)
        assert x.tolist() == [stream[start : start + 64].tolist() for start in starts]
        assert y.tolist() == [stream[start + 1 : start + 65].tolist() for start in starts]


@thorough
@given(count=st.integers(9, 120), length=st.integers(2, 8), size=st.integers(1, 9))
def test_in_order_predicts_every_token_but_the_first_exactly_once(count, length, size):
    data = counting(count, length)
    batches = list(data.in_order("train", size))
    assert {(x.shape, y.shape) for x, y in batches} == {((size, length), (size, length))}
    x, y = (torch.cat(parts) for parts in zip(*batches, strict=True))
    assert y[y != IGNORED].tolist() == list(range(1, count))
    assert x[y != IGNORED].tolist() == list(range(count - 1))
    assert data.count("train") == (y != IGNORED).any(dim=1).sum()


def test_no_token_and_no_digit_has_the_number_of_an_ignored_target():
    assert IGNORED < 0


def test_the_last_tenth_of_a_text_is_held_out(tmp_path):
    text = "".join(chr(97 + n * n % 26) for n in range(1000))
    data = opened(folder_of(tmp_path, {"a.txt": text}) / "a.txt")
    assert (texts_of(data, "train"), texts_of(data, "val")) == (text[:900], text[900:])


def test_of_a_few_files_the_last_tenth_of_each_is_held_out(tmp_path):
    files = {f"{n}.txt": str(n) * 50 for n in range(3)}
    data = opened(folder_of(tmp_path, files))
    assert texts_of(data, "train") == "0" * 45 + "1" * 45 + "2" * 45
    assert texts_of(data, "val") == "0" * 5 + "1" * 5 + "2" * 5


@pytest.mark.data
def test_tiny_shakespeare_is_1003854_characters_to_learn_from_and_111540_to_choose_by():
    data = opened("shakespeare", 256)
    assert data.prepared.counts == {"train": 1_003_854, "val": 111_540}
    assert data.tokenizer.vocab_size == 65


def test_many_files_are_held_out_whole_and_none_is_in_both_splits(tmp_path):
    data = opened(folder_of(tmp_path, MANY))
    train, val = texts_of(data, "train"), texts_of(data, "val")
    assert all((text in train) != (text in val) for text in MANY.values())
    assert len(train) + len(val) == sum(map(len, MANY.values()))
    assert 0 < len(val) <= 0.1 * (len(train) + len(val))


@pytest.mark.parametrize("files", [MANY, {"a.txt": "all of it"}])
def test_nothing_is_held_out_if_nothing_is_asked_for(tmp_path, files):
    data = opened(folder_of(tmp_path, files), val_fraction=0)
    assert (data.count("val"), len(texts_of(data, "train"))) == (0, sum(map(len, files.values())))


def test_a_corpus_shorter_than_a_window_says_what_it_has_and_needs(tmp_path):
    with pytest.raises(UserError, match=r"val split has 10 tokens and one window needs 11"):
        opened(folder_of(tmp_path, {"a.txt": "x" * 100}) / "a.txt", 10)
    assert opened(tmp_path / "a.txt", 9).count("val") == 1


def test_a_corpus_without_anything_to_learn_from_says_so(tmp_path):
    with pytest.raises(UserError, match=r"train split has 0 tokens and one window needs 5"):
        opened(folder_of(tmp_path, {"a.txt": "x"}) / "a.txt")


def test_each_document_is_closed_by_end_of_text():
    data = text_of(["one", "", "two"], ByteTokenizer(), 2)
    assert data.tokens["train"][:].tolist() == [*b"one", 256, *b"two", 256]


@pytest.mark.parametrize(("count", "vocab_size"), [(1, 4), (2, 5)])
def test_several_documents_need_a_token_between_them_and_one_does_not(tmp_path, count, vocab_size):
    data = opened(folder_of(tmp_path, {f"{n}.txt": "abcd" * 30 for n in range(count)}))
    assert data.tokenizer.vocab_size == vocab_size


def test_token_numbers_that_need_more_than_16_bits_survive():
    letters = "".join(chr(point) for point in range(0x10000, 0x10000 + 2**16 + 10))
    tokens = text_of([letters], CharTokenizer(letters), 4).tokens["train"]
    assert np.array_equal(tokens[:], np.arange(2**16 + 10))


@settings(thorough, max_examples=20)
@given(text=st.text(min_size=6, max_size=40))
def test_byte_count_is_the_utf8_bytes_of_all_but_the_first_token(text):
    assert text_of([text], CharTokenizer(text), 4).byte_count("train") == len(text[1:].encode())
    assert text_of([text], ByteTokenizer(), 4).byte_count("train") == len(text.encode()) - 1


def test_bits_per_byte_is_the_surprise_of_the_text_over_its_bytes():
    probabilities = torch.tensor([0.5, 0.125, 0.25, 0.0625])  # of four tokens that make seven bytes
    loss = -float(probabilities.log().mean())
    assert Evaluation(loss, 0.0, 4).bits_per_byte(7) == pytest.approx((1 + 3 + 2 + 4) / 7)


class Unmoved(nn.Module):
    """A network that gives the same log-probabilities whatever it reads."""

    def __init__(self, bits: list[float]) -> None:
        super().__init__()
        rest = 1 - sum(2.0**-b for b in bits)  # on a token that never comes
        self.scores = nn.Parameter(torch.tensor([*(2.0**-b for b in bits), rest]).log().unsqueeze(1))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.scores[:, 0].expand(*tokens.shape, -1)


def test_bits_per_byte_of_the_same_opinion_is_the_same_for_every_tokenizer():
    text = "\n" + "the naïve one hides in the other thing; " * 20
    merges = [b"th", b"the", b"in", b"ing", b" o", "ï".encode()]
    byte_runs = [bytes([byte]) for byte in range(256)]
    found = []
    for tokenizer in (ByteTokenizer(), BPETokenizer(byte_runs + merges, "gpt2"), CharTokenizer(text, end_of_text=True)):
        data = text_of([text], tokenizer, context_length=7)
        # Each byte is worth 10 bits, so that a token of n bytes is worth 10 n; end-of-text 2.
        bits = [10.0 * len(tokenizer.token_bytes(t)) for t in range(tokenizer.vocab_size - 1)]
        score = evaluate(Unmoved([*bits, 2.0]), data, "train", cross_entropy)
        assert score is not None
        found.append(score.bits_per_byte(data.byte_count("train")))
    count = len(text.encode()) - 1
    assert found == pytest.approx([(10 * count + 2) / count] * 3, rel=1e-5)

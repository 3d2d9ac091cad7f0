"""Text: what is read, what is held out, and how windows of tokens are cut from it."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from configs.errors import UserError
from configs.schema import DataConfig
from data.dataset import IGNORED
from data.text import Document, Text, open_text, python_stdlib, read_documents
from data.tokenizer import BPETokenizer, ByteTokenizer, CharTokenizer, Tokenizer, choose_tokenizer
from tests.conftest import data_folder
from training.evaluate import Evaluation, evaluate
from training.loss import cross_entropy

thorough = settings(deadline=None, max_examples=60)


def corpus(text: str, tokenizer: Tokenizer, context_length: int = 4, seed: int = 0) -> Text:
    """A training split of one document."""
    return Text({"train": [Document("a.txt", text)]}, tokenizer, context_length, seed)


def counting(count: int, context_length: int, seed: int = 0) -> Text:
    """A text whose tokens are 0, 1, 2, ... count - 1."""
    letters = "".join(chr(0x4E00 + i) for i in range(count))
    return corpus(letters, CharTokenizer(letters), context_length, seed)


def opened(path: Path | str, context_length: int = 4, **settings) -> Text:
    """The corpus at this path."""
    return open_text(DataConfig(path=str(path), **settings), context_length, seed=0)


def texts_of(data: Text, split: str) -> str:
    """All characters of a split, end-of-text as nothing."""
    return b"".join(map(data.tokenizer.token_bytes, data.tokens[split].tolist())).decode()


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
@given(count=st.integers(9, 120), length=st.integers(2, 8), size=st.integers(1, 9))
def test_in_order_predicts_every_token_but_the_first_exactly_once(count, length, size):
    data = counting(count, length)
    batches = list(data.in_order("train", size))
    assert {(x.shape, y.shape) for x, y in batches} == {((size, length), (size, length))}
    x, y = (torch.cat(parts) for parts in zip(*batches, strict=True))
    assert y[y != IGNORED].tolist() == list(range(1, count))
    assert x[y != IGNORED].tolist() == list(range(count - 1))
    assert data.count("train") == (y != IGNORED).any(dim=1).sum()


def test_the_last_tenth_of_a_text_is_held_out(tmp_path):
    text = "".join(chr(97 + n * n % 26) for n in range(1000))
    data = opened(folder_of(tmp_path, {"a.txt": text}) / "a.txt")
    assert (texts_of(data, "train"), texts_of(data, "val")) == (text[:900], text[900:])


def test_of_a_few_files_the_last_tenth_of_each_is_held_out(tmp_path):
    files = {f"{n}.txt": str(n) * 50 for n in range(3)}
    data = opened(folder_of(tmp_path, files))
    assert texts_of(data, "train") == "0" * 45 + "1" * 45 + "2" * 45
    assert texts_of(data, "val") == "0" * 5 + "1" * 5 + "2" * 5


def test_tiny_shakespeare_is_1003854_characters_to_learn_from_and_111540_to_choose_by():
    data_folder()
    data = opened("shakespeare", 256)
    assert {split: len(tokens) for split, tokens in data.tokens.items()} == {"train": 1_003_854, "val": 111_540}
    assert data.tokenizer.vocab_size == 65


def test_many_files_are_held_out_whole_and_none_is_in_both_splits(tmp_path):
    data = opened(folder_of(tmp_path, MANY))
    train, val = texts_of(data, "train"), texts_of(data, "val")
    assert all((text in train) != (text in val) for text in MANY.values())
    assert len(train) + len(val) == sum(map(len, MANY.values()))
    assert 0 < len(val) <= 0.1 * (len(train) + len(val))


@pytest.mark.parametrize("pattern", ["", "*/*.txt"])
def test_a_corpus_is_the_same_wherever_its_folder_lies(tmp_path, pattern):
    here, there = (opened(folder_of(tmp_path / place, MANY) / pattern) for place in ("here", "over/there"))
    assert here.sha256 == there.sha256
    assert texts_of(here, "val") == texts_of(there, "val")


@pytest.mark.parametrize("files", [MANY, {"a.txt": "all of it"}])
def test_nothing_is_held_out_if_nothing_is_asked_for(tmp_path, files):
    data = opened(folder_of(tmp_path, files), val_fraction=0)
    assert (data.count("val"), len(texts_of(data, "train"))) == (0, sum(map(len, files.values())))


@pytest.mark.parametrize("path", ["", "*.txt", "**/*.txt", "poem.txt"])
def test_a_corpus_is_a_folder_a_glob_or_a_file(tmp_path, path):
    folder_of(tmp_path, {"poem.txt": "rose is a rose is a rose"})
    assert [d.text for d in read_documents(str(tmp_path / path))] == ["rose is a rose is a rose"]


def test_a_folder_is_read_with_all_its_folders_in_the_order_of_their_names(tmp_path):
    folder_of(tmp_path, {"b.txt": "2", "a/z.md": "1", "c/a/x": "3"})
    assert read_documents(str(tmp_path)) == [("a/z.md", "1"), ("b.txt", "2"), ("c/a/x", "3")]


def test_a_file_with_brackets_in_its_name_is_no_glob(tmp_path):
    folder_of(tmp_path, {"[a].txt": "brackets", "a.txt": "plain"})
    assert [d.text for d in read_documents(str(tmp_path / "[a].txt"))] == ["brackets"]


def test_line_ends_and_marks_are_left_as_they_are(tmp_path):
    content = "\ufeffone\r\ntwo\rthree\n"
    (tmp_path / "a.txt").write_bytes(content.encode())
    assert read_documents(str(tmp_path / "a.txt"))[0].text == content


def test_in_a_folder_what_is_not_utf8_is_skipped_and_counted(tmp_path, capsys):
    folder_of(tmp_path, {"a.txt": "words", "b.txt": "more", ".hidden/c.txt": "secret"})
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    assert [d.text for d in read_documents(str(tmp_path))] == ["words", "more"]
    out, err = capsys.readouterr()
    assert (out, "skipped 2 of 4 files" in err) == ("", True)


def test_a_file_named_alone_that_is_not_utf8_is_a_users_mistake(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(UserError, match=r"photo\.jpg is not UTF-8"):
        read_documents(str(tmp_path / "photo.jpg"))


def test_a_glob_reads_files_whose_folder_lies_in_a_hidden_one(tmp_path):
    folder_of(tmp_path / ".local" / "texts", {"a.txt": "words"})
    assert [d.text for d in read_documents(str(tmp_path / ".local" / "texts" / "*.txt"))] == ["words"]


@pytest.mark.parametrize("path", ["no/such/file", "no/*.txt", "a\0b", "mnist", "~nosuchuser/file"])
def test_a_path_that_leads_to_no_text_is_a_users_mistake(workplace, path):
    with pytest.raises(UserError, match=r"^data\.path: "):
        read_documents(path)


@pytest.mark.parametrize("files", [{}, {"a.txt": ""}, {"a.txt": "", "b.txt": ""}])
def test_a_corpus_without_text_is_a_users_mistake(tmp_path, files):
    with pytest.raises(UserError, match="holds no text"):
        opened(folder_of(tmp_path, files))


def test_a_corpus_shorter_than_a_window_says_what_it_has_and_needs(tmp_path):
    with pytest.raises(UserError, match=r"val split has 10 tokens and one window needs 11"):
        opened(folder_of(tmp_path, {"a.txt": "x" * 100}) / "a.txt", 10)
    assert opened(tmp_path / "a.txt", 9).count("val") == 1


def test_each_document_is_closed_by_end_of_text():
    documents = [Document("a", "one"), Document("b", "two")]
    tokens = Text({"train": documents}, ByteTokenizer(), 2).tokens["train"].tolist()
    assert tokens == [*b"one", 256, *b"two", 256]


def test_the_fingerprint_changes_with_every_name_and_every_text():
    def fingerprint(*documents: tuple[str, str]) -> str:
        return Text({"train": [Document(*d) for d in documents]}, ByteTokenizer(), 2).sha256

    first = fingerprint(("a", "xy"), ("b", "z"))
    others = [(("a", "x"), ("b", "yz")), (("ax", "y"), ("b", "z")), (("a", "xY"), ("b", "z")), (("a", "xy"),)]
    assert first == fingerprint(("b", "z"), ("a", "xy"))
    assert first not in [fingerprint(*documents) for documents in others]


def test_token_numbers_that_need_more_than_16_bits_survive():
    letters = "".join(chr(point) for point in range(0x10000, 0x10000 + 2**16 + 10))
    tokens = corpus(letters, CharTokenizer(letters)).tokens["train"]
    assert np.array_equal(tokens, np.arange(2**16 + 10))


def test_python_stdlib_is_python_without_tests_tables_and_installed_packages():
    documents = python_stdlib()
    names = [d.name for d in documents]
    excluded = ("site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "encodings", "pydoc_data")
    assert not [name for name in names if set(name.split("/")[:-1]) & set(excluded)]
    assert {"os.py", "json/decoder.py", "asyncio/base_events.py"} < set(names)
    assert len(set(names)) == len(names) and all(name.endswith(".py") for name in names)
    assert dict(documents)["os.py"] == Path(os.__file__).read_text("utf-8")


@settings(thorough, max_examples=20)
@given(text=st.text(min_size=6, max_size=40))
def test_byte_count_is_the_utf8_bytes_of_all_but_the_first_token(text):
    assert corpus(text, CharTokenizer(text)).byte_count("train") == len(text[1:].encode())
    assert corpus(text, ByteTokenizer()).byte_count("train") == len(text.encode()) - 1


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
    for tokenizer in (ByteTokenizer(), BPETokenizer(byte_runs + merges, "gpt2"), choose_tokenizer("char", [text, ""])):
        data = corpus(text, tokenizer, context_length=7)
        # Each byte is worth 10 bits, so that a token of n bytes is worth 10 n; end-of-text 2.
        bits = [10.0 * len(tokenizer.token_bytes(t)) for t in range(tokenizer.vocab_size - 1)]
        score = evaluate(Unmoved([*bits, 2.0]), data, "train", cross_entropy)
        assert score is not None
        found.append(score.bits_per_byte(data.byte_count("train")))
    count = len(text.encode()) - 1
    assert found == pytest.approx([(10 * count + 2) / count] * 3, rel=1e-5)

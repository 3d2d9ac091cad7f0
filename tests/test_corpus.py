"""A corpus: which files are read, what documents they hold, which part of them is held out."""

import gzip
import hashlib
import itertools
import json
import os
import tempfile
import tracemalloc
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import data.corpus
from configs.errors import UserError
from configs.schema import DataConfig
from data.bpe import BPETokenizer
from data.corpus import Corpus, Piece, open_corpus, pieces, split
from data.find import find_files, python_stdlib

thorough = settings(deadline=None, max_examples=60)
names = st.text("ab.é []", min_size=1, max_size=4).filter(lambda name: name.strip("."))
contents = st.text(max_size=20).map(str.encode) | st.binary(max_size=20)
trees = st.dictionaries(st.lists(names, min_size=1, max_size=3).map(tuple), contents, max_size=6)


def opened(*paths: Path | str, **more) -> Corpus:
    """The corpus at these paths."""
    return open_corpus(DataConfig(path=[str(path) for path in paths], **more))


def texts(corpus: Corpus, split: str = "train", val_fraction: float = 0.0) -> list[str]:
    """The documents of a split."""
    found = [""]
    for piece in corpus.read(split, corpus.cuts(val_fraction)):
        found[-1] += piece.text
        found += [""] * piece.last
    assert found.pop() == ""
    return found


def folder_of(folder: Path, files: dict[str, str | bytes]) -> Path:
    """A folder with these files."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def is_text(content: bytes) -> bool:
    """Whether a file with this content is text."""
    try:
        return "\0" not in content.decode()
    except UnicodeDecodeError:
        return False


@settings(thorough, max_examples=40)
@given(trees)
def test_of_any_folder_the_text_files_that_are_not_hidden_are_read_in_order(tree):
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        written = {}
        for parts, content in tree.items():
            path = root.joinpath(*parts)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            except OSError:  # a file is where this one's folder should be, or the other way round
                continue
            written[path] = content
        shown = [p for p in sorted(written) if not any(part[0] == "." for part in p.relative_to(root).parts)]
        expected = [text for p in shown if is_text(written[p]) and (text := written[p].decode())]
        try:
            assert texts(opened(root)) == expected
        except UserError as error:
            assert not expected and "contains no text" in str(error)


@pytest.mark.parametrize("path", ["", "*.txt", "**/*.txt", "poem.txt"])
def test_a_corpus_is_a_folder_a_glob_or_a_file(tmp_path, path):
    folder_of(tmp_path, {"poem.txt": "rose is a rose is a rose"})
    assert texts(opened(tmp_path / path)) == ["rose is a rose is a rose"]


def test_a_folder_is_read_with_all_its_folders_in_the_order_of_their_names(tmp_path):
    corpus = opened(folder_of(tmp_path, {"b.txt": "2", "a/z.md": "1", "c/a/x": "3"}))
    assert [file.name for file in corpus.files] == ["a/z.md", "b.txt", "c/a/x"] and texts(corpus) == ["1", "2", "3"]


def test_a_file_that_is_reached_twice_counts_once(tmp_path):
    folder_of(tmp_path, {"a.txt": "one", "b/c.txt": "two"})
    os.symlink(tmp_path / "a.txt", tmp_path / "link.txt")
    several = opened(tmp_path, tmp_path / "b", tmp_path / "b" / "*.txt", tmp_path / "b" / ".." / "a.txt")
    assert texts(several) == ["one", "two"]


def test_paths_are_read_in_the_order_in_which_they_are_given(tmp_path):
    folder_of(tmp_path, {"a.txt": "one", "b.txt": "two"})
    assert texts(opened(tmp_path / "b.txt", tmp_path / "a.txt")) == ["two", "one"]


def test_of_a_folder_only_files_with_the_wanted_extensions_are_read(tmp_path):
    files = {"a.md": "1", "b.txt": "2", "c.md.gz": gzip.compress(b"3"), "d.amd": "4", "e/f.rst": "5", "md": "6"}
    folder_of(tmp_path, files)
    assert texts(opened(tmp_path, extensions=["md", ".rst"])) == ["1", "3", "5"]
    assert texts(opened(tmp_path / "b.txt", extensions=["md"])) == ["2"], "a file that is named is read in any case"


def test_a_file_with_brackets_in_its_name_is_no_glob(tmp_path):
    folder_of(tmp_path, {"[a].txt": "brackets", "a.txt": "plain"})
    assert texts(opened(tmp_path / "[a].txt")) == ["brackets"]


def test_line_ends_and_marks_are_left_as_they_are(tmp_path):
    folder_of(tmp_path, {"a.txt": "\ufeffone\r\ntwo\rthree\n"})
    assert texts(opened(tmp_path / "a.txt")) == ["\ufeffone\r\ntwo\rthree\n"]


def test_in_a_folder_what_is_hidden_or_no_text_is_skipped_and_counted_in_one_line(tmp_path, capsys):
    folder_of(tmp_path, {"a.txt": "words", "b.txt": "more", ".hidden/c.txt": "secret", "nul.bin": "a\0b"})
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    assert texts(opened(tmp_path)) == ["words", "more"]
    assert capsys.readouterr() == ("", "skipped 3 of 5 files: hidden or not UTF-8 text\n")


@pytest.mark.parametrize("content", [b"\xff\xd8\xff\xe0", "Gr\xfc\xdfe".encode("latin1"), b"a\0b", "ü".encode()[:1]])
def test_a_file_named_alone_that_is_not_text_is_a_users_mistake_with_a_way_out(tmp_path, content):
    folder_of(tmp_path, {"photo.jpg": content})
    with pytest.raises(UserError, match=r"photo\.jpg is not UTF-8.*iconv"):
        opened(tmp_path / "photo.jpg")


def test_a_glob_reads_files_whose_folder_lies_in_a_hidden_one(tmp_path):
    folder_of(tmp_path / ".local" / "texts", {"a.txt": "words"})
    assert texts(opened(tmp_path / ".local" / "texts" / "*.txt")) == ["words"]


@pytest.mark.parametrize("path", ["no/such/file", "no/*.txt", "a\0b", "mnist", "~nosuchuser/file"])
def test_a_path_that_leads_to_no_text_is_a_users_mistake(workplace, path):
    with pytest.raises(UserError, match=r"^data\.path: "):
        opened(path)


@pytest.mark.parametrize("files", [{}, {"a.txt": ""}, {"a.txt": "", "b.txt": ""}, {"a.jsonl": "\n\n"}])
def test_a_corpus_without_text_is_a_users_mistake(tmp_path, files):
    with pytest.raises(UserError, match="contains no text"):
        opened(folder_of(tmp_path, files))


def test_a_name_wins_over_a_folder_of_that_name(workplace):
    folder_of(workplace / "python-stdlib", {"a.txt": "not Python"})
    assert len(find_files(["python-stdlib"], [])) == len(python_stdlib())
    assert texts(opened("./python-stdlib")) == ["not Python"]


def test_python_stdlib_is_python_without_tests_tables_and_installed_packages():
    found = {file.name: file.path for file in python_stdlib()}
    excluded = ("site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "encodings", "pydoc_data")
    assert not [name for name in found if set(name.split("/")[:-1]) & set(excluded)]
    assert {"os.py", "json/decoder.py", "asyncio/base_events.py"} < set(found)
    assert all(name.endswith(".py") for name in found) and found["os.py"].samefile(os.__file__)


# JSON Lines and gzip


@thorough
@given(documents=st.lists(st.text(min_size=1, max_size=30), min_size=1, max_size=12), ascii=st.booleans())
def test_each_line_of_a_jsonl_file_is_a_document_packed_or_not(documents, ascii):
    lines = "\n\n".join(json.dumps({"id": 1, "body": text}, ensure_ascii=ascii) for text in documents) + "\n"
    with tempfile.TemporaryDirectory() as place:
        packed = {"a.jsonl": lines, "b.jsonl.gz": gzip.compress(lines.encode())}
        for name in folder_of(Path(place), packed).iterdir():
            corpus = opened(name, field="body")
            assert texts(corpus) == documents
            assert corpus.document_count == len(documents)
            assert corpus.byte_count == sum(len(text.encode()) for text in documents)


@thorough
@given(text=st.text(min_size=1, max_size=50).filter(lambda text: "\0" not in text))
def test_a_packed_text_is_the_text(text):
    with tempfile.TemporaryDirectory() as place:
        folder_of(Path(place), {"a.txt.gz": gzip.compress(text.encode())})
        assert texts(opened(Path(place) / "a.txt.gz")) == [text]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('{"text": "cut', "invalid JSON"),
        ("[" * 100_000, "invalid JSON"),
        ('["text"]', "no text in field 'text'"),
        ('{"text": 5}', "no text in field 'text'"),
        ('{"id": 1, "body": "x"}', "no text in field 'text'; choose another with --data.field: body"),
        ('{"text": "\\ud800"}', "unpaired surrogate"),
        (b'{"text": "\xff"}', "invalid JSON"),
    ],
)
def test_a_line_that_is_no_document_is_named(tmp_path, line, complaint):
    content = b'{"text": "good"}\n\n' + (line if isinstance(line, bytes) else line.encode()) + b"\n"
    folder_of(tmp_path, {"a.jsonl": content})
    for path in (tmp_path / "a.jsonl", tmp_path):
        with pytest.raises(UserError, match=rf"a\.jsonl:3: .*{complaint}"):
            opened(path)


@thorough
@given(cut=st.integers(1, 60), place=st.integers(0, 59), byte=st.integers(0, 255))
def test_a_damaged_gz_is_a_users_mistake_or_still_the_text(cut, place, byte):
    whole = gzip.compress(b"the quick brown fox jumps over the lazy dog", mtime=0)
    changed = bytearray(whole)
    changed[place % len(whole)] = byte
    for content in (whole[:-cut], bytes(changed)):
        with tempfile.TemporaryDirectory() as place_:
            folder_of(Path(place_), {"a.txt.gz": content})
            try:
                assert texts(opened(place_)) == [gzip.decompress(whole).decode()]
            except UserError as error:
                assert "damaged" in str(error) or "contains no text" in str(error)


# Documents in pieces


parts = st.sampled_from(["a", "ab", "b", " ", " ", "\n", "  ", "\xa0", "é", "'s", "1", ".", "\x1c", "\r\n", "\u3000"])


@settings(thorough, max_examples=200)
@given(
    text=st.lists(parts, min_size=8, max_size=30).map("".join) | st.text(max_size=60),
    size=st.integers(2, 9),
    block=st.integers(1, 20),
)
def test_the_pieces_of_a_document_are_the_document_and_their_tokens_its_tokens(text, size, block):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data.corpus, "PIECE", size)
        found = list(pieces(text[at : at + block] for at in range(0, len(text), block)))
    assert "".join(piece.text for piece in found) == text
    assert [piece.last for piece in found] == [False] * (len(found) - 1) + [True] * bool(found)
    places = {
        at for at in range(1, len(text) - 1)
        if text[at] in " \n" and not text[at - 1].isspace() and not text[at + 1].isspace()
    }  # fmt: skip
    starts = list(itertools.accumulate((len(piece.text) for piece in found), initial=0))
    for start, cut in itertools.pairwise(starts[:-1]):
        assert cut in places or not places & {*range(start + 1, start + size)}, "cut where it need not be"
    if places >= {*starts[1:-1]}:
        tokens = [token for piece in found for token in small_bpe().encode(piece.text).tolist()]
        assert tokens == small_bpe().encode(text).tolist()


@cache
def small_bpe() -> BPETokenizer:
    """Runs that begin with, end with and are made of white space."""
    runs = [b" a", b"ab", b" ab", b"  ", b"\n\n", b" \n", b"\n ", b"a ", b"'a", b"1.", b"b\n"]
    return BPETokenizer([bytes([byte]) for byte in range(256)] + runs, "gpt2")


def test_a_long_text_is_encoded_in_pieces_as_it_would_be_whole(tmp_path):
    text = "\n".join(Path(file.path).read_text("utf-8") for file in python_stdlib()[:90])
    assert len(text) > 1.2 * data.corpus.PIECE
    folder_of(tmp_path, {"a.txt": text})
    corpus = opened(tmp_path / "a.txt")
    found = [piece.text for piece in corpus.read("train", corpus.cuts(0))]
    assert len(found) > 1 and max(map(len, found)) <= 2 * data.corpus.PIECE
    parts = np.concatenate([small_bpe().encode(part) for part in found])
    assert np.array_equal(parts, small_bpe().encode(text))


def test_a_million_characters_without_a_place_to_cut_are_cut_anyway():
    found = list(pieces(["é" * 2**20, "é" * 5]))
    assert found == [Piece("é" * 2**20, False), Piece("é" * 5, True)]


def test_a_large_file_is_never_in_memory_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(data.corpus, "BLOCK", 2**16)
    monkeypatch.setattr(data.corpus, "PIECE", 2**16)
    size = 8_000_000
    folder_of(
        tmp_path, {"a.txt": b"all work and no play\n" * (size // 21), "b.txt.gz": gzip.compress(bytes([65]) * size)}
    )
    tracemalloc.start()
    try:
        corpus = opened(tmp_path)
        read = sum(len(piece.text) for s in ("train", "val") for piece in corpus.read(s, corpus.cuts(0.1)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert read == corpus.byte_count > 1.9 * size and peak < 0.2 * size


# What is held out


@thorough
@given(texts_=st.lists(st.text("aé中😀", max_size=20), max_size=12), val_fraction=st.floats(0, 0.5))
def test_what_is_learned_from_and_what_is_held_out_is_all_of_it_and_nothing_twice(texts_, val_fraction):
    if not any(texts_):
        return
    with tempfile.TemporaryDirectory() as place:
        corpus = opened(folder_of(Path(place), {f"{n:02}.txt": text for n, text in enumerate(texts_)}))
        train, val = (texts(corpus, split, val_fraction) for split in ("train", "val"))
    few = sum(map(bool, texts_)) < 10
    both = "".join(train) + "".join(val)
    assert sorted(both) == sorted("".join(texts_))
    if not few:
        assert sorted(train + val) == sorted(filter(None, texts_)), "documents stay whole"
        assert len("".join(val).encode()) <= val_fraction * corpus.byte_count
    elif len(texts_) == 1:
        assert both == texts_[0]
        missing = corpus.byte_count * (1 - val_fraction) - len("".join(train).encode())
        assert 0 <= missing < 4 + 1, "the cut is at the first character border before it"


def test_of_many_documents_those_come_first_whose_names_have_the_smallest_hashes():
    sizes = np.array([10 + n % 7 for n in range(40)])
    every = [f"part{n % 3}/{n}.txt" for n in range(40)]
    held = [name for name, cut in zip(every, split(every, sizes, 0.1), strict=True) if cut == 0]
    expected, size = [], 0
    for name in sorted(every, key=lambda name: hashlib.sha256(name.encode()).digest()):
        if size + sizes[every.index(name)] <= 0.1 * sizes.sum():
            expected.append(name)
            size += sizes[every.index(name)]
    assert sorted(held) == sorted(expected) and held


def test_the_split_does_not_depend_on_the_order_of_the_documents():
    sizes, every = np.array([10 + n % 7 for n in range(40)]), [f"{n}.txt" for n in range(40)]
    there, back = split(every, sizes, 0.2), split(every[::-1], sizes[::-1], 0.2)
    assert there.tolist() == back[::-1].tolist()


# The hash


@pytest.mark.parametrize("pattern", ["", "*/*.txt"])
def test_a_corpus_is_the_same_wherever_its_folder_lies(tmp_path, pattern):
    files = {f"part{n % 3}/{n}.txt": f"<{n}>" * 5 for n in range(12)}
    here, there = (opened(folder_of(tmp_path / place, files) / pattern) for place in ("here", "over/there"))
    assert here.sha256 == there.sha256
    assert texts(here, "val", 0.1) == texts(there, "val", 0.1) != []


def test_the_hash_changes_with_every_name_every_text_and_where_they_begin(tmp_path):
    corpora = [
        {"a": "xy", "b": "z"},
        {"a": "x", "b": "yz"},
        {"ax": "y", "b": "z"},
        {"a": "xY", "b": "z"},
        {"a": "xy"},
        {"a.jsonl": '{"text": "xy"}\n{"text": "z"}'},
        {"a.jsonl": '{"text": "x"}\n{"text": "yz"}'},
        {"a.jsonl": '{"text": "xyz"}'},
    ]
    found = [opened(folder_of(tmp_path / str(n), files)).sha256 for n, files in enumerate(corpora)]
    assert len(set(found)) == len(corpora)
    assert opened(folder_of(tmp_path / "again", corpora[0])).sha256 == found[0]

"""Tokens on disk: prepared once, never out of date, whole or not there, and read in constant memory."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import data.corpus
import data.prepare
import data.tokenizing
from benchmarks.memory import sparse_tokens
from configs.errors import UserError
from configs.schema import DataConfig
from data.bpe import BPETokenizer
from data.corpus import open_corpus
from data.fetch import sha256
from data.prepare import prepare
from data.shards import Damaged, Index, Prepared, Shard, Split, open_shards, write_index
from data.text import Text
from data.tokenizer import ByteTokenizer, CharTokenizer, decode
from data.vocabulary import VOCABULARIES, choose_tokenizer, vocabulary_size
from tests.conftest import ROOT

thorough = settings(deadline=None, max_examples=60)
WORDS = "To be, or not to be, that is the question:\nWhether 'tis nobler in the mind to suffer\n" * 20


def prepared(path: Path | str, **more) -> Prepared:
    """The corpus at this path as tokens."""
    config = DataConfig(path=str(path), **more)
    return prepare(open_corpus(config), config)


def folder_of(found: Prepared) -> Path:
    """Where its tokens lie."""
    return found.tokens["train"].files[0].parent


@pytest.fixture
def text(tmp_path) -> Path:
    """A file with some lines of text that no other test has."""
    file = tmp_path / "text.txt"
    file.write_text(f"{tmp_path}\n{WORDS}")
    return file


@pytest.fixture
def once(monkeypatch) -> list[Path]:
    """The folders that are written, in a list that grows."""
    written, write = [], data.tokenizing.write

    def noted(folder: Path, *rest) -> None:
        written.append(folder)
        write(folder, *rest)

    monkeypatch.setattr(data.tokenizing, "write", noted)
    return written


@pytest.mark.parametrize("kind", ["char", "byte", "bpe", pytest.param("gpt2", marks=pytest.mark.data), "auto"])
def test_a_corpus_is_tokenized_once_and_decodes_to_itself(text, once, kind):
    first, again = prepared(text, tokenizer=kind), prepared(text, tokenizer=kind)
    assert len(once) == 1 and first.sha256 == again.sha256
    tokens = np.concatenate([again.tokens[split][:] for split in ("train", "val")])
    assert decode(again.tokenizer, tokens.tolist()) == text.read_text()
    assert again.index.byte_count == len(text.read_bytes())
    assert json.loads((once[0] / "tokenizer.json").read_text()) == first.tokenizer.to_json()


BPE = {"tokenizer": "bpe", "vocab_size": 260}


@pytest.mark.parametrize(
    "settings", [BPE | {"val_fraction": 0.2}, BPE | {"vocab_size": 270}, {"tokenizer": "byte"}], ids=str
)
def test_other_settings_lead_to_other_tokens(text, once, settings):
    assert prepared(text, **BPE).sha256 != prepared(text, **settings).sha256
    assert len(once) == 2


def change(file: Path) -> None:
    """Another letter, at the same time of the clock."""
    stamp = file.stat()
    file.write_text(file.read_text().replace("nobler", "nobleR", 1))
    os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))


@pytest.mark.parametrize(
    "act",
    [
        change,
        lambda file: file.rename(file.with_name("b.txt")),
        lambda file: file.with_name("b.txt").write_text("more"),
    ],
    ids=["changed", "renamed", "added"],
)
def test_a_file_that_is_changed_renamed_or_added_leads_to_new_tokens(text, once, act):
    before = prepared(text.parent, tokenizer="byte")
    act(text)
    assert before.sha256 != prepared(text.parent, tokenizer="byte").sha256 and len(once) == 2


def test_many_bytes_are_written_into_several_shards_of_bounded_size(text, monkeypatch):
    monkeypatch.setattr("data.tokenizing.SHARD_BYTES", 1000)
    monkeypatch.setattr("data.prepare.SHARD_BYTES", 1000)
    found = prepared(text, tokenizer="byte")
    sizes = [file.stat().st_size for file in found.tokens["train"].files]
    assert len(sizes) > 2 and set(sizes[:-1]) == {1000} and 0 < sizes[-1] <= 1000
    assert decode(found.tokenizer, found.tokens["train"][:].tolist()) in text.read_text()


def test_a_large_vocabulary_takes_four_bytes_a_token(tmp_path):
    letters = "".join(chr(0x10000 + n) for n in range(2**16 + 1))
    (tmp_path / "a.txt").write_text(letters)
    config = DataConfig(path=str(tmp_path / "a.txt"), val_fraction=0)
    for count, dtype in ((2**16, "uint16"), (2**16 + 1, "uint32")):
        (tmp_path / "a.txt").write_text(letters[:count])
        found = prepare(open_corpus(config), config, CharTokenizer(letters[:count]))
        assert found.index.dtype == dtype and found.tokens["train"][-2:].tolist() == [count - 2, count - 1]


# Where documents end

WORDY = st.lists(st.text("abé中 \n", max_size=3), max_size=25).map("  a".join)
RUNS = [bytes([byte]) for byte in range(256)] + [b" a", b"ab", b" ab", b"  ", b"\n\n", b"  a", "é".encode()]
TOKENIZERS = {
    "char": CharTokenizer("abé中 \n", end_of_text=True),
    "byte": ByteTokenizer(),
    "bpe": BPETokenizer(RUNS, "gpt2"),
}


@thorough
@given(
    documents=st.lists(WORDY, min_size=1, max_size=12).filter(any),
    size=st.integers(12, 40),
    kind=st.sampled_from(list(TOKENIZERS)),
    lines=st.booleans(),
)
def test_in_however_many_pieces_a_document_is_its_own_tokens_and_then_one_end_of_text(documents, size, kind, lines):
    documents = [re.sub(r"[ \n]+a", " a", document) for document in documents]  # places to cut are at most six apart
    tokenizer = TOKENIZERS[kind]
    with tempfile.TemporaryDirectory() as temporary, pytest.MonkeyPatch.context() as patch:
        for module in (data.corpus, data.tokenizing):
            patch.setattr(module, "PIECE", size)
        patch.setattr(data.corpus, "BLOCK", 7)
        folder = Path(temporary)
        if lines:
            (folder / "a.jsonl").write_text("\n".join(json.dumps({"text": document}) for document in documents))
        else:
            for number, document in enumerate(documents):
                (folder / f"{number:02}.txt").write_text(document)
        config = DataConfig(path=str(folder), val_fraction=0)
        found = prepare(open_corpus(config), config, tokenizer)
    expected = [[*tokenizer.encode(text).tolist(), tokenizer.end_of_text] for text in documents if text]
    assert found.tokens["train"][:].tolist() == [token for tokens in expected for token in tokens]
    assert found.index.splits["train"].byte_count == sum(len(text.encode()) for text in documents)


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("length", [39, 40, 41, 79, 80, 81, 400])
@pytest.mark.parametrize("text", ["ab a", "a"], ids=["places to cut", "none"])
def test_a_document_that_ends_at_the_border_of_a_piece_has_one_end_of_text_too(
    tmp_path, monkeypatch, kind, length, text
):
    for module in (data.corpus, data.tokenizing):
        monkeypatch.setattr(module, "PIECE", 40)
    tokenizer, document = TOKENIZERS[kind], (text * length)[:length]
    for number in range(3):
        (tmp_path / f"{number}.txt").write_text(document)
    config = DataConfig(path=str(tmp_path), val_fraction=0)
    tokens = prepare(open_corpus(config), config, tokenizer).tokens["train"][:].tolist()
    assert tokens == 3 * [*tokenizer.encode(document).tolist(), tokenizer.end_of_text]


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("count", [1, 4])
def test_of_a_document_that_is_cut_for_validation_both_parts_end_once(tmp_path, monkeypatch, kind, count):
    for module in (data.corpus, data.tokenizing):
        monkeypatch.setattr(module, "PIECE", 40)
    tokenizer, document = TOKENIZERS[kind], "ab a" * 100
    for number in range(count):
        (tmp_path / f"{number}.txt").write_text(document)
    config = DataConfig(path=str(tmp_path), val_fraction=0.25)
    found = prepare(open_corpus(config), config, tokenizer).tokens
    for split, text in (("train", document[:300]), ("val", document[300:])):
        assert found[split][:].tolist() == count * [*tokenizer.encode(text).tolist(), tokenizer.end_of_text]


# Moved and damaged


def test_a_prepared_folder_can_be_moved_and_used_without_the_text(text, tmp_path, once):
    found = prepared(text, tokenizer="bpe")
    folder = shutil.copytree(folder_of(found), tmp_path / "elsewhere")
    text.unlink()
    moved = prepared(folder, tokenizer="auto")
    assert moved.sha256 == found.sha256 and moved.tokenizer.sha256 == found.tokenizer.sha256 and len(once) == 1
    there, here = (Text(p, 8).batch("train", 3, 5) for p in (moved, found))
    assert all(a.equal(b) for a, b in zip(there, here, strict=True))


def test_a_prepared_folder_is_not_read_with_another_tokenizer_nor_with_other_texts(text, tmp_path):
    folder = shutil.copytree(folder_of(prepared(text, tokenizer="bpe")), tmp_path / "elsewhere")
    with pytest.raises(UserError, match="was prepared with bpe; use auto"):
        prepared(folder, tokenizer="byte")
    config = DataConfig(path=str(folder))
    with pytest.raises(UserError, match="was tokenized differently from this network"):
        prepare(open_corpus(config), config, ByteTokenizer())
    with pytest.raises(UserError, match="cannot be combined with other paths"):
        open_corpus(DataConfig(path=[str(text), str(folder)]))


def made(folder: Path) -> Path:
    """A small prepared folder."""
    (folder / "a.txt").write_text(WORDS[:300])
    return shutil.copytree(folder_of(prepared(folder / "a.txt", tokenizer="byte")), folder / "tokens")


@thorough
@given(
    name=st.sampled_from(["index.json", "tokenizer.json", "train-00000.bin", "val-00000.bin"]),
    place=st.floats(0, 1, exclude_max=True),
    byte=st.integers(0, 255),
    cut=st.booleans(),
)
def test_a_damaged_folder_is_named_and_never_used(name, place, byte, cut):
    with tempfile.TemporaryDirectory() as temporary:
        folder = made(Path(temporary))
        before = open_shards(folder, "").sha256
        content = bytearray((folder / name).read_bytes())
        at = int(place * len(content))
        content[at : len(content) if cut else at + 1] = bytes([byte])
        unchanged = bytes(content) == (folder / name).read_bytes()
        (folder / name).write_bytes(content)
        try:
            assert prepared(folder, tokenizer="auto").sha256 == before
            assert unchanged or name == "index.json", "only white space between JSON's words may change"
        except UserError as error:
            assert str(folder) in str(error) and not unchanged


@pytest.mark.parametrize("key", ["byte_count", "corpus", "document_count"])
def test_a_plausible_change_of_the_index_is_noticed(tmp_path, key):
    folder = made(tmp_path)
    sealed = json.loads((folder / "index.json").read_text())
    place = sealed["index"]["splits"]["val"] if key == "byte_count" else sealed["index"]
    place[key] = "0" * 64 if key == "corpus" else place[key] + 1
    (folder / "index.json").write_text(json.dumps(sealed))
    with pytest.raises(Damaged, match=r"index\.json has changed"):
        prepared(folder, tokenizer="auto")


def test_another_tokenizer_beside_the_tokens_is_noticed(tmp_path):
    folder = made(tmp_path)
    other = CharTokenizer("".join(map(chr, range(256))), end_of_text=True)  # with as many tokens
    (folder / "tokenizer.json").write_text(other.file)
    with pytest.raises(Damaged, match=r"tokenizer\.json is not the tokenizer that made its tokens"):
        prepared(folder, tokenizer="auto")


@pytest.mark.parametrize("name", ["tokenizer.json", "train-00000.bin", "val-00000.bin"])
def test_a_file_that_is_missing_is_named(tmp_path, name):
    folder = made(tmp_path)
    (folder / name).unlink()
    with pytest.raises(Damaged, match=f"{name} is missing"):
        prepared(folder, tokenizer="auto")


def test_a_folder_of_texts_with_an_index_json_of_its_own_is_texts(tmp_path):
    (tmp_path / "index.json").write_text('{"pages": ["a", "b"]}')
    (tmp_path / "a.md").write_text(WORDS)
    assert [file.name for file in open_corpus(DataConfig(path=str(tmp_path))).files] == ["a.md", "index.json"]


def forged(folder: Path, tokens: np.ndarray) -> Path:
    """A folder whose hashes are all right."""
    folder.mkdir()
    tokens.astype("<u2").tofile(folder / "train-00000.bin")
    (folder / "tokenizer.json").write_text(ByteTokenizer().file)
    shard = Shard(tokens=len(tokens), sha256=sha256(folder / "train-00000.bin"))
    splits = {"train": Split(byte_count=len(tokens), shards=[shard])}
    digest = ByteTokenizer().sha256
    write_index(folder, Index(corpus="0" * 64, document_count=1, tokenizer=digest, dtype="uint16", splits=splits))
    return folder


@pytest.mark.parametrize("place", [0, 5_000_000, -1])
def test_a_token_that_the_tokenizer_does_not_have_is_an_error_that_names_the_shard(tmp_path, place):
    tokens = np.zeros(6_000_000, np.uint16)
    assert len(prepared(forged(tmp_path / "good", tokens), tokenizer="auto").tokens["train"]) == len(tokens)
    tokens[place] = 257
    with pytest.raises(Damaged, match=r"train-00000\.bin contains token 257; the vocabulary size is 257"):
        prepared(forged(tmp_path / "bad", tokens), tokenizer="auto")


def test_what_is_damaged_is_prepared_again_with_a_warning_where_the_text_is_at_hand(text, once, capsys):
    found = prepared(text)
    shard = found.tokens["val"].files[0]
    content = shard.read_bytes()
    shard.write_bytes(content[:-2] + b"\1\0")
    again = prepared(text)
    assert len(once) == 2 and again.sha256 == found.sha256 and shard.read_bytes() == content
    err = capsys.readouterr().err
    assert "warning: " in err and "val-00000.bin has changed" in err and "preparing the tokens again" in err


# Whole or not there


def leftovers() -> list[Path]:
    """Folders that are not finished."""
    return list(data.prepare.TOKENS.glob("*.partial"))


def test_an_error_while_tokens_are_written_leaves_nothing_behind(text, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    before = set(data.prepare.TOKENS.iterdir())
    monkeypatch.setattr(data.tokenizing, "write_index", full)
    with pytest.raises(OSError):
        prepared(text)
    assert set(data.prepare.TOKENS.iterdir()) - before <= {data.prepare.TOKENS / ".lock"}


def test_characters_that_the_tokenizer_lacks_leave_nothing_behind(text):
    config = DataConfig(path=str(text))
    with pytest.raises(UserError, match="not in the vocabulary"):
        prepare(open_corpus(config), config, CharTokenizer("abc"))
    assert leftovers() == []


@pytest.mark.parametrize("change", [lambda text: text + "more", lambda text: text[:-9], lambda text: text[::-1]])
def test_a_text_that_changes_while_it_is_read_is_not_prepared(text, change):
    config = DataConfig(path=str(text))
    corpus = open_corpus(config)
    text.write_text(change(text.read_text()))
    with pytest.raises(UserError, match="changed while being read"):
        prepare(corpus, config, ByteTokenizer())
    assert leftovers() == []


def test_what_a_dead_process_left_unfinished_is_cleared_away(text):
    dead = data.prepare.TOKENS / "00000000.partial"
    dead.mkdir(parents=True)
    (dead / "train-00000.bin").write_bytes(b"half")
    prepared(text)
    assert leftovers() == []


PREPARE = """
import signal, sys, time
sys.path.insert(0, sys.argv[1])
from pathlib import Path
import data.prepare
import data.tokenizing
from configs.errors import answer, result_or_exit
from configs.schema import DataConfig
from data.corpus import open_corpus
data.prepare.TOKENS = Path(sys.argv[2])
encode = data.tokenizing.encode
def slow(*rest):
    print("encoding", flush=True)
    time.sleep(float(sys.argv[4]))
    return encode(*rest)
data.tokenizing.encode = slow
config = result_or_exit(lambda: DataConfig(path=sys.argv[3], tokenizer="byte"))  # Ctrl-C would end it from now on
sys.exit(answer(lambda: print(data.prepare.prepare(open_corpus(config), config).sha256)))
"""


def start(tokens: Path, text: Path, seconds: float) -> subprocess.Popen[str]:
    """Another process that prepares the text."""
    command = [sys.executable, "-c", PREPARE, str(ROOT), str(tokens), str(text), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_ctrl_c_leaves_nothing_half_written(text, tmp_path):
    process = start(tmp_path / "tokens", text, 0.5)
    assert process.stdout is not None and process.stdout.readline() == "encoding\n"
    assert len(list((tmp_path / "tokens").glob("*.partial"))) == 1
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, "")
    assert [path.name for path in (tmp_path / "tokens").iterdir()] == [".lock"]


def test_two_processes_that_prepare_the_same_at_once_both_succeed_and_one_does_the_work(text, tmp_path):
    both = [start(tmp_path / "tokens", text, 0.5) for _ in range(2)]
    outputs = [process.communicate(timeout=60)[0].split() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert len({words[-1] for words in outputs}) == 1
    assert sorted(words.count("encoding") for words in outputs) == [0, 2]


# Constant memory

MEASURE = """
import resource, sys
sys.path.insert(0, sys.argv[1])
from configs.schema import DataConfig
from data.text import open_text
data = open_text(DataConfig(path=sys.argv[2], tokenizer="auto"), 64, 0)
for number in range(300):
    data.batch("train", number, 16)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def test_memory_does_not_grow_with_the_corpus(tmp_path):
    peaks = []
    for name, count in (("small", 10_000), ("large", 150_000_000)):
        folder = sparse_tokens(tmp_path / name, count)
        done = subprocess.run(
            [sys.executable, "-c", MEASURE, str(ROOT), str(folder)], check=True, capture_output=True, text=True
        )
        peaks.append(int(done.stdout))
    assert peaks[1] - peaks[0] < 0.06 * 2 * 150_000_000, peaks


# Which tokenizer


@pytest.mark.parametrize(
    ("byte_count", "characters", "kind"),
    [(2_000, 60, "char"), (299_999, 256, "char"), (2_000, 257, "byte"), (300_000, 60, "bpe"), (10**10, 1, "bpe")],
)
def test_auto_is_char_for_small_texts_byte_for_small_ones_with_many_characters_and_bpe_for_others(
    byte_count, characters, kind
):
    choice = choose_tokenizer(byte_count, characters)
    assert choice.kind == kind and (choice.vocab_size is None) == (kind != "bpe") and choice.reason


@thorough
@given(st.integers(0, 10**12), st.integers(0, 10**12))
def test_a_larger_corpus_never_gets_a_smaller_vocabulary(a, b):
    assert vocabulary_size(min(a, b)) <= vocabulary_size(max(a, b)) <= max(VOCABULARIES.values())
    assert 257 <= vocabulary_size(a)


@pytest.mark.parametrize(("characters", "kind"), [("abc ", "char"), ("".join(map(chr, range(0x4E00, 0x4F10))), "byte")])
def test_auto_looks_at_the_corpus(tmp_path, characters, kind):
    (tmp_path / "a.txt").write_text(characters * 10)
    found = prepared(tmp_path / "a.txt", tokenizer="auto")
    assert found.tokenizer.to_json()["kind"] == kind and str(len(set(characters))) in found.reason


def test_a_size_is_for_bpe(text):
    assert prepared(text, tokenizer="bpe", vocab_size=300).tokenizer.vocab_size == 300
    assert prepared(text, tokenizer="bpe").tokenizer.vocab_size <= vocabulary_size(2_000) == 512
    for kind in ("char", "byte", "gpt2"):
        with pytest.raises(UserError, match=r"data\.vocab_size only applies to --data\.tokenizer bpe"):
            prepared(text, tokenizer=kind, vocab_size=300)

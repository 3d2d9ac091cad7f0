"""Hugging Face's tokenizer files and ours say the same: `tokenizers` and tiktoken give a text the same numbers."""

import json
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from data.bpe import BPETokenizer
from data.byte_level import (
    CHARACTERS,
    END_OF_TEXT,
    from_tokenizer_json,
    from_vocab_and_merges,
    run_of,
    to_tokenizer_config,
    to_tokenizer_json,
    written,
)
from tests.conftest import data_folder, gpt2_vocabulary
from tests.needs import require

transformers = require("transformers")
tokenizers = require("tokenizers")

BYTES = [bytes([byte]) for byte in range(256)]
LEARNED = [
    b"th",
    b" t",
    b" th",
    b"the",
    b"in",
    b"ing",
    b"  ",
    b"\r\n",
    b"\xc3\xa9",
    b"12",
    b"aa",
    b"aaa",
    b"aaaa",
    b"'s",
]
PIECES = [
    "the",
    " the",
    "thing",
    "  ",
    "\n",
    "\r\n",
    "\t",
    "'s",
    "'LL",
    "12",
    "é",
    "e\u0301",
    "😀",
    "中",
    "\xa0",
    "aaaaaaa",
]
thorough = settings(deadline=None, max_examples=50)
pieces = st.lists(st.sampled_from([*PIECES, END_OF_TEXT]), max_size=30).map("".join)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=60) | pieces


@pytest.fixture(scope="module")
def loaded(tmp_path_factory) -> Callable[[BPETokenizer], Any]:
    """What AutoTokenizer makes of our files."""

    def load(tokenizer: BPETokenizer) -> Any:
        folder = tmp_path_factory.mktemp("tokenizer")
        (folder / "tokenizer.json").write_text(json.dumps(to_tokenizer_json(tokenizer)))
        (folder / "tokenizer_config.json").write_text(json.dumps(to_tokenizer_config(1024)))
        return transformers.AutoTokenizer.from_pretrained(folder)

    return load


def theirs_of(tokenizer: BPETokenizer) -> Any:
    """The bare tokenizer of `tokenizers`, without transformers around it."""
    return tokenizers.Tokenizer.from_str(json.dumps(to_tokenizer_json(tokenizer)))


def random_string(draw: random.Random) -> str:
    """Unicode of all planes, with spaces, line breaks, end-of-text and plain words in between."""
    piece: list[Callable[[], str]] = [
        lambda: chr(draw.choice([draw.randrange(0xD800), draw.randrange(0xE000, 0x110000)])),
        lambda: chr(draw.randrange(0x500)),
        lambda: draw.choice([*PIECES, END_OF_TEXT, " ", "\n", "   "]),
    ]
    return "".join(draw.choice(piece)() for _ in range(draw.randrange(40)))


@pytest.mark.parametrize("kind", ["learned", pytest.param("gpt2", marks=pytest.mark.data)])
def test_2000_random_unicode_strings_are_encoded_by_autotokenizer_as_by_us(loaded, kind):
    """All 2,000, special tokens in the text included: there is no exception."""
    ours = BPETokenizer(BYTES + LEARNED, "gpt2") if kind == "learned" else gpt2_vocabulary()
    theirs, draw = loaded(ours), random.Random(0)
    strings = [random_string(draw) for _ in range(2000)]
    assert sum(END_OF_TEXT in text for text in strings) > 50
    encoded = theirs(strings)["input_ids"]
    assert [text for text, ids in zip(strings, encoded, strict=True) if ids != ours.encode(text).tolist()] == []
    assert [theirs.decode(ids) for ids in encoded] == strings


def test_every_code_point_is_a_letter_a_digit_a_space_or_none_of_them_for_both(loaded):
    """Their regular expressions come from different libraries, each with its own tables of Unicode."""
    points = [*range(0xD800), *range(0xE000, 0x20000), *range(0x20000, 0x110000, 64)]  # beyond lie long even stretches
    groups = [map(chr, points[at : at + 256]) for at in range(0, len(points), 256)]
    strings = ["".join(f"a{c}1 {c}  {c}" for c in group) for group in groups]
    ours = BPETokenizer(BYTES + LEARNED, "gpt2")
    encoded = loaded(ours)(strings)["input_ids"]
    assert [text for text, ids in zip(strings, encoded, strict=True) if ids != ours.encode(text).tolist()] == []


def test_the_bare_tokenizer_differs_only_where_a_text_names_a_special_token():
    """`tokenizers` itself, which reads no tokenizer_config.json, takes `<|endoftext|>` in a text for the token."""
    ours = BPETokenizer(BYTES + LEARNED, "gpt2")
    theirs, text = theirs_of(ours), f"the{END_OF_TEXT}thing"
    assert ours.end_of_text in theirs.encode(text).ids and ours.end_of_text not in ours.encode(text)
    parts = [ours.encode(part).tolist() for part in text.split(END_OF_TEXT)]
    assert theirs.encode(text).ids == [*parts[0], ours.end_of_text, *parts[1]]


def test_autotokenizer_knows_end_of_text(loaded):
    ours = BPETokenizer(BYTES + LEARNED, "gpt2")
    theirs = loaded(ours)
    assert len(theirs) == ours.vocab_size and theirs.eos_token_id == theirs.bos_token_id == ours.end_of_text
    assert theirs.decode([*ours.encode("thing"), ours.end_of_text], skip_special_tokens=True) == "thing"


runs = st.lists(st.text("ab", min_size=2, max_size=7).map(str.encode), unique=True, max_size=12)


@settings(deadline=None, max_examples=80)
@example([b"aaa", b"aa"], ["aaaaaaa"])
@example([b"aaa"], ["aaa", "aaaa"])
@example([b"ab", b"bc", b"abc"], ["abcabc"])
@given(runs, st.lists(st.text("ab", max_size=24), min_size=1, max_size=5))
def test_merges_make_tiktoken_s_rule_a_list_whatever_the_runs(ranks, words):
    """Also for runs in an order in which no trainer would learn them, some of which can never be made."""
    ours = BPETokenizer(BYTES + ranks, "gpt2")
    theirs = theirs_of(ours)
    for word in words:
        assert theirs.encode(word).ids == ours.encode(word).tolist()


@settings(deadline=None, max_examples=80)
@given(st.data())
def test_a_list_of_merges_is_either_refused_or_encodes_as_tokenizers_does(data):
    """Random merges of what there is, in a random order and with random numbers."""
    names, pairs = ["a", "b"], []
    for _ in range(data.draw(st.integers(0, 8))):
        pair = (data.draw(st.sampled_from(names)), data.draw(st.sampled_from(names)))
        if "".join(pair) not in names:
            names.append("".join(pair))
            pairs.append(pair)
    order = data.draw(st.permutations(pairs))
    numbers = data.draw(st.permutations(range(257 + len(pairs))))
    vocab = dict(zip([*CHARACTERS, *map("".join, pairs), END_OF_TEXT], numbers, strict=True))
    merges_txt = "\n".join(map(" ".join, order))
    try:
        ours, rows = from_vocab_and_merges(json.dumps(vocab).encode(), merges_txt.encode())
    except ValueError as error:
        assert "order" in str(error)
        return
    theirs = tokenizers.Tokenizer(tokenizers.models.BPE(vocab, order))
    for word in data.draw(st.lists(st.text("ab", min_size=1, max_size=24), min_size=3, max_size=6)):
        assert [rows[token] for token in ours.encode(word)] == theirs.encode(word).ids


def test_merges_that_tiktoken_s_rule_would_not_follow_are_refused():
    """abc is listed as a + bc, but of a b c, ab is merged first."""
    pairs = ["a b", "b c", "a bc"]
    names = [*CHARACTERS, "ab", "bc", "abc", END_OF_TEXT]
    vocab = json.dumps({name: number for number, name in enumerate(names)}).encode()
    with pytest.raises(ValueError, match="order"):
        from_vocab_and_merges(vocab, "\n".join(pairs).encode())
    from_vocab_and_merges(vocab, "\n".join([*pairs[:2], "ab c"]).encode())


def test_gpt2_s_characters_for_bytes_are_those_of_tokenizers():
    assert sorted(CHARACTERS) == sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    assert written(b" the\n") == "ĠtheĊ"
    assert all(run_of(written(run)) == run for run in [*BYTES, *LEARNED])


@pytest.mark.data
def test_openai_s_files_are_the_vocabulary_of_tiktoken():
    """vocab.json and merges.txt as OpenAI published them, which tiktoken's cache holds under other names."""
    merges_txt, vocab = sorted((data_folder() / "tiktoken").iterdir(), key=lambda file: file.stat().st_size)
    tokenizer, rows = from_vocab_and_merges(vocab.read_bytes(), merges_txt.read_bytes())
    assert tokenizer.ranks == gpt2_vocabulary().ranks and rows == list(range(50_257))


@thorough
@given(texts)
def test_a_tokenizer_comes_back_from_its_file(text):
    ours = BPETokenizer(BYTES + LEARNED, "gpt2")
    again, rows = from_tokenizer_json(json.dumps(to_tokenizer_json(ours)).encode())
    assert again.ranks == [*BYTES, *LEARNED] and rows == list(range(ours.vocab_size))
    assert again.encode(text).tolist() == ours.encode(text).tolist()


def test_a_token_of_absurd_length_is_refused_at_once():
    name = "a" * 2000
    vocab = {name: number for number, name in enumerate([*CHARACTERS, name, END_OF_TEXT])}
    with pytest.raises(ValueError):
        from_vocab_and_merges(json.dumps(vocab).encode(), f"a {name[1:]}".encode())


def test_what_could_be_read_as_end_of_text_is_not_written():
    with pytest.raises(ValueError, match="end-of-text"):
        to_tokenizer_json(BPETokenizer([*BYTES, END_OF_TEXT.encode()], "gpt2"))

"""Tokenizers: nothing is lost on the way to numbers and back, and a tokenizer.json can't do harm."""

import base64
import json
import re
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from configs.errors import UserError
from data.bpe import BPETokenizer, gpt2_tokenizer
from data.tokenizer import ByteTokenizer, CharTokenizer, Tokenizer, decode, first_token, read_tokenizer
from tests.conftest import gpt2_vocabulary

BYTES = [bytes([byte]) for byte in range(256)]
MERGED = [b"th", b"he", b"the", b"an", b"ing", b"in", "é".encode(), b" t", b"aa", b"aaaa"]
thorough = settings(deadline=None, max_examples=100)
PIECES = ["the", "an", " ", "  ", "\n", "\r\n", "\t", "'s", "'LL", "12", "é", "e\u0301", "😀", "中", "!?", "\xa0", "_"]
texts = st.text(max_size=60) | st.lists(st.sampled_from([*PIECES, "<|endoftext|>"]), max_size=30).map("".join)
TRICKY = "It's 12 o'clock,  I'LL say\r\n\n\t x_y e\u0301é 中文 😀 3rd--\xa0 <|endoftext|>  "


def small_bpe() -> BPETokenizer:
    """Ten merges, in an order in which some can't be used."""
    return BPETokenizer(BYTES + MERGED, "gpt2")


def alphabet_of(text: str) -> CharTokenizer:
    """Characters of a text, and one more where it is empty."""
    return CharTokenizer(text or "a", end_of_text=True)


def reread(tokenizer: Tokenizer) -> Tokenizer:
    """Through tokenizer.json and back."""
    return read_tokenizer(tokenizer.file, "tokenizer.json")


@thorough
@example(TRICKY)
@given(texts)
def test_decode_undoes_encode(text):
    for tokenizer in (alphabet_of(text), ByteTokenizer(), small_bpe()):
        tokens = tokenizer.encode(text)
        assert tokens.dtype == np.int64
        assert decode(tokenizer, tokens.tolist()) == text
        assert all(0 <= token < tokenizer.vocab_size for token in tokens.tolist())


@pytest.mark.data
@thorough
@example(text=TRICKY)
@given(text=texts)
def test_gpt2_gives_the_numbers_that_tiktoken_gives_and_the_text_back(text):
    import tiktoken

    gpt2 = gpt2_vocabulary()
    tokens = gpt2.encode(text).tolist()
    assert tokens == tiktoken.get_encoding("gpt2").encode_ordinary(text)
    assert decode(gpt2, tokens) == text


@pytest.mark.data
def test_gpt2_has_its_50257_tokens_and_end_of_text_is_the_last():
    import tiktoken

    gpt2, theirs = gpt2_vocabulary(), tiktoken.get_encoding("gpt2")
    assert gpt2.vocab_size == theirs.n_vocab == 50_257
    assert gpt2.end_of_text == theirs.eot_token
    assert all(gpt2.token_bytes(t) == theirs.decode_single_token_bytes(t) for t in range(0, 50_256, 7))


@thorough
@given(texts)
def test_characters_are_numbered_in_the_order_of_their_code_points(text):
    assume(text)
    alphabet = sorted(set(text))
    assert CharTokenizer(text).encode(text).tolist() == [alphabet.index(c) for c in text]


@thorough
@given(st.text(min_size=1), st.text(), st.text(), st.booleans())
def test_an_alphabet_grows_at_its_end_and_no_number_changes(first, second, third, end_of_text):
    old = CharTokenizer(first, end_of_text)
    new = reread(old.extended(second).extended(third))
    assert isinstance(new, CharTokenizer)
    assert [new.token_bytes(token) for token in range(old.vocab_size)] == [
        old.token_bytes(token) for token in range(old.vocab_size)
    ]
    assert new.end_of_text == old.end_of_text and new.vocab_size == len(set(first + second + third)) + end_of_text
    assert new.encode(first).tolist() == old.encode(first).tolist()
    for text in (first + second + third, third, ""):
        assert decode(new, new.encode(text).tolist()) == text
    assert new.extended(third + first).to_json() == new.to_json()


@thorough
@given(texts)
def test_bytes_are_their_own_numbers(text):
    assert ByteTokenizer().encode(text).tolist() == list(text.encode())


@thorough
@given(st.text("thenaig", max_size=20))
def test_bpe_merges_the_pair_that_was_learned_first_until_there_is_none(word):
    rank = {run: number for number, run in enumerate(BYTES + MERGED)}
    parts = [bytes([byte]) for byte in word.encode()]
    while pairs := [(rank[a + b], i) for i, (a, b) in enumerate(pairwise(parts)) if a + b in rank]:
        _, i = min(pairs)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    assert small_bpe().encode(word).tolist() == [rank[part] for part in parts]


@thorough
@given(texts)
def test_a_tokenizer_read_back_from_its_file_gives_the_same_numbers(text):
    for tokenizer in (alphabet_of(text), ByteTokenizer(), small_bpe()):
        again = reread(tokenizer)
        assert again.encode(text).tolist() == tokenizer.encode(text).tolist()
        assert (again.vocab_size, again.end_of_text) == (tokenizer.vocab_size, tokenizer.end_of_text)
        assert again.sha256 == tokenizer.sha256


def test_different_tokenizers_have_different_hashes():
    alphabets = [CharTokenizer("ab"), CharTokenizer("ab", end_of_text=True), CharTokenizer("abc")]
    swapped = BPETokenizer([*BYTES, *MERGED[::-1]], "gpt2")
    assert len({tokenizer.sha256 for tokenizer in (*alphabets, ByteTokenizer(), small_bpe(), swapped)}) == 6


@pytest.mark.data
def test_gpt2_read_back_from_its_file_gives_the_same_numbers():
    gpt2 = gpt2_vocabulary()
    assert reread(gpt2).encode(TRICKY).tolist() == gpt2.encode(TRICKY).tolist()


@thorough
@given(texts, texts)
def test_special_tokens_in_a_users_text_stay_text(before, after):
    text = before + "<|endoftext|>" + after
    for tokenizer in (alphabet_of(text), ByteTokenizer(), small_bpe()):
        tokens = tokenizer.encode(text).tolist()
        assert tokenizer.end_of_text not in tokens
        assert decode(tokenizer, tokens) == text


@pytest.mark.data
def test_special_tokens_stay_text_for_gpt2_too():
    gpt2 = gpt2_vocabulary()
    assert gpt2.end_of_text not in gpt2.encode("<|endoftext|>").tolist()


@pytest.mark.parametrize("tokenizer", [CharTokenizer("ab", end_of_text=True), ByteTokenizer(), small_bpe()])
def test_end_of_text_is_a_token_without_bytes_and_the_last(tokenizer):
    assert tokenizer.end_of_text == tokenizer.vocab_size - 1
    assert tokenizer.token_bytes(tokenizer.end_of_text) == b""
    assert all(tokenizer.token_bytes(token) for token in range(tokenizer.vocab_size - 1))


def test_a_character_the_network_has_never_seen_is_named():
    with pytest.raises(UserError, match="not in the vocabulary: 'x' '😀'"):
        CharTokenizer("abc").encode("ab😀cx")


def test_of_many_unknown_characters_ten_are_named():
    with pytest.raises(UserError) as caught:
        CharTokenizer("a").encode("bcdefghijklmnop")
    assert re.findall(r"'(.)'", str(caught.value)) == list("bcdefghijk")


@pytest.mark.parametrize("tokenizer", [CharTokenizer("ab"), ByteTokenizer()])
def test_half_a_surrogate_pair_is_no_text(tokenizer):
    with pytest.raises(UserError):
        tokenizer.encode("a\ud800b")


def test_bytes_that_are_no_text_become_replacement_characters():
    assert decode(ByteTokenizer(), [0x61, 0xC3, 0x62]) == "a\ufffdb"


@pytest.mark.parametrize(
    ("tokenizer", "text"), [(ByteTokenizer(), ""), (CharTokenizer("a\n "), "\n"), (CharTokenizer("a "), " ")]
)
def test_a_text_begins_after_end_of_text_else_a_line_break_else_a_space(tokenizer, text):
    assert decode(tokenizer, [first_token(tokenizer)]) == text


def test_without_a_network_gpt2_says_where_its_vocabulary_may_lie(tmp_path, monkeypatch):
    import tiktoken.load

    def offline(_: str) -> bytes:
        raise ConnectionError("no network")

    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(tiktoken.load, "read_file", offline)
    with pytest.raises(UserError, match=r"TIKTOKEN_CACHE_DIR.*--data.tokenizer byte"):
        gpt2_tokenizer()


def coded(runs: list[bytes]) -> list[str]:
    """Runs of bytes as tokenizer.json has them."""
    return [base64.b64encode(run).decode() for run in runs]


leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
anything = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner))
ranks = st.lists(st.binary(max_size=4), max_size=6).flatmap(lambda extra: st.permutations(BYTES + extra)).map(coded)
plausible = st.fixed_dictionaries(
    {"kind": st.sampled_from(["char", "byte", "bpe", "gpt2", ""]) | anything},
    optional={
        "characters": st.text(max_size=9).map(lambda text: "".join(sorted(set(text)))) | anything,
        "end_of_text": st.booleans() | anything,
        "more": st.text(max_size=5) | anything,
        "pattern": st.just("gpt2") | st.just("(a+)+$") | anything,
        "ranks": ranks | anything,
        "strange": anything,
    },
)


def is_harmless(content: str | bytes) -> None:
    """What a file holds is a tokenizer that loses nothing, or a user's mistake that names the file."""
    try:
        tokenizer = read_tokenizer(content, "runs/x/tokenizer.json")
    except UserError as error:
        assert str(error).startswith("runs/x/tokenizer.json is not a valid tokenizer")
    else:
        text = getattr(tokenizer, "characters", "the ünknown 😀 <|endoftext|>\n")
        assert decode(tokenizer, tokenizer.encode(text).tolist()) == text


@thorough
@given(anything.map(json.dumps) | plausible.map(json.dumps) | st.binary(max_size=40) | st.text(max_size=40))
def test_any_file_is_a_tokenizer_or_a_users_mistake(content):
    is_harmless(content)


@thorough
@given(extra=st.lists(st.binary(max_size=4), max_size=4), random=st.randoms(use_true_random=False))
def test_any_vocabulary_is_a_tokenizer_or_a_users_mistake(extra, random):
    runs = BYTES + extra
    random.shuffle(runs)
    is_harmless(json.dumps({"kind": "bpe", "pattern": "gpt2", "ranks": coded(runs)}))


@thorough
@given(place=st.floats(0, 1, exclude_max=True), byte=st.integers(0, 255), cut=st.booleans())
def test_a_damaged_file_is_a_tokenizer_or_a_users_mistake(place, byte, cut):
    content = bytearray(json.dumps(small_bpe().to_json()).encode())
    at = int(place * len(content))
    content[at : len(content) if cut else at + 1] = bytes([byte])
    is_harmless(bytes(content))


@pytest.mark.parametrize(
    "content",
    [
        "[" * 100_000,
        '{"kind":"char","characters":"\\ud800","end_of_text":false}',
        '{"kind":"char","characters":"ba","end_of_text":false}',
        '{"kind":"char","characters":"","end_of_text":false}',
        '{"kind":"char","characters":"ab","end_of_text":1}',
        '{"kind":"char","characters":"ab","more":"b"}',
        '{"kind":"char","characters":"ab","more":"cc"}',
        '{"kind":"char","characters":"ab","more":["c"]}',
        '{"kind":"byte","kind":"python"}',
        '{"kind":"byte","__class__":"os.system"}',
        json.dumps({"kind": "bpe", "pattern": "(a+)+$", "ranks": coded(BYTES)}),
        json.dumps({"kind": "bpe", "pattern": "gpt2", "ranks": coded([*BYTES[1:], b"ab"])}),
        json.dumps({"kind": "bpe", "pattern": "gpt2", "ranks": coded([*BYTES, b"ab", b"ab"])}),
        json.dumps({"kind": "bpe", "pattern": "gpt2", "ranks": [*coded(BYTES), "Y W I ="]}),
    ],
)
def test_a_hostile_file_is_refused(content):
    with pytest.raises(UserError, match=r"^tokenizer.json is not a valid tokenizer"):
        read_tokenizer(content, "tokenizer.json")

"""Our trainer of byte-pair encodings: the same tokens as rustbpe's, whatever the text."""

import random
from collections import Counter
from functools import cache
from itertools import pairwise

import pytest
import rustbpe
from hypothesis import given, settings
from hypothesis import strategies as st

import data.bpe
from configs.schema import DataConfig
from data.bpe import PATTERNS, count_words, learn_ranks, sample, train_bpe
from data.corpus import open_corpus
from data.find import python_stdlib
from data.tokenizer import decode
from tests.conftest import data_folder

thorough = settings(deadline=None, max_examples=50)


def english() -> list[str]:
    """Half of Tiny Shakespeare in two pieces."""
    text = (data_folder() / "tinyshakespeare.txt").read_text()
    return [text[at : at + 300_000] for at in range(0, 600_000, 300_000)]


@cache
def code() -> list[str]:
    """Some of Python's own source."""
    return [file.path.read_text("utf-8") for file in python_stdlib()[::12]]


@cache
def many_scripts() -> list[str]:
    """Invented words of Greek, Cyrillic, Arabic, Devanagari, Chinese, emoji and what may stand between them."""
    draw = random.Random(0)
    alphabets = ["αβγδεζη", "привет", "مرحبا", "नमस्ते", "中文汉字测试", "😀😃👍🏽\u200d", "naïveé", "0123456789"]
    words = ["".join(draw.choices(draw.choice(alphabets), k=draw.randint(1, 6))) for _ in range(400)]
    gaps = [" ", " ", "\n", "  ", "\r\n", "\t", "\xa0", "\u3000", "\x1c", "'s ", ", ", "。", "<|endoftext|>"]
    return ["".join(draw.choice(words) + draw.choice(gaps) for _ in range(5000)) for _ in range(3)]


def theirs(texts: list[str], vocab_size: int) -> list[bytes]:
    """The tokens that rustbpe learns."""
    tokenizer = rustbpe.Tokenizer()
    tokenizer.train_from_iterator(iter(texts), vocab_size - 1, pattern=PATTERNS["gpt2"])
    return [bytes(run) for run, _ in sorted(tokenizer.get_mergeable_ranks(), key=lambda entry: entry[1])]


@pytest.mark.parametrize("texts", [pytest.param(english, marks=pytest.mark.data), code, many_scripts])
@pytest.mark.parametrize("vocab_size", [257, 700, 2000])
def test_the_tokens_are_those_that_rustbpe_learns(texts, vocab_size):
    texts = texts()
    assert train_bpe(texts, vocab_size, 1).ranks == theirs(texts, vocab_size)


# Of the latest characters, which this Python doesn't know yet, regex and rustbpe may differ in which are letters.
known = st.text(st.characters(exclude_categories=["Cs", "Cn"]), max_size=10)


@thorough
@given(texts=st.lists(st.text("ab ", max_size=30) | known, max_size=5), vocab_size=st.integers(257, 300))
def test_the_tokens_are_those_that_rustbpe_learns_from_any_few_words_too(texts, vocab_size):
    assert train_bpe(texts, vocab_size, 1).ranks == theirs(texts, vocab_size)


@thorough
@given(st.dictionaries(st.text("abc", min_size=1, max_size=9), st.integers(1, 5), max_size=6), st.integers(256, 270))
def test_each_token_is_the_commonest_pair_of_those_before_it(counts, size):
    ranks = [bytes([byte]) for byte in range(256)]
    words = [(list(word.encode()), count) for word, count in counts.items()]
    while len(ranks) < size:
        pairs = Counter[tuple[int, int]]()
        for word, count in words:
            for pair in pairwise(word):
                pairs[pair] += count
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        for word, _ in words:
            for at in range(len(word) - 1):
                if tuple(word[at : at + 2]) == best:
                    word[at : at + 2] = [len(ranks)]
        ranks.append(ranks[best[0]] + ranks[best[1]])
    assert learn_ranks(Counter(counts), size) == ranks


def test_a_text_without_more_pairs_has_fewer_tokens_and_says_so(capsys):
    tokenizer = train_bpe(["abab abab"], 1000, 9)
    assert tokenizer.ranks[256:] == [b"ab", b"abab", b" abab"] and tokenizer.vocab_size == 260
    assert "only 260 of the requested 1,000 tokens could be learned" in capsys.readouterr().err


def test_a_tokenizer_encodes_its_own_words_as_single_tokens_and_gives_every_text_back():
    tokenizer = train_bpe(code()[:20], 600, 1)
    assert tokenizer.encode(" self").tolist() == [tokenizer.ranks.index(b" self")]
    assert decode(tokenizer, tokenizer.encode("ὦ 😀 <|endoftext|>").tolist()) == "ὦ 😀 <|endoftext|>"


@thorough
@given(sizes=st.lists(st.integers(1, 9), max_size=40), most=st.integers(1, 200))
def test_a_vocabulary_is_learned_from_a_bounded_part_that_is_spread_evenly(sizes, most):
    texts = [f"{number % 10}" * size for number, size in enumerate(sizes)]
    total = sum(sizes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data.bpe, "MOST", most)
        taken = list(sample(texts, total))
        halfway = list(sample(iter(texts[: len(texts) // 2]), total))
    assert sum(map(len, taken)) <= most and taken[: len(halfway)] == halfway
    if total <= most:
        assert taken == texts
    else:
        assert sum(map(len, taken)) > most - 9 - 9 * most / total
        share = sum(map(len, halfway)) - sum(sizes[: len(texts) // 2]) * most / total
        assert -9 - 9 * most / total < share <= 0


def test_of_a_large_text_it_is_said_how_much_is_learned_from(capsys, monkeypatch):
    monkeypatch.setattr(data.bpe, "MOST", 2_000_000)
    train_bpe(iter(["the end " * 100_000] * 10), 258, 8_000_000)
    assert "an evenly spaced 2 MB of 8 MB" in capsys.readouterr().err


def test_what_is_held_out_teaches_the_tokenizer_nothing(tmp_path):
    from data.prepare import prepare

    text = "ab cd " * 150 + "xyzzy " * 16
    (tmp_path / "a.txt").write_text(text)
    config = DataConfig(path=str(tmp_path / "a.txt"), tokenizer="bpe", vocab_size=300)
    tokenizer = prepare(open_corpus(config), config).tokenizer
    assert tokenizer.ranks[256:] == train_bpe([text[: int(0.9 * len(text))]], 300, 1).ranks[256:]
    assert not [run for run in tokenizer.ranks[256:] if b"zz" in run]


def test_words_are_what_the_pattern_cuts_a_text_into():
    assert count_words(["It's  so\n"], "gpt2", 1) == Counter({"It": 1, "'s": 1, " ": 1, " so": 1, "\n": 1})

"""Byte-pair encoding (Sennrich et al. 2016): tokens are frequent runs of bytes, learned from a corpus."""

import base64
import heapq
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable
from operator import add

import numpy as np

from configs.errors import UserError
from data.fetch import FILES, folders
from data.progress import progress
from data.tokenizer import Tokenizer

# A file names its split pattern; it never brings one, for a regex from a file can hang the machine.
PATTERNS = {
    "gpt2": r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s""",
}
MOST = 50_000_000  # bytes that a vocabulary is learned from


class BPETokenizer(Tokenizer):
    """One token per frequent run of bytes, encoded by tiktoken.

    `ranks` are the runs in the order in which they were learned; end-of-text follows them. Special tokens in
    a text stay text.
    """

    def __init__(self, ranks: list[bytes], pattern: str) -> None:
        import tiktoken

        self.ranks = ranks
        self.pattern = pattern
        self.end_of_text = len(ranks)
        self.vocab_size = len(ranks) + 1
        self.encoding = tiktoken.Encoding(
            "pellucid",
            pat_str=PATTERNS[pattern],
            mergeable_ranks={run: rank for rank, run in enumerate(ranks)},
            special_tokens={},
        )

    def encode(self, text: str) -> np.ndarray:
        return np.array(self.encoding.encode_ordinary(text), dtype=np.int64)  # its encode_to_numpy is slower

    def token_bytes(self, token: int) -> bytes:
        return b"" if token == self.end_of_text else self.ranks[token]

    def to_json(self) -> dict:
        ranks = [base64.b64encode(run).decode() for run in self.ranks]
        return {"kind": "bpe", "pattern": self.pattern, "ranks": ranks}


def gpt2_tokenizer() -> BPETokenizer:
    """GPT-2's own 50,257 tokens, through tiktoken (which downloads them once, checked by SHA-256)."""
    if "TIKTOKEN_CACHE_DIR" not in os.environ:  # its default is a guessable temporary folder
        found = [folder / "tiktoken" for folder in folders() if (folder / "tiktoken").is_dir()]
        os.environ["TIKTOKEN_CACHE_DIR"] = str((found or [FILES / "tiktoken"])[0])
    try:
        from tiktoken_ext.openai_public import gpt2

        table = gpt2()["mergeable_ranks"]
    except ImportError as error:
        raise UserError("data.tokenizer: gpt2 needs tiktoken: pip install tiktoken") from error
    except (OSError, ValueError) as error:
        raise UserError(
            "cannot download GPT-2's vocabulary; set TIKTOKEN_CACHE_DIR to a folder that has it, "
            "or choose --data.tokenizer byte"
        ) from error
    return BPETokenizer(sorted(table, key=table.__getitem__), "gpt2")


def train_bpe(texts: Iterable[str], vocab_size: int, total: int, pattern: str = "gpt2") -> BPETokenizer:
    """A tokenizer with `vocab_size` tokens, end-of-text included, learned from texts of `total` bytes.

    Of more than 50 MB it reads texts that are spread evenly over the whole, and says so.
    """
    if total > MOST:
        print(
            f"the vocabulary is learned from {MOST / 1e6:.0f} of {total / 1e6:,.0f} MB, drawn evenly", file=sys.stderr
        )
    ranks = learn_ranks(count_words(sample(texts, total), pattern, min(total, MOST)), vocab_size - 1)
    if len(ranks) < vocab_size - 1:
        print(
            f"this text has no more than {len(ranks) + 1:,} tokens to be learned, of {vocab_size:,} asked for",
            file=sys.stderr,
        )
    return BPETokenizer(ranks, pattern)


def sample(texts: Iterable[str], total: int) -> Iterable[str]:
    """As many of the texts as make up `MOST` bytes, evenly spread; all of them if there are no more."""
    seen = taken = 0
    for text in texts:
        size = len(text.encode())
        seen += size
        if (taken + size) * max(total, MOST) <= seen * MOST:
            taken += size
            yield text


def count_words(texts: Iterable[str], pattern: str, total: int) -> Counter[str]:
    """How often each word occurs: the pieces into which the pattern splits the texts, within which merges stay."""
    import regex

    words, find = Counter(), regex.compile(PATTERNS[pattern]).findall
    with progress("counting words", total) as bar:
        for text in texts:
            words.update(find(text))
            bar.update(len(text.encode()))
    return words


def learn_ranks(counts: Counter[str], size: int) -> list[bytes]:
    """All bytes, then the most frequent pair of tokens joined into a new one, again and again, to `size` tokens.

    A tie goes to the smaller pair of numbers. There are fewer tokens if no pairs are left. Here a word is a string
    whose characters are its tokens' numbers, so that merging a pair in it is `str.replace`.
    """
    words, times = [word.encode().decode("latin-1") for word in counts], list(counts.values())
    ranks = [bytes([byte]) for byte in range(256)]
    pairs: Counter[str] = Counter()  # how often two tokens are neighbours
    places: defaultdict[str, list[int]] = defaultdict(list)  # words in which they are, or once were
    for place, word in enumerate(words):
        for pair in map(add, word, word[1:]):
            pairs[pair] += times[place]
            places[pair].append(place)
    heap = [(-count, pair) for pair, count in pairs.items()]
    heapq.heapify(heap)
    with progress("learning tokens", size - len(ranks), unit="token") as bar:
        while heap and len(ranks) < size:
            count, pair = heapq.heappop(heap)
            if pairs[pair] < -count:  # it has become rarer since it was put there
                if pairs[pair]:
                    heapq.heappush(heap, (-pairs[pair], pair))
                continue
            token = chr(len(ranks))
            ranks.append(ranks[ord(pair[0])] + ranks[ord(pair[1])])
            new = merge(pair, token, words, times, pairs, places)
            for neighbours in new:
                heapq.heappush(heap, (-pairs[neighbours], neighbours))
            bar.update()
    return ranks


def merge(
    pair: str, token: str, words: list[str], times: list[int], pairs: Counter[str], places: dict[str, list[int]]
) -> set[str]:
    """Put the token where the pair is, in every word; returns the pairs that the token is now part of."""
    new = set()
    for place in places.pop(pair):
        old, count = words[place], times[place]
        if pair not in old:  # another merge was there before
            continue
        words[place] = word = old.replace(pair, token)
        for gone in map(add, old, old[1:]):
            pairs[gone] -= count
        for here in map(add, word, word[1:]):
            pairs[here] += count
            if token in here:
                new.add(here)
                places[here].append(place)
    return new

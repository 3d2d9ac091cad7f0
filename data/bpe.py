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

    A tie goes to the smaller pair of numbers. There are fewer tokens if no pairs are left.
    """
    ranks = [bytes([byte]) for byte in range(256)]
    words = Words(counts)
    heap = [(-count, pair) for pair, count in words.pairs.items()]
    heapq.heapify(heap)
    with progress("learning tokens", size - len(ranks), unit="token") as bar:
        while heap and len(ranks) < size:
            count, pair = heapq.heappop(heap)
            if (now := words.pairs[pair]) < -count:  # it has become rarer since it was put there
                if now:
                    heapq.heappush(heap, (-now, pair))
                continue
            token = chr(len(ranks))
            ranks.append(ranks[ord(pair[0])] + ranks[ord(pair[1])])
            for new in words.merge(pair, token):
                heapq.heappush(heap, (-words.pairs[new], new))
            bar.update()
    return ranks


class Words:
    """The words of a text as rows of tokens, and how often which two tokens are neighbours.

    A word is a string whose characters have its tokens' numbers, so that a merge is `str.replace`, a pair is a
    string of two, and pairs compare as their numbers do. Only words that hold a pair are touched by its merge.
    """

    def __init__(self, counts: Counter[str]) -> None:
        self.words = [word.encode().decode("latin-1") for word in counts]
        self.times = list(counts.values())
        self.pairs: Counter[str] = Counter()
        self.places: defaultdict[str, list[int]] = defaultdict(list)  # words that hold a pair, or once did
        for place in range(len(self.words)):
            self.count(place, "")

    def count(self, place: int, token: str) -> set[str]:
        """Count the pairs of a word; those with the token in them are new, so the place is noted. Returns these."""
        word, new = self.words[place], set()
        for pair in map(add, word, word[1:]):
            self.pairs[pair] += self.times[place]
            if token in pair:
                self.places[pair].append(place)
                new.add(pair)
        return new

    def merge(self, pair: str, token: str) -> set[str]:
        """Put the token where the pair is; returns the pairs that it is now part of."""
        new: set[str] = set()
        for place in self.places.pop(pair):
            word = self.words[place]
            if pair in word:  # no other merge was there before
                for gone in map(add, word, word[1:]):
                    self.pairs[gone] -= self.times[place]
                self.words[place] = word.replace(pair, token)
                new |= self.count(place, token)
        return new

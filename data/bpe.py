"""Byte-pair encoding (Sennrich et al. 2016): learn frequent byte sequences as tokens, and encode with them."""

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

# tokenizer.json stores the name of a split pattern, never a regex: a regex from a file can hang the machine.
PATTERNS = {
    "gpt2": r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s""",
}
MOST = 50_000_000  # bytes of text; a longer corpus is sampled to learn its vocabulary


class BPETokenizer(Tokenizer):
    """One token per frequent byte sequence; tiktoken does the encoding.

    `ranks` lists the sequences in the order in which they were learned; end-of-text comes after them. A special
    token that is spelled out in a text is encoded as ordinary text.
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
            mergeable_ranks={sequence: rank for rank, sequence in enumerate(ranks)},
            special_tokens={},
        )

    def encode(self, text: str) -> np.ndarray:
        return np.array(self.encoding.encode_ordinary(text), dtype=np.int64)  # encode_to_numpy is slower

    def token_bytes(self, token: int) -> bytes:
        return b"" if token == self.end_of_text else self.ranks[token]

    def to_json(self) -> dict:
        ranks = [base64.b64encode(sequence).decode() for sequence in self.ranks]
        return {"kind": "bpe", "pattern": self.pattern, "ranks": ranks}


def gpt2_tokenizer() -> BPETokenizer:
    """GPT-2's 50,257 tokens, from tiktoken, which downloads them once and checks their SHA-256."""
    if "TIKTOKEN_CACHE_DIR" not in os.environ:  # tiktoken's default is a temporary folder with a predictable name
        found = [folder / "tiktoken" for folder in folders() if (folder / "tiktoken").is_dir()]
        os.environ["TIKTOKEN_CACHE_DIR"] = str((found or [FILES / "tiktoken"])[0])
    try:
        from tiktoken_ext.openai_public import gpt2

        table = gpt2()["mergeable_ranks"]
    except ImportError as error:
        raise UserError("data.tokenizer=gpt2 needs tiktoken: pip install tiktoken") from error
    except (OSError, ValueError) as error:
        raise UserError(
            "cannot download GPT-2's vocabulary; set TIKTOKEN_CACHE_DIR to a folder that contains it, "
            "or use --data.tokenizer byte"
        ) from error
    return BPETokenizer(sorted(table, key=table.__getitem__), "gpt2")


def train_bpe(texts: Iterable[str], vocab_size: int, total: int, pattern: str = "gpt2") -> BPETokenizer:
    """A tokenizer of `vocab_size` tokens, including end-of-text, trained on texts of `total` bytes.

    From more than 50 MB it takes an evenly spaced sample, and prints that to stderr.
    """
    if total > MOST:
        print(
            f"learning the vocabulary from an evenly spaced {MOST / 1e6:.0f} MB of {total / 1e6:,.0f} MB",
            file=sys.stderr,
        )
    ranks = learn_ranks(count_words(sample(texts, total), pattern, min(total, MOST)), vocab_size - 1)
    if len(ranks) < vocab_size - 1:
        print(
            f"only {len(ranks) + 1:,} of the requested {vocab_size:,} tokens could be learned from this text",
            file=sys.stderr,
        )
    return BPETokenizer(ranks, pattern)


def sample(texts: Iterable[str], total: int) -> Iterable[str]:
    """Evenly spaced texts, at most `MOST` bytes together; all of the texts if they have no more than that."""
    read = taken = 0
    for text in texts:
        size = len(text.encode())
        read += size
        if (taken + size) * max(total, MOST) <= read * MOST:
            taken += size
            yield text


def count_words(texts: Iterable[str], pattern: str, total: int) -> Counter[str]:
    """How often each word occurs. Words are what the pattern splits the texts into; merges never cross them."""
    import regex

    words, find = Counter(), regex.compile(PATTERNS[pattern]).findall
    with progress("counting words", total) as bar:
        for text in texts:
            words.update(find(text))
            bar.update(len(text.encode()))
    return words


def learn_ranks(counts: Counter[str], size: int) -> list[bytes]:
    """The 256 bytes, then repeatedly the most frequent pair of tokens joined into a new one, up to `size` tokens.

    Ties go to the pair with the smaller token numbers. The list is shorter if no pairs are left.
    """
    ranks = [bytes([byte]) for byte in range(256)]
    words = Words(counts)
    heap = [(-count, pair) for pair, count in words.pairs.items()]
    heapq.heapify(heap)
    with progress("learning tokens", size - len(ranks), unit="token") as bar:
        while heap and len(ranks) < size:
            count, pair = heapq.heappop(heap)
            if (now := words.pairs[pair]) < -count:  # stale entry: other merges have made the pair rarer
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
    """The words of a text as sequences of tokens, and the count of every pair of adjacent tokens.

    A word is a string whose code points are its token numbers, so a merge is `str.replace`, a pair is a string of
    length 2, and pairs compare like their token numbers. A merge touches only the words that contain its pair.
    """

    def __init__(self, counts: Counter[str]) -> None:
        self.words = [word.encode().decode("latin-1") for word in counts]
        self.counts = list(counts.values())
        self.pairs: Counter[str] = Counter()
        self.containing: defaultdict[str, list[int]] = defaultdict(list)  # indices of words that have or had a pair
        for index in range(len(self.words)):
            self.count(index, "")

    def count(self, index: int, token: str) -> set[str]:
        """Count the pairs of a word. Those that contain `token` are new: list the word under them, and return them."""
        word, new = self.words[index], set()
        for pair in map(add, word, word[1:]):
            self.pairs[pair] += self.counts[index]
            if token in pair:
                self.containing[pair].append(index)
                new.add(pair)
        return new

    def merge(self, pair: str, token: str) -> set[str]:
        """Replace the pair with the token in every word; returns the new pairs, which contain the token."""
        new: set[str] = set()
        for index in self.containing.pop(pair):
            word = self.words[index]
            if pair in word:  # not already merged away
                for old in map(add, word, word[1:]):
                    self.pairs[old] -= self.counts[index]
                self.words[index] = word.replace(pair, token)
                new |= self.count(index, token)
        return new

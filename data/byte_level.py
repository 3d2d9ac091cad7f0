"""A byte-level BPE tokenizer in Hugging Face's files: vocab.json with merges.txt, or tokenizer.json.

There a token is written in printable characters, one for each byte, and BPE is a list of pairs to merge. Here and in
tiktoken it is a list of runs of bytes: any two neighbours that make up a run may be merged, the earliest run first.
`merges` is why the two are one and the same.
"""

import json
from itertools import count, pairwise
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from configs.schema import Settings
from data.bpe import BPETokenizer

END_OF_TEXT = "<|endoftext|>"
LONGEST = 1024  # bytes of one token; GPT-2's longest has 128
Name = Annotated[str, Field(min_length=1, max_length=2 * LONGEST)]
Number = Annotated[int, Field(ge=0, lt=2**24)]
Vocabulary = dict[Name, Number]


def byte_characters() -> list[str]:
    """GPT-2's character for each byte: its own in Latin-1 if that shows, else the next from U+0100 on."""
    shown = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = count(0x100)
    return [chr(byte if byte in shown else next(others)) for byte in range(256)]


CHARACTERS = byte_characters()
BYTES = {character: byte for byte, character in enumerate(CHARACTERS)}


def written(run: bytes) -> str:
    """A run of bytes as the files write it: " the" is "Ġthe"."""
    return "".join(CHARACTERS[byte] for byte in run)


def run_of(name: str) -> bytes:
    """The bytes that a name stands for. Raises ValueError if it has a character that stands for none."""
    try:
        return bytes(BYTES[character] for character in name)
    except KeyError as error:
        raise ValueError(f"{name!r:.60} is not written in GPT-2's characters for bytes") from error


def last_pair(run: bytes, rank: dict[bytes, int]) -> tuple[bytes, bytes] | None:
    """The two parts that `run` falls into before its own rank is used; None if other merges leave more of them."""
    parts = [bytes([byte]) for byte in run]
    ranks = [rank.get(a + b, len(rank)) for a, b in pairwise(parts)]
    while len(parts) > 2:
        first = min(ranks)
        if first == len(rank):
            return None
        i = ranks.index(first)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
        ranks[max(0, i - 1) : i + 2] = [rank.get(a + b, len(rank)) for a, b in pairwise(parts[max(0, i - 1) : i + 2])]
    return parts[0], parts[1]


def merges(ranks: list[bytes]) -> list[tuple[bytes, bytes]]:
    """The pairs that make tiktoken's rule a list of merges, in the order of the runs.

    While two neighbours inside a text make up a run, nothing has been merged across its ends, so what happened inside
    is what happens to the run alone, and that ends in one pair: no other can ever stand there. A run that alone ends
    in more than two parts is never made (but see `ignore_merges` below).
    """
    rank = {run: number for number, run in enumerate(ranks)}
    pairs = (last_pair(run, rank) for run in ranks if len(run) > 1)
    return [pair for pair in pairs if pair is not None]


class AddedToken(Settings):
    """A token that is looked for in the text before anything else."""

    model_config = ConfigDict(extra="ignore")
    id: Number
    content: Name
    special: bool


class ByteLevel(Settings):
    """GPT-2's pattern, which splits a text into words before bytes are merged."""

    model_config = ConfigDict(extra="ignore")
    type: Literal["ByteLevel"]
    add_prefix_space: Literal[False]
    use_regex: Literal[True] = True


class BPE(Settings):
    """What is merged."""

    model_config = ConfigDict(extra="ignore")
    type: Literal["BPE"] = "BPE"
    dropout: None = None
    continuing_subword_prefix: Literal["", None] = None
    end_of_word_suffix: Literal["", None] = None
    ignore_merges: bool = False
    """whether a word that is a token is taken whole; no difference where merges make every token, as they must here"""
    vocab: Vocabulary
    merges: list[Name | Annotated[list[Name], Field(min_length=2, max_length=2)]]


class TokenizerFile(Settings):
    """tokenizer.json of a byte-level BPE with GPT-2's pattern."""

    model_config = ConfigDict(extra="ignore")
    added_tokens: list[AddedToken] = Field(default_factory=list)
    normalizer: None = None
    pre_tokenizer: ByteLevel
    model: BPE


def from_tokenizer_json(content: bytes) -> tuple[BPETokenizer, list[int]]:
    """The tokenizer, and for each of its tokens the number that the file gives it.

    Raises ValueError for what isn't byte-level BPE with GPT-2's pattern, all bytes and one end-of-text.
    """
    file = TokenizerFile.model_validate_json(content)
    if [token.special for token in file.added_tokens] != [True]:
        raise ValueError(f"it has {len(file.added_tokens)} added tokens; one that is special, to end a text, is needed")
    (end,) = file.added_tokens  # `tokenizers` doesn't always list it in the vocabulary too
    pairs = [tuple(pair.split(" ") if isinstance(pair, str) else pair) for pair in file.model.merges]
    return assembled({end.content: end.id} | file.model.vocab, pairs, end.content)


def from_vocab_and_merges(vocab: bytes, merges_txt: bytes) -> tuple[BPETokenizer, list[int]]:
    """The same from vocab.json and merges.txt, where end-of-text is `<|endoftext|>`. Raises ValueError."""
    lines = merges_txt.decode().split("\n")
    pairs = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
    return assembled(BPE.model_validate({"vocab": json.loads(vocab), "merges": []}).vocab, pairs, END_OF_TEXT)


def assembled(vocab: Vocabulary, pairs: list[tuple[str, ...]], end_of_text: str) -> tuple[BPETokenizer, list[int]]:
    """A tokenizer that encodes as these files do, and its tokens' numbers there. Raises ValueError if there is none."""
    if any(len(pair) != 2 for pair in pairs):
        raise ValueError("a merge is not two tokens with a space between them")
    names = sorted((name for name in vocab if name in BYTES), key=vocab.__getitem__) + ["".join(pair) for pair in pairs]
    if len(set(names)) < len(names) or {*names, end_of_text} != vocab.keys() or end_of_text in names:
        raise ValueError(f"its vocabulary is not the bytes, one token for each merge and {end_of_text}")
    if sorted(vocab.values()) != list(range(len(vocab))):
        raise ValueError("its tokens are not numbered from 0 on, each once")
    ranks = [run_of(name) for name in names]
    if len(set(ranks) & {bytes([byte]) for byte in range(256)}) < 256:
        raise ValueError("it has no token for some of the 256 bytes")
    if max(map(len, ranks)) > LONGEST or merges(ranks) != [(run_of(a), run_of(b)) for a, b in pairs]:
        raise ValueError("its merges are not in the order in which they apply")
    return BPETokenizer(ranks, "gpt2"), [vocab[name] for name in [*names, end_of_text]]


def to_tokenizer_json(tokenizer: BPETokenizer) -> dict[str, Any]:
    """The content of tokenizer.json. Raises ValueError for a pattern that isn't GPT-2's."""
    if tokenizer.pattern != "gpt2":
        raise ValueError(f"tokenizer.json can't be written for the pattern {tokenizer.pattern}")
    vocab = {written(run): number for number, run in enumerate(tokenizer.ranks)} | {END_OF_TEXT: tokenizer.end_of_text}
    if len(vocab) < tokenizer.vocab_size:
        raise ValueError(f"one of its tokens is written {END_OF_TEXT}, as end-of-text is")
    pairs = [[written(a), written(b)] for a, b in merges(tokenizer.ranks)]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": tokenizer.end_of_text, "content": END_OF_TEXT, **flags}],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": byte_level | {"trim_offsets": False},
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": len(pairs) + 256 < len(tokenizer.ranks),  # tiktoken takes every token that is a word whole
            "vocab": vocab,
            "merges": pairs,
        },
    }


def to_tokenizer_config(context_length: int) -> dict[str, Any]:
    """The content of tokenizer_config.json: special tokens in a text stay text, as they do here."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": context_length,
        "bos_token": END_OF_TEXT,
        "eos_token": END_OF_TEXT,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "split_special_tokens": True,
    }

"""Read and write Hugging Face's files of a byte-level BPE tokenizer: vocab.json with merges.txt, or tokenizer.json.

Hugging Face writes a token in printable characters, one per byte, and lists the pairs to merge. This project and
tiktoken list byte sequences instead: two adjacent tokens may be merged if together they are in the list, and the
earliest in the list goes first. `merges` explains why both produce the same tokens.
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
    """GPT-2's printable character for each byte: the Latin-1 one if that is visible, else the next from U+0100 on."""
    visible = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = count(0x100)
    return [chr(byte if byte in visible else next(others)) for byte in range(256)]


CHARACTERS = byte_characters()
BYTES = {character: byte for byte, character in enumerate(CHARACTERS)}


def written(sequence: bytes) -> str:
    """A byte sequence as the files write it: b" the" -> "Ġthe"."""
    return "".join(CHARACTERS[byte] for byte in sequence)


def run_of(name: str) -> bytes:
    """The inverse of `written`. Raises ValueError for a character that stands for no byte."""
    try:
        return bytes(BYTES[character] for character in name)
    except KeyError as error:
        raise ValueError(f"{name!r:.60} contains a character that stands for no byte") from error


def last_pair(sequence: bytes, rank: dict[bytes, int]) -> tuple[bytes, bytes] | None:
    """The last two parts that merge into `sequence`; None if merging stops at more than two."""
    parts = [bytes([byte]) for byte in sequence]
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
    """The list of merges, in the order of `ranks`, that is equivalent to tiktoken's rule.

    If two adjacent tokens in a text together form a sequence of `ranks`, no merge has crossed that sequence's ends.
    The merges inside it were therefore those of the sequence on its own, which end in one particular pair, so no
    other pair can produce it. A sequence that on its own ends in more than two parts is never produced (but see
    `ignore_merges` below).
    """
    rank = {sequence: number for number, sequence in enumerate(ranks)}
    pairs = (last_pair(sequence, rank) for sequence in ranks if len(sequence) > 1)
    return [pair for pair in pairs if pair is not None]


class AddedToken(Settings):
    """A token that is matched in the text before everything else."""

    model_config = ConfigDict(extra="ignore")
    id: Number
    content: Name
    special: bool


class ByteLevel(Settings):
    """The step before BPE: GPT-2's pattern splits a text into words."""

    model_config = ConfigDict(extra="ignore")
    type: Literal["ByteLevel"]
    add_prefix_space: Literal[False]
    use_regex: Literal[True] = True


class BPE(Settings):
    """The vocabulary and its merges."""

    model_config = ConfigDict(extra="ignore")
    type: Literal["BPE"] = "BPE"
    dropout: None = None
    continuing_subword_prefix: Literal["", None] = None
    end_of_word_suffix: Literal["", None] = None
    ignore_merges: bool = False
    """whether a word that is a token skips the merges; no effect if merges produce every token, as `build` requires"""
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
    """The tokenizer, and the number of each of its tokens in the file.

    Raises ValueError unless it is a byte-level BPE with GPT-2's pattern, all 256 bytes and one end-of-text token.
    """
    file = TokenizerFile.model_validate_json(content)
    if [token.special for token in file.added_tokens] != [True]:
        raise ValueError(
            f"exactly one special token (end-of-text) is supported; got {len(file.added_tokens)} added tokens"
        )
    (end,) = file.added_tokens  # `tokenizers` does not always list it in the vocabulary too
    pairs = [tuple(pair.split(" ") if isinstance(pair, str) else pair) for pair in file.model.merges]
    return build({end.content: end.id} | file.model.vocab, pairs, end.content)


def from_vocab_and_merges(vocab: bytes, merges_txt: bytes) -> tuple[BPETokenizer, list[int]]:
    """The same, from vocab.json and merges.txt, with `<|endoftext|>` as end-of-text. Raises ValueError."""
    lines = merges_txt.decode().split("\n")
    pairs = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
    return build(BPE.model_validate({"vocab": json.loads(vocab), "merges": []}).vocab, pairs, END_OF_TEXT)


def build(vocab: Vocabulary, pairs: list[tuple[str, ...]], end_of_text: str) -> tuple[BPETokenizer, list[int]]:
    """The tokenizer that encodes as the files do, and its tokens' numbers in them. Raises ValueError if none does."""
    if any(len(pair) != 2 for pair in pairs):
        raise ValueError("every merge must be two tokens separated by a space")
    names = sorted((name for name in vocab if name in BYTES), key=vocab.__getitem__) + ["".join(pair) for pair in pairs]
    if len(set(names)) < len(names) or {*names, end_of_text} != vocab.keys() or end_of_text in names:
        raise ValueError(f"the vocabulary must be the 256 bytes, one token for each merge and {end_of_text}")
    if sorted(vocab.values()) != list(range(len(vocab))):
        raise ValueError("tokens must be numbered 0, 1, 2, ... without gaps or duplicates")
    ranks = [run_of(name) for name in names]
    if len(set(ranks) & {bytes([byte]) for byte in range(256)}) < 256:
        raise ValueError("some of the 256 bytes have no token")
    if max(map(len, ranks)) > LONGEST or merges(ranks) != [(run_of(a), run_of(b)) for a, b in pairs]:
        raise ValueError(f"merges must be in the order in which they apply, and tokens at most {LONGEST:,} bytes long")
    return BPETokenizer(ranks, "gpt2"), [vocab[name] for name in [*names, end_of_text]]


def to_tokenizer_json(tokenizer: BPETokenizer) -> dict[str, Any]:
    """The content of tokenizer.json. Raises ValueError if the format cannot represent the tokenizer."""
    if tokenizer.pattern != "gpt2":
        raise ValueError(f"tokenizer.json can only be written for the split pattern gpt2, not {tokenizer.pattern}")
    vocab = {written(token): i for i, token in enumerate(tokenizer.ranks)} | {END_OF_TEXT: tokenizer.end_of_text}
    if len(vocab) < tokenizer.vocab_size:
        raise ValueError(f"an ordinary token is spelled {END_OF_TEXT}, like end-of-text")
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
            "ignore_merges": len(pairs) + 256 < len(tokenizer.ranks),  # tiktoken never splits a word that is a token
            "vocab": vocab,
            "merges": pairs,
        },
    }


def to_tokenizer_config(context_length: int) -> dict[str, Any]:
    """The content of tokenizer_config.json: a special token in a text is ordinary text, as in this project."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": context_length,
        "bos_token": END_OF_TEXT,
        "eos_token": END_OF_TEXT,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "split_special_tokens": True,
    }

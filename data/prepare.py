"""Tokenize a corpus once, and cache the tokens under a hash of everything they depend on."""

import hashlib
import json
import sys
from pathlib import Path

from configs.errors import UserError
from configs.schema import DataConfig
from data.corpus import Corpus
from data.fetch import FILES
from data.shards import SHARD_BYTES, Damaged, Prepared, open_shards
from data.tokenizer import CharTokenizer, Tokenizer
from data.vocabulary import Choice, alphabet, chosen

VERSION = 1  # of everything that turns text into tokens, Index.format included; raise it to invalidate the cache
TOKENS = FILES / "tokens"


def prepare(corpus: Corpus, config: DataConfig, tokenizer: Tokenizer | None = None) -> Prepared:
    """The corpus, tokenized by `tokenizer`, or by the one that the settings specify; cached in data/files/tokens.

    The name of a cached folder is a hash of everything its tokens depend on, so it is never out of date. Raises
    UserError.
    """
    if corpus.tokens:
        return open_prepared(corpus.tokens, config, tokenizer)
    if config.extend and isinstance(tokenizer, CharTokenizer):
        tokenizer = tokenizer.extended(alphabet(corpus))
    wanted = tokenizer or chosen(config, corpus)
    match wanted:
        case Choice(kind, size, reason):
            made_by = [kind, size]
        case _:
            made_by, reason = wanted.sha256, "the network's tokenizer"
    ingredients = [VERSION, SHARD_BYTES, corpus.sha256, config.val_fraction, made_by]
    folder = TOKENS / hashlib.sha256(json.dumps(ingredients).encode()).hexdigest()[:32]
    if found := open_if_intact(folder, reason):
        return found
    from data.tokenizing import alone_in, interruptible, write

    with interruptible(), alone_in(folder.parent):
        found = open_if_intact(folder, reason)  # another process may have prepared it meanwhile
        if found is None:
            write(folder, corpus, config.val_fraction, wanted)
    return found or open_shards(folder, reason)


def open_prepared(folder: Path, config: DataConfig, tokenizer: Tokenizer | None) -> Prepared:
    """A folder of prepared tokens. Raises UserError if their tokenizer is not the one that is needed or requested."""
    found = open_shards(folder, "stored with the prepared tokens")
    if tokenizer and tokenizer.sha256 != found.tokenizer.sha256:
        raise UserError(f"data.path: {folder} was tokenized differently from this network; pass the original text")
    kind, requested = found.tokenizer.to_json()["kind"], config.tokenizer.replace("gpt2", "bpe")
    if not tokenizer and "tokenizer" in config.model_fields_set and requested not in ("auto", kind):
        raise UserError(f"data.tokenizer={config.tokenizer}, but {folder} was prepared with {kind}; use auto")
    return found


def open_if_intact(folder: Path, reason: str) -> Prepared | None:
    """The tokens in the folder; None if it does not exist or, with a warning, if it is damaged."""
    try:
        return open_shards(folder, reason) if folder.exists() else None
    except Damaged as error:
        print(f"warning: {error}; preparing the tokens again", file=sys.stderr)
        return None

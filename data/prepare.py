"""A corpus becomes tokens, once: what was prepared is found again by a hash of all that went in."""

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

# Of all that turns text into tokens, Index.format included: with another one, what was prepared before is not found and
# prepared again.
VERSION = 1
TOKENS = FILES / "tokens"


def prepare(corpus: Corpus, config: DataConfig, tokenizer: Tokenizer | None = None) -> Prepared:
    """The corpus as tokens of `tokenizer`, or of one that the settings ask for; made if they aren't there.

    They lie under data/files/tokens, in a folder named by a hash of all that they depend on, so that what is found
    there can't be out of date. Raises UserError.
    """
    if corpus.tokens:
        return as_it_is(corpus.tokens, config, tokenizer)
    if config.extend and isinstance(tokenizer, CharTokenizer):
        tokenizer = tokenizer.extended(alphabet(corpus))
    wanted = tokenizer or chosen(config, corpus)
    match wanted:
        case Choice(kind, size, reason):
            asked = [kind, size]
        case _:
            asked, reason = wanted.sha256, "it came with the network"
    ingredients = [VERSION, SHARD_BYTES, corpus.sha256, config.val_fraction, asked]
    folder = TOKENS / hashlib.sha256(json.dumps(ingredients).encode()).hexdigest()[:32]
    if found := whole(folder, reason):
        return found
    from data.tokenizing import alone_in, interruptible, write

    with interruptible(), alone_in(folder.parent):
        found = whole(folder, reason)  # another process may have been quicker
        if found is None:
            write(folder, corpus, config.val_fraction, wanted)
    return found or open_shards(folder, reason)


def as_it_is(folder: Path, config: DataConfig, tokenizer: Tokenizer | None) -> Prepared:
    """A corpus that was prepared before. Raises UserError if it has another tokenizer than is needed or asked for."""
    found = open_shards(folder, "it came with the tokens")
    if tokenizer and tokenizer.sha256 != found.tokenizer.sha256:
        raise UserError(f"data.path: {folder} was prepared with another tokenizer than the network has; give the text")
    kind, asked = found.tokenizer.to_json()["kind"], config.tokenizer.replace("gpt2", "bpe")
    if not tokenizer and "tokenizer" in config.model_fields_set and asked not in ("auto", kind):
        raise UserError(f"data.tokenizer={config.tokenizer}, but {folder} was prepared with {kind}; say auto")
    return found


def whole(folder: Path, reason: str) -> Prepared | None:
    """The tokens in the folder; None, with a warning, if they are damaged, and without one if there are none."""
    try:
        return open_shards(folder, reason) if folder.exists() else None
    except Damaged as error:
        print(f"warning: {error}; preparing it again", file=sys.stderr)
        return None

"""A network in a Hugging Face folder: config.json, weights in safetensors, the tokenizer's files; and the Hub's GPT-2s.

Only JSON and safetensors are read and written, and only what their strict models know. Nothing in a folder is run.
"""

import json
import re
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import ConfigDict, Field
from torch import Tensor

from configs.errors import UserError, reason
from configs.files import small, write_whole
from configs.schema import GPTConfig, Settings
from data.bpe import BPETokenizer, gpt2_tokenizer
from data.byte_level import from_tokenizer_json, from_vocab_and_merges, to_tokenizer_config, to_tokenizer_json
from data.tokenizer import Tokenizer
from model.gpt2 import GPT2Config, from_gpt2, full_name, gpt2_config, gpt2_shapes, to_gpt2
from model.neox import neox_config, to_neox
from training.tensorfile import open_tensors, write_tensors

HUB = "openai-community"  # where OpenAI's own weights are
PATIENCE = 10  # seconds until a server that doesn't answer counts as none
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
TOKENIZERS: dict[tuple[str, ...], Callable[..., tuple[BPETokenizer, list[int]]]] = {
    ("tokenizer.json",): from_tokenizer_json,
    ("vocab.json", "merges.txt"): from_vocab_and_merges,
}
PUBLISHED = ("config.json", "vocab.json", "merges.txt", SINGLE)  # what we need of OpenAI's repositories
LARGEST_VOCABULARY, MOST_TOKENS = 2**23, 2**21  # bytes of a tokenizer's file, and values; GPT-2's has 2 and 0.6 million
MOST_FILES = 256  # that one network is spread over
GPT2_TOKENS = 50257
FLOATS = {"F64", "F32", "F16", "BF16"}

T = TypeVar("T")


class Index(Settings):
    """model.safetensors.index.json: which file of the folder holds which tensor."""

    model_config = ConfigDict(extra="ignore")
    weight_map: dict[str, Annotated[str, Field(pattern=r"^[\w.-]+\.safetensors$", max_length=200)]]


def read_gpt2(folder: Path) -> tuple[GPTConfig, Tokenizer, dict[str, Tensor]]:
    """Network, tokenizer and weights, by our names, of a GPT-2.

    Raises UserError for a folder that holds no GPT-2, one that we can't express, or one that is damaged.
    """
    content = small(folder / "config.json")
    config = understood(folder / "config.json", lambda: GPT2Config.model_validate_json(content).ours())
    tokenizer, rows = read_tokenizer(folder, config.vocab_size)
    weights = from_gpt2(read_tensors(folder, config), config)
    for name in {"embedding.token.weight", "unembedding.weight"} & weights.keys():
        weights[name] = weights[name][rows]  # numbers of tokens are arbitrary: here the bytes come first
    return config, tokenizer, weights


def understood(file: Path, read: Callable[[], T]) -> T:
    """What `read` makes of the file's content. Raises UserError with its reason if it can't."""
    try:
        return read()
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} can't be used: {reason(error)}") from error


def read_tensors(folder: Path, config: GPTConfig) -> dict[str, Tensor]:
    """The folder's tensors by their full names, in float32; all names, shapes and types are checked before any is read.

    Raises UserError if they are not those of the config, or a number is not finite.
    """
    expected, places = gpt2_shapes(config), {}
    with ExitStack() as stack:
        for file in weight_files(folder):
            tensors = stack.enter_context(open_tensors(folder / file))
            for name in tensors.keys():
                if (full := full_name(name)) in places:
                    raise UserError(f"{folder}/{file}: {full} is there twice")
                if full is not None:
                    places[full] = tensors.get_slice(name)
        tied = places.pop("lm_head.weight", None) if config.tied else None
        check(folder, {name: (tuple(p.get_shape()), p.get_dtype()) for name, p in places.items()}, expected)
        found = {name: place[:].float() for name, place in places.items()}
        embedding = found["transformer.wte.weight"]
        if tied and (tuple(tied.get_shape()) != embedding.shape or not tied[:].float().equal(embedding)):
            raise UserError(f"{folder}: lm_head.weight differs from wte.weight, though config.json says they are tied")
    for name, tensor in found.items():
        if not tensor.isfinite().all():
            raise UserError(f"{folder}: {name} is not finite")
    return found


def weight_files(folder: Path) -> list[str]:
    """The names of the safetensors files in a folder. Raises UserError if there are none."""
    if (folder / SINGLE).is_file():
        return [SINGLE]
    if (folder / INDEX).is_file():
        content = small(folder / INDEX)
        files = set(understood(folder / INDEX, lambda: Index.model_validate_json(content)).weight_map.values())
        if len(files) > MOST_FILES:
            raise UserError(f"{folder / INDEX} names {len(files):,} files, more than {MOST_FILES}")
        return sorted(files)
    if any(folder.glob("pytorch_model*.bin")):
        raise UserError(
            f"{folder} has its weights in pytorch_model.bin alone, a pickle, which can run code when it is opened; "
            f"where you trust it, write {SINGLE} with transformers: model.save_pretrained(NEW_FOLDER)"
        )
    raise UserError(f"{folder} has a config.json but no weights: {SINGLE} or {INDEX} is missing")


def check(folder: Path, found: dict[str, tuple[tuple[int, ...], str]], expected: dict[str, tuple[int, ...]]) -> None:
    """Raises UserError unless these are the names and shapes expected, all of them floats."""
    for name in sorted(expected.keys() ^ found.keys()):
        state = "is missing" if name in expected else "has no place in the GPT-2 of its config.json"
        raise UserError(f"{folder}: {name[:80]} {state}")
    for name, (shape, dtype) in found.items():
        if shape != expected[name] or dtype not in FLOATS:
            raise UserError(f"{folder}: {name} is {dtype} {shape}, expected floats {expected[name]} by its config.json")


def read_tokenizer(folder: Path, vocab_size: int) -> tuple[BPETokenizer, list[int]]:
    """The folder's tokenizer and the numbers it gives our tokens; GPT-2's own where there is no file but its size fits.

    Raises UserError for one that does not encode as ours can, or has another size.
    """
    for names, read in TOKENIZERS.items():
        if all((folder / name).is_file() for name in names):
            contents = [small(folder / name, LARGEST_VOCABULARY, MOST_TOKENS) for name in names]
            tokenizer, rows = understood(folder / names[0], lambda: read(*contents))  # noqa: B023 - called at once
            break
    else:
        if vocab_size != GPT2_TOKENS:
            raise UserError(f"{folder} has no tokenizer: tokenizer.json, or vocab.json and merges.txt, is missing")
        tokenizer, rows = gpt2_tokenizer(), list(range(GPT2_TOKENS))
    if tokenizer.vocab_size != vocab_size:
        raise UserError(f"{folder} has {tokenizer.vocab_size:,} tokens, but config.json has vocab_size={vocab_size:,}")
    return tokenizer, rows


def write_network(folder: Path, config: GPTConfig, tokenizer: Tokenizer, weights: dict[str, Tensor]) -> None:
    """Write what `AutoModelForCausalLM.from_pretrained(folder)` loads, and `AutoTokenizer` if the tokenizer is BPE.

    With rotary positions it is a GPT-NeoX there, else a GPT-2. Raises UserError for a network or a tokenizer that can't
    be one.
    """
    describe, rename = (neox_config, to_neox) if config.position == "rotary" else (gpt2_config, to_gpt2)
    files = {"config.json": describe(config, tokenizer.end_of_text)}
    if isinstance(tokenizer, BPETokenizer):
        files["tokenizer.json"] = understood(folder / "tokenizer.json", lambda: to_tokenizer_json(tokenizer))
        files["tokenizer_config.json"] = to_tokenizer_config(config.context_length)
    write_tensors(folder / SINGLE, rename(weights, config))
    for name, content in files.items():
        write_whole(folder / name, json.dumps(content, indent=1) + "\n")


def download(name: str) -> Path:
    """The folder of one of OpenAI's four, from the Hub's cache or the Hub. Raises UserError if it can't be had."""
    otherwise = "or give --train.start a folder that holds config.json and model.safetensors"
    try:
        from huggingface_hub import HfApi, snapshot_download, try_to_load_from_cache
    except ImportError as error:
        raise UserError(f"{name} is downloaded by huggingface_hub: pip install huggingface_hub, {otherwise}") from error
    repository = f"{HUB}/{name}"
    cached = [try_to_load_from_cache(repository, file) for file in PUBLISHED]
    if isinstance(cached[0], str) and all(isinstance(file, str) for file in cached):
        return Path(cached[0]).parent
    try:
        HfApi().model_info(repository, timeout=PATIENCE, token=False)  # asks once; a download would ask for minutes
        return Path(snapshot_download(repository, allow_patterns=list(PUBLISHED), token=False))
    except Exception as error:  # of many libraries: no network, no such file, a full disk
        why = re.split(r"[\n(]", str(error).strip())[0] or type(error).__name__
        raise UserError(
            f"{name} can't be downloaded ({why[:100]}): try again with a network, {otherwise}", 1
        ) from error

"""Read and write networks as Hugging Face folders (config.json, safetensors, tokenizer), and download OpenAI's GPT-2s.

Only JSON and safetensors are read, and both are strictly validated; code in a folder is never run.
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

HUB = "openai-community"  # publishes OpenAI's GPT-2 weights
PATIENCE = 10  # seconds to wait for the Hub to answer
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
TOKENIZERS: dict[tuple[str, ...], Callable[..., tuple[BPETokenizer, list[int]]]] = {
    ("tokenizer.json",): from_tokenizer_json,
    ("vocab.json", "merges.txt"): from_vocab_and_merges,
}
PUBLISHED = ("config.json", "vocab.json", "merges.txt", SINGLE)  # the files we need from OpenAI's repositories
LARGEST_VOCABULARY, MOST_TOKENS = 2**23, 2**21  # a tokenizer file's bytes and values; GPT-2's: 2 and 0.6 million
MOST_FILES = 256  # per network
GPT2_TOKENS = 50257
FLOATS = {"F64", "F32", "F16", "BF16"}

T = TypeVar("T")


class Index(Settings):
    """model.safetensors.index.json: which file contains which tensor."""

    model_config = ConfigDict(extra="ignore")
    weight_map: dict[str, Annotated[str, Field(pattern=r"^[\w.-]+\.safetensors$", max_length=200)]]


def read_gpt2(folder: Path) -> tuple[GPTConfig, Tokenizer, dict[str, Tensor]]:
    """Config, tokenizer and weights (by our names) of a GPT-2.

    Raises UserError for a folder without a GPT-2, for a variant that we do not support, and for damaged files.
    """
    content = small(folder / "config.json")
    config = understood(folder / "config.json", lambda: GPT2Config.model_validate_json(content).ours())
    tokenizer, rows = read_tokenizer(folder, config.vocab_size)
    weights = from_gpt2(read_tensors(folder, config), config)
    for name in {"embedding.token.weight", "unembedding.weight"} & weights.keys():
        weights[name] = weights[name][rows]  # to our token numbers, in which the bytes come first
    return config, tokenizer, weights


def understood(file: Path, read: Callable[[], T]) -> T:
    """The result of `read`, whose ValueError becomes a UserError that names the file."""
    try:
        return read()
    except (ValueError, RecursionError) as error:
        raise UserError(f"cannot use {file}: {reason(error)}") from error


def read_tensors(folder: Path, config: GPTConfig) -> dict[str, Tensor]:
    """The folder's tensors by full name, in float32; names, shapes and types are all checked before any is read.

    Raises UserError if they do not match the config, or contain NaN or infinity.
    """
    expected, slices = gpt2_shapes(config), {}
    with ExitStack() as stack:
        for file in weight_files(folder):
            tensors = stack.enter_context(open_tensors(folder / file))
            for name in tensors.keys():
                if (full := full_name(name)) in slices:
                    raise UserError(f"{folder}/{file}: duplicate tensor {full}")
                if full is not None:
                    slices[full] = tensors.get_slice(name)
        tied = slices.pop("lm_head.weight", None) if config.tied else None
        check(folder, {name: (tuple(s.get_shape()), s.get_dtype()) for name, s in slices.items()}, expected)
        weights = {name: s[:].float() for name, s in slices.items()}
        embedding = weights["transformer.wte.weight"]
        if tied and (tuple(tied.get_shape()) != embedding.shape or not tied[:].float().equal(embedding)):
            raise UserError(f"{folder}: lm_head.weight differs from wte.weight, but config.json ties them")
    for name, tensor in weights.items():
        if not tensor.isfinite().all():
            raise UserError(f"{folder}: {name} contains NaN or infinity")
    return weights


def weight_files(folder: Path) -> list[str]:
    """The names of the safetensors files in a folder. Raises UserError if there are none."""
    if (folder / SINGLE).is_file():
        return [SINGLE]
    if (folder / INDEX).is_file():
        content = small(folder / INDEX)
        files = set(understood(folder / INDEX, lambda: Index.model_validate_json(content)).weight_map.values())
        if len(files) > MOST_FILES:
            raise UserError(f"{folder / INDEX} lists {len(files):,} files; at most {MOST_FILES} are allowed")
        return sorted(files)
    if any(folder.glob("pytorch_model*.bin")):
        raise UserError(
            f"{folder} has only pytorch_model.bin, a pickle that can run code when loaded; "
            f"if you trust it, convert it to {SINGLE} with transformers: model.save_pretrained(NEW_FOLDER)"
        )
    raise UserError(f"{folder} has a config.json but no weights ({SINGLE} or {INDEX})")


def check(folder: Path, found: dict[str, tuple[tuple[int, ...], str]], expected: dict[str, tuple[int, ...]]) -> None:
    """Raises UserError unless `found` has exactly the expected names and shapes, all floats."""
    for name in sorted(expected.keys() ^ found.keys()):
        state = "is missing" if name in expected else "is not in the GPT-2 that config.json describes"
        raise UserError(f"{folder}: {name[:80]} {state}")
    for name, (shape, dtype) in found.items():
        if shape != expected[name] or dtype not in FLOATS:
            raise UserError(
                f"{folder}: {name} is {dtype} {shape}, but config.json needs floats of shape {expected[name]}"
            )


def read_tokenizer(folder: Path, vocab_size: int) -> tuple[BPETokenizer, list[int]]:
    """The folder's tokenizer, and for each of our token numbers the folder's.

    A folder without tokenizer files gets GPT-2's if the vocabulary size matches.
    Raises UserError for a tokenizer that ours cannot reproduce, or whose size differs from config.json's.
    """
    for names, read in TOKENIZERS.items():
        if all((folder / name).is_file() for name in names):
            contents = [small(folder / name, LARGEST_VOCABULARY, MOST_TOKENS) for name in names]
            tokenizer, rows = understood(folder / names[0], lambda: read(*contents))  # noqa: B023 - called at once
            break
    else:
        if vocab_size != GPT2_TOKENS:
            raise UserError(f"{folder} has no tokenizer (tokenizer.json, or vocab.json and merges.txt)")
        tokenizer, rows = gpt2_tokenizer(), list(range(GPT2_TOKENS))
    if tokenizer.vocab_size != vocab_size:
        raise UserError(f"{folder} has {tokenizer.vocab_size:,} tokens, but config.json has vocab_size={vocab_size:,}")
    return tokenizer, rows


def write_network(folder: Path, config: GPTConfig, tokenizer: Tokenizer, weights: dict[str, Tensor]) -> None:
    """Write what `AutoModelForCausalLM.from_pretrained(folder)` loads, and `AutoTokenizer` if the tokenizer is BPE.

    The model is a GPT-NeoX if positions are rotary, else a GPT-2. Raises UserError for a network or a tokenizer that
    these cannot express.
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
    """The folder of one of OpenAI's four GPT-2s, cached or downloaded. Raises UserError if it is unavailable."""
    otherwise = "or pass --train.start a folder with config.json and model.safetensors"
    try:
        from huggingface_hub import HfApi, snapshot_download, try_to_load_from_cache
    except ImportError as error:
        raise UserError(
            f"downloading {name} needs huggingface_hub: pip install huggingface_hub, {otherwise}"
        ) from error
    repository = f"{HUB}/{name}"
    cached = [try_to_load_from_cache(repository, file) for file in PUBLISHED]
    if isinstance(cached[0], str) and all(isinstance(file, str) for file in cached):
        return Path(cached[0]).parent
    try:
        HfApi().model_info(repository, timeout=PATIENCE, token=False)  # fails fast; a download would retry for minutes
        return Path(snapshot_download(repository, allow_patterns=list(PUBLISHED), token=False))
    except Exception as error:  # many libraries raise their own: no network, no such file, a full disk
        why = re.split(r"[\n(]", str(error).strip())[0] or type(error).__name__
        raise UserError(
            f"cannot download {name} ({why[:100]}): connect to the network and try again, {otherwise}", 1
        ) from error

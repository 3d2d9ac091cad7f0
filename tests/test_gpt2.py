"""GPT-2 comes in: Hugging Face's folders give the logits that transformers gives, and a hostile one gives one line."""

import hashlib
import inspect
import json
import re
import shutil
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor

from configs.errors import UserError, one_line
from model import GPT
from model.gpt2 import ACTIVATIONS, BUFFERS, SYNONYMS, GPT2Config, from_gpt2, to_gpt2
from tests.conftest import ROOT
from tests.huggingface import SIZES, TEXT, drawn, pair, texts, transformers, write_folder
from training.checkpoint import load_weights, model_tensors
from training.huggingface import read_gpt2
from training.restore import restore
from training.start import Base

REASONABLE = {"n_layer": 3, "n_head": 4, "n_embd": 48}


def revived(base: Base) -> GPT:
    """The network of a base, with its weights."""
    model = GPT(base.model_config)
    load_weights(model, base.weights)
    return model.eval()


@torch.inference_mode()
def same_logits(theirs: Any, base: Base, rows: list[int] | None = None) -> None:
    """Both networks give the same logits to random texts, where their token `rows[i]` is our token i."""
    ours = revived(base)
    numbers = torch.tensor(rows or range(ours.config.vocab_size))
    tokens = texts(ours, 3, ours.config.context_length)
    torch.testing.assert_close(ours(tokens), theirs(numbers[tokens]).logits[..., numbers], rtol=0, atol=1e-5)


def folder_base(folder: Path) -> Base:
    """What a folder holds."""
    return Base(str(folder), *read_gpt2(folder))


@pytest.mark.parametrize("sizes", SIZES, ids=["smallest", "square", "untied", "without biases"])
def test_there_and_back_is_where_we_were(sizes):
    model, _ = pair(**sizes)
    weights = model_tensors(model)
    again = from_gpt2(to_gpt2(weights, model.config), model.config)
    assert weights.keys() <= again.keys()
    for name, tensor in again.items():
        assert tensor.equal(weights[name]) if name in weights else not tensor.any(), name
    assert (weights.keys() == again.keys()) == model.config.bias


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("shard_size", ["5GB", "20KB"], ids=["one file", "shards"])
@pytest.mark.parametrize("shape", [{}, REASONABLE], ids=["small", "larger"])
def test_a_folder_of_theirs_gives_their_logits(tmp_path, tied, shard_size, shape):
    theirs = write_folder(tmp_path, shard_size=shard_size, tie_word_embeddings=tied, **shape)
    assert (len(list(tmp_path.glob("model*.safetensors"))) > 1) == (shard_size == "20KB")
    base = folder_base(tmp_path)
    assert base.model_config.tied == tied and ("unembedding.weight" in base.weights) != tied
    same_logits(theirs, base)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_is_the_one_they_mean(tmp_path, activation):
    same_logits(write_folder(tmp_path, activation_function=activation), folder_base(tmp_path))


def test_biases_that_are_all_zero_stay_biases(tmp_path):
    theirs = write_folder(tmp_path)
    for name, parameter in theirs.named_parameters():
        if name.endswith("bias"):
            parameter.data.zero_()
    theirs.save_pretrained(tmp_path)
    base = folder_base(tmp_path)
    assert base.model_config.bias and "blocks.1.mlp.layers.0.bias" in base.weights
    same_logits(theirs, base)


def rewrite(folder: Path, change: Any) -> None:
    """Replace the folder's tensors by what `change` makes of them."""
    file = folder / "model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})


def in_old_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """As OpenAI's weights lie on the Hub: no prefix, the causal mask among the weights."""
    old = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    masks = {f"h.{n}.attn.bias": torch.ones(1, 1, 16, 16).tril() for n in range(2)}
    return old | masks | {f"h.{n}.attn.masked_bias": torch.tensor(-1e4) for n in range(2)}


def test_old_names_and_stored_masks_are_understood(tmp_path):
    theirs = write_folder(tmp_path)
    rewrite(tmp_path, in_old_names)
    assert all(any(name.endswith(b) for name in load_file(tmp_path / "model.safetensors")) for b in BUFFERS)
    same_logits(theirs, folder_base(tmp_path))
    same_logits(transformers.GPT2LMHeadModel.from_pretrained(tmp_path).eval(), folder_base(tmp_path))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_become_float32_exactly(tmp_path, dtype):
    write_folder(tmp_path)
    rewrite(tmp_path, lambda tensors: {name: tensor.to(dtype) for name, tensor in tensors.items()})
    stored = load_file(tmp_path / "model.safetensors")["transformer.wte.weight"]
    weight = folder_base(tmp_path).weights["embedding.token.weight"]
    assert weight.dtype == torch.float32 and weight.double().equal(stored.double())


def test_a_tied_head_that_is_stored_too_must_be_the_embedding(tmp_path):
    theirs = write_folder(tmp_path)
    rewrite(tmp_path, lambda tensors: tensors | {"lm_head.weight": tensors["transformer.wte.weight"].clone()})
    same_logits(theirs, folder_base(tmp_path))
    rewrite(tmp_path, lambda tensors: tensors | {"lm_head.weight": tensors["lm_head.weight"] * 2})
    with pytest.raises(UserError, match=r"lm_head.weight differs"):
        folder_base(tmp_path)


def test_a_vocabulary_that_begins_with_end_of_text_is_put_in_our_order(tmp_path):
    """Tokens' numbers are arbitrary: permuting them and the rows of the embedding together changes nothing."""
    from tokenizers import Tokenizer

    theirs = write_folder(tmp_path, end_first=True, tie_word_embeddings=False)
    their_tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    base = folder_base(tmp_path)
    assert base.tokenizer.end_of_text == 299 and their_tokenizer.token_to_id("<|endoftext|>") == 0
    rows = {}
    for text in (TEXT, *map(chr, range(0xA0))):
        rows |= dict(zip(base.tokenizer.encode(text).tolist(), their_tokenizer.encode(text).ids, strict=True))
    numbers = [rows[token] for token in sorted(rows)]
    assert len(rows) > 100 and numbers != sorted(rows)
    model = revived(base)
    ours = torch.tensor([sorted(rows)[:16]])
    with torch.inference_mode():
        mine, other = model(ours), theirs(torch.tensor([numbers[:16]])).logits
    torch.testing.assert_close(mine[..., sorted(rows)], other[..., numbers], rtol=0, atol=1e-5)


@pytest.mark.data
def test_without_tokenizer_files_50257_tokens_are_gpt_2_s_own(tmp_path):
    from tests.conftest import gpt2_vocabulary

    small = transformers.GPT2Config(n_layer=1, n_head=1, n_embd=4, n_positions=8)
    theirs = drawn(transformers.GPT2LMHeadModel(small))
    theirs.save_pretrained(tmp_path)
    base = folder_base(tmp_path)
    assert base.tokenizer.to_json() == gpt2_vocabulary().to_json()
    same_logits(theirs, base)


def test_all_that_transformers_reads_of_a_config_is_known():
    """Every attribute that GPT-2's code asks its config for is one that we read, or has no effect on the logits."""
    from transformers.models.gpt2 import modeling_gpt2 as theirs

    parts = (theirs.GPT2Attention, theirs.GPT2MLP, theirs.GPT2Block, theirs.GPT2Model, theirs.GPT2LMHeadModel)
    read = {name for part in parts for name in re.findall(r"config\.(\w+)", inspect.getsource(part))}
    without_effect = {"initializer_range", "use_cache", "_attn_implementation"}
    assert len(read) > 10 and read <= GPT2Config.model_fields.keys() | SYNONYMS.keys() | without_effect
    assert transformers.GPT2Config.attribute_map == SYNONYMS


def test_defaults_are_those_of_transformers():
    ours, theirs = GPT2Config(model_type="gpt2"), transformers.GPT2Config().to_dict()
    for name in GPT2Config.model_fields:
        assert getattr(ours, name) == theirs.get(name), name


def test_a_size_under_its_general_name_is_read():
    given = {"model_type": "gpt2", "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 3}
    ours = GPT2Config.model_validate(given | {"max_position_embeddings": 128}).ours()
    assert (ours.n_embd, ours.n_head, ours.n_layer, ours.context_length) == (64, 4, 3, 128)
    with pytest.raises(ValidationError, match="n_head has two values"):
        GPT2Config.model_validate(given | {"n_head": 2})


UNSUPPORTED = {
    "model_type": "llama",
    "activation_function": "swish",
    "scale_attn_by_inverse_layer_idx": True,
    "reorder_and_upcast_attn": True,
    "scale_attn_weights": False,
    "add_cross_attention": True,
    "n_inner": 100,
    "layer_norm_epsilon": 1e-6,
    "auto_map": {"AutoModelForCausalLM": "modeling.Evil"},
    "quantization_config": {"bits": 4},
    "n_head": 5,
    "n_layer": 10**9,
    "n_positions": 1,
    "vocab_size": "300",
    "attn_pdrop": 1.0,
    "n_embd": -1,
}


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    """A folder that is as it should be, not to be changed."""
    folder = tmp_path_factory.mktemp("good")
    write_folder(folder)
    return folder


@pytest.fixture
def folder(good, tmp_path) -> Path:
    """A copy of it, to be spoilt."""
    return Path(shutil.copytree(good, tmp_path / "spoilt"))


def refused(folder: Path) -> str:
    """The one line that refuses a folder."""
    with pytest.raises(UserError) as caught:
        read_gpt2(folder)
    message = str(caught.value)
    assert "\n" not in message and len(one_line(message)) < 700
    return message


def change_json(file: Path, **changes: Any) -> None:
    """Replace some keys of a JSON file."""
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize("key", UNSUPPORTED)
def test_a_config_that_ours_is_not_is_refused_by_its_key(folder, key):
    change_json(folder / "config.json", **{key: UNSUPPORTED[key]})
    message = refused(folder)
    assert (
        "cannot use" in message and "config.json" in message and key in message.replace("context_length", "n_positions")
    )


def test_keys_without_effect_are_ignored(folder):
    more = {"task_specific_params": {"text-generation": {"max_length": 50}}, "n_ctx": 16, "summary_type": "mean"}
    change_json(folder / "config.json", **more, initializer_range=0.5, use_cache=False, _name_or_path="x")
    assert read_gpt2(folder)[0].n_embd == 32


def drop(*names: str):
    """Without these tensors."""
    return lambda tensors: {name: tensor for name, tensor in tensors.items() if name not in names}


def put(name: str, value: Tensor):
    """With this tensor."""
    return lambda tensors: tensors | {name: value}


WTE, FC = "transformer.wte.weight", "transformer.h.1.mlp.c_fc.weight"
TENSORS = {
    "a tensor is missing": (drop(FC), [FC, "is missing"]),
    "a tensor too many": (put("score.weight", torch.zeros(2, 32)), ["transformer.score.weight", "is not in the GPT-2"]),
    "a layer too many": (
        put("transformer.h.2.ln_1.weight", torch.ones(32)),
        ["h.2.ln_1.weight", "is not in the GPT-2"],
    ),
    "our layout, not theirs": (lambda t: t | {FC: t[FC].T.contiguous()}, [FC, "(128, 32)", "(32, 128)"]),
    "a vector for a matrix": (put(WTE, torch.zeros(300 * 32)), [WTE, "(9600,)"]),
    "a scalar": (put(WTE, torch.tensor(1.0)), [WTE, "()"]),
    "whole numbers": (put(WTE, torch.zeros(300, 32, dtype=torch.int8)), [WTE, "I8"]),
    "not a number": (
        put("transformer.ln_f.bias", torch.full((32,), torch.nan)),
        ["ln_f.bias contains NaN or infinity"],
    ),
    "infinite": (put("transformer.ln_f.bias", torch.full((32,), torch.inf)), ["ln_f.bias contains NaN or infinity"]),
    "too large for float32": (
        put("transformer.ln_f.bias", torch.full((32,), 1e300, dtype=torch.float64)),
        ["ln_f.bias contains NaN or infinity"],
    ),
    "one tensor under two names": (lambda t: t | {"wte.weight": t[WTE].clone()}, [WTE, "duplicate"]),
}


@pytest.mark.parametrize("mistake", TENSORS)
def test_weights_that_do_not_fit_the_config_are_refused(folder, mistake):
    change, words = TENSORS[mistake]
    rewrite(folder, change)
    message = refused(folder)
    assert all(word in message for word in words), message


def hostile_header(folder: Path, count: int) -> None:
    """A file that claims so many tensors of no numbers at all."""
    one = b'"transformer.%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    header = b"{" + b",".join(one % n for n in range(count)) + b"}"
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)


def test_a_claim_of_many_tensors_costs_no_time(folder):
    hostile_header(folder, 300_000)
    assert "too large a header" in refused(folder)
    hostile_header(folder, 20_000)
    assert "transformer.0 is not in the GPT-2" in refused(folder)


@pytest.mark.parametrize("name", ["../good.safetensors", "/etc/x.safetensors", "a/b.safetensors", "..", "model.bin"])
def test_an_index_that_leads_out_of_the_folder_is_refused(folder, name):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {WTE: name}}))
    assert "index.json: " in refused(folder)


def test_an_index_whose_files_are_missing_is_refused(folder):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {WTE: "gone.safetensors"}}))
    assert "gone.safetensors" in refused(folder)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {}}))
    assert "is missing" in refused(folder)


def test_a_pickle_is_not_opened(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    message = refused(folder)
    assert "run code" in message and "save_pretrained" in message


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "model.safetensors.index.json"])
@pytest.mark.parametrize("content", ["[" * 10_000, '{"a":' * 10_000, "", "nul", "\x00", "{}", "3", "[]", '"gpt2"'])
def test_json_that_is_not_what_it_should_be_is_refused(folder, file, content):
    (folder / file).write_text(content)
    (folder / "model.safetensors").rename(folder / "other.safetensors")
    assert file in refused(folder)


VOCAB = {name: number for number, name in enumerate([*"abc", "ab"])}
TOKENIZERS: dict[str, tuple[Any, str]] = {
    "another pattern": (lambda t: t | {"pre_tokenizer": {"type": "Whitespace"}}, "pre_tokenizer"),
    "a space in front": (lambda t: t | {"pre_tokenizer": t["pre_tokenizer"] | {"add_prefix_space": True}}, "add_"),
    "a normalizer": (lambda t: t | {"normalizer": {"type": "Lowercase"}}, "normalizer"),
    "another model": (lambda t: t | {"model": t["model"] | {"type": "WordPiece"}}, "model.type"),
    "merges left out by chance": (lambda t: t | {"model": t["model"] | {"dropout": 0.1}}, "dropout"),
    "no end of text": (lambda t: t | {"added_tokens": []}, "added tokens"),
    "an ordinary added token": (
        lambda t: t | {"added_tokens": [t["added_tokens"][0] | {"special": False}]},
        "added tokens",
    ),
    "a merge too few": (lambda t: t | {"model": t["model"] | {"merges": t["model"]["merges"][1:]}}, "one token for"),
    "not every byte": (lambda t: t | {"model": {"vocab": VOCAB | {"<|endoftext|>": 4}, "merges": ["a b"]}}, "256"),
    "garbage for merges": (lambda t: t | {"model": t["model"] | {"merges": ["a", "b c d"]}}, "merge"),
    "numbers with a gap": (
        lambda t: t | {"model": t["model"] | {"vocab": t["model"]["vocab"] | {"<|endoftext|>": 999}}},
        "numbered",
    ),
    "one number twice": (
        lambda t: t | {"model": t["model"] | {"vocab": t["model"]["vocab"] | {"<|endoftext|>": 5}}},
        "numbered",
    ),
}


@pytest.mark.parametrize("mistake", TOKENIZERS)
def test_a_tokenizer_that_ours_is_not_is_refused(folder, mistake):
    change, word = TOKENIZERS[mistake]
    file = folder / "tokenizer.json"
    file.write_text(json.dumps(change(json.loads(file.read_text()))))
    message = refused(folder)
    assert "tokenizer.json: " in message and word in message


def split_files(folder: Path) -> None:
    """vocab.json and merges.txt instead of tokenizer.json."""
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    pairs = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    vocab = model["vocab"] | {"<|endoftext|>": 299}
    (folder / "vocab.json").write_text(json.dumps(vocab))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *pairs, ""]), encoding="utf-8")
    (folder / "tokenizer.json").unlink()


def test_vocab_and_merges_say_the_same_as_tokenizer_json(folder, good):
    split_files(folder)
    _, ours, weights = read_gpt2(folder)
    _, expected, expected_weights = read_gpt2(good)
    assert ours.to_json() == expected.to_json()
    assert all(tensor.equal(expected_weights[name]) for name, tensor in weights.items())


@pytest.mark.parametrize("content", [b"a", b"\xff\xfe", b"a b c\n", b"x y\n", b" \n" * 5000, "é ü\n".encode()])
def test_garbage_for_merges_is_refused(folder, content):
    split_files(folder)
    (folder / "merges.txt").write_bytes(content)
    assert "vocab.json: " in refused(folder)


def test_a_vocabulary_of_another_size_is_refused(folder):
    write_folder(folder, size=301)
    shutil.copy(folder / "tokenizer.json", folder / "t.json")
    write_folder(folder, size=300)
    shutil.move(folder / "t.json", folder / "tokenizer.json")
    assert "301 tokens" in refused(folder) and "vocab_size=300" in refused(folder)


def test_a_folder_without_a_tokenizer_says_which_file_it_wants(folder):
    (folder / "tokenizer.json").unlink()
    assert "tokenizer.json, or vocab.json and merges.txt" in refused(folder)


FILES = ["config.json", "tokenizer.json", "model.safetensors", "vocab.json", "merges.txt"]


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(FILES), st.floats(0, 1), st.binary(max_size=6), st.integers(0, 3), st.booleans())
def test_a_damaged_folder_is_read_right_or_refused_in_one_line(good, tmp_path_factory, file, where, new, cut, tail):
    """Bytes overwritten, inserted, removed or cut off, anywhere in any file."""
    folder = Path(shutil.copytree(good, tmp_path_factory.mktemp("m") / "x"))
    if file in ("vocab.json", "merges.txt"):
        split_files(folder)
    content = (folder / file).read_bytes()
    at = int(where * len(content))
    (folder / file).write_bytes(content[:at] + new + (b"" if tail else content[at + cut :]))
    try:
        config, tokenizer, weights = read_gpt2(folder)
    except UserError as error:
        assert "\n" not in str(error)
    else:
        model = GPT(config)
        load_weights(model, weights)
        assert tokenizer.vocab_size == config.vocab_size
        assert all(tensor.isfinite().all() for tensor in model_tensors(model).values())
    shutil.rmtree(folder)


def fingerprint(folder: Path) -> dict[str, str]:
    """SHA-256 of every file."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


SHORT = ["--train.batch_size", "2", "--train.threads", "1", "--log.sample_tokens", "0", "--data.val_fraction", "0.2"]


@pytest.fixture
def own_text(workplace) -> list[str]:
    """The words that fine-tune on a text, but for where from."""
    (workplace / "own.txt").write_text(TEXT)
    (workplace / "own.toml").write_text('[data]\npath = "own.txt"\n[train]\nsteps = 0\n')
    return ["own.toml", *SHORT, "--train.start"]


def test_training_starts_from_a_folder_and_leaves_it_as_it_was(shell, own_text, good):
    before = fingerprint(good)
    code, _, err = shell("train.py", *own_text, good)
    assert code == 0 and f"starting from the Hugging Face folder {good}" in err
    assert fingerprint(good) == before
    code, out, _ = shell("sample.py", "own", "--prompt", "How much", "--temperature", "0", "--max-tokens", "8")
    theirs = transformers.GPT2LMHeadModel.from_pretrained(good)
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(good / "tokenizer.json"))
    prompt = tokenizer("How much", return_tensors="pt").input_ids
    written = theirs.generate(prompt, max_new_tokens=8, do_sample=False, pad_token_id=0)
    assert code == 0 and out.strip("\n") == tokenizer.decode(written[0]).strip("\n")
    assert shell("train.py", *own_text, good, "--train.steps", "3", "--overwrite")[0] == 0
    assert fingerprint(good) == before


def test_own_text_goes_on_from_a_folder_whose_network_stays_what_it_is(shell, workplace, good):
    (workplace / "own.txt").write_text(TEXT)
    words = [str(ROOT / "configs/text.toml"), "--data.path", "own.txt", "--run", "own", *SHORT, "--train.steps", "0"]
    assert shell("train.py", *words, "--train.start", good)[0] == 0
    theirs = transformers.GPT2LMHeadModel.from_pretrained(good).eval()
    ours = restore("own").model
    tokens = texts(ours, 2, ours.config.context_length)
    torch.testing.assert_close(ours(tokens), theirs(tokens).logits, atol=1e-4, rtol=1e-4)


class Hub(types.ModuleType):
    """huggingface_hub as it would be with this network and cache; keeps what was asked of it."""

    def __init__(self, folder: Path, cached: bool = False, error: Exception | None = None) -> None:
        super().__init__("huggingface_hub")
        self.folder, self.cached, self.error = folder, cached, error
        self.downloads: list[tuple[str, dict[str, Any]]] = []
        self.HfApi = lambda: self

    def try_to_load_from_cache(self, repository: str, file: str) -> str | None:
        return str(self.folder / file) if self.cached else None

    def model_info(self, repository: str, *, timeout: float, token: bool) -> None:
        assert timeout <= 10 and token is False
        if self.error:
            raise self.error

    def snapshot_download(self, repository: str, **options: Any) -> str:
        self.downloads.append((repository, options))
        return str(self.folder)


@pytest.fixture
def hub(monkeypatch, good, tmp_path) -> Hub:
    """A Hub that has what OpenAI's repositories have."""
    split_files(Path(shutil.copytree(good, tmp_path / "hub")))
    monkeypatch.setitem(sys.modules, "huggingface_hub", Hub(tmp_path / "hub"))
    return sys.modules["huggingface_hub"]


@pytest.mark.parametrize("name", ["gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl", "openai-community/gpt2"])
def test_openai_s_names_are_downloaded_without_pickles_or_credentials(shell, own_text, hub, name):
    assert shell("train.py", *own_text, name)[0] == 0
    ((repository, options),) = hub.downloads
    assert repository == f"openai-community/{name.removeprefix('openai-community/')}"
    assert options["token"] is False
    assert sorted(options["allow_patterns"]) == ["config.json", "merges.txt", "model.safetensors", "vocab.json"]


def test_what_was_downloaded_before_needs_no_network(shell, own_text, hub):
    hub.cached, hub.error = True, OSError("no network")
    code, _, err = shell("train.py", *own_text, "gpt2")
    assert code == 0 and str(hub.folder) in err and not hub.downloads


def test_a_run_comes_before_openai_s_network_of_the_same_name(shell, own_text, hub, good):
    assert shell("train.py", *own_text, good, "--run", "gpt2")[0] == 0
    code, _, err = shell("train.py", *own_text, "gpt2", "--run", "next")
    assert code == 0 and not hub.downloads and "your run runs/gpt2" in err and "openai-community/gpt2" in err
    assert shell("train.py", *own_text, "openai-community/gpt2", "--run", "third")[0] == 0
    assert len(hub.downloads) == 1


def answered(result: tuple[int, str, str]) -> str:
    """The one line on stderr."""
    code, out, err = result
    assert code in (1, 2) and out == "" and err.count("\n") == 1 and err.startswith("error: "), err
    return err


def test_without_huggingface_hub_one_line_says_what_to_do(shell, own_text, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    err = answered(shell("train.py", *own_text, "gpt2"))
    assert "pip install huggingface_hub" in err and "config.json and model.safetensors" in err


@pytest.mark.parametrize("error", [OSError("no network (at all)\nfor now"), ValueError(""), RuntimeError("x" * 999)])
def test_a_download_that_fails_is_one_line(shell, own_text, hub, error):
    hub.error = error
    err = answered(shell("train.py", *own_text, "gpt2-xl"))
    assert "cannot download gpt2-xl" in err and "config.json and model.safetensors" in err and len(err) < 400
    assert not Path("runs").exists()


def test_a_folder_that_is_no_gpt_2_is_one_line_and_no_run(shell, own_text, folder):
    change_json(folder / "config.json", model_type="llama")
    assert "model_type='llama' is not supported" in answered(shell("train.py", *own_text, folder))
    assert not Path("runs").exists()

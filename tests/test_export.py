"""A run goes out: transformers loads what export.py writes, and its logits are the run's."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from data.bpe import BPETokenizer
from data.tokenizer import read_tokenizer
from model import GPT
from tests.conftest import POEM, ROOT
from tests.huggingface import texts, transformers, write_folder
from training.checkpoint import model_tensors
from training.restore import restore
from training.start import find_base


@torch.inference_mode()
def same_logits(run: str, folder: str, which: str = "best", kind: str = "GPT2LMHeadModel") -> Any:
    """transformers' network from the folder gives the run's logits; returns it."""
    ours = restore(run, which).model
    assert isinstance(ours, GPT)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    assert type(theirs).__name__ == kind and theirs.dtype == torch.float32
    tokens = texts(ours, 3, ours.config.context_length)
    torch.testing.assert_close(theirs(tokens).logits, ours(tokens), rtol=0, atol=1e-5)
    return theirs


SHORT = ["--train.steps", "3", "--train.eval_every", "3", "--log.sample_tokens", "0"]
HOT = ["--optim.lr", "0.1"]  # so that biases and gains leave their zeros and ones
NETWORKS = {
    "as it is": [],
    "untied": ["--model.tied", "false"],
    "without biases": ["--model.bias", "false"],
    "of waves": ["--model.position", "sinusoidal"],
    "untied, without biases, of waves": [
        "--model.tied", "false", "--model.bias", "false", "--model.position", "sinusoidal",
    ],
    "larger": ["--model.n_layer", "3", "--model.n_head", "4", "--model.n_embd", "48", "--model.dropout", "0.1"],
    **{f"with {name}": ["--model.activation", name] for name in ("sigmoid", "relu", "tanh", "gelu", "gelu_tanh")},
}  # fmt: skip


@pytest.mark.parametrize("network", NETWORKS)
def test_transformers_gives_the_run_s_logits(shell, tiny, network):
    assert shell("train.py", *tiny, *SHORT, *HOT, *NETWORKS[network])[0] == 0
    code, out, err = shell("export.py", "tiny", "out")
    assert (code, out) == (0, "") and err.count("\n") == 1
    theirs = same_logits("tiny", "out")
    ours = restore("tiny").model_config
    assert theirs.config.tie_word_embeddings == ours.tied == (theirs.lm_head.weight is theirs.transformer.wte.weight)
    assert theirs.config.embd_pdrop == theirs.config.resid_pdrop == ours.dropout and theirs.config.attn_pdrop == 0
    assert theirs.config.n_positions == ours.context_length and theirs.config.vocab_size == ours.vocab_size


@pytest.mark.parametrize(("kind", "end"), [("char", None), ("byte", 256)])
def test_char_and_byte_runs_go_without_a_tokenizer_and_it_is_said(shell, tiny, kind, end):
    shell("train.py", *tiny, *SHORT, "--data.tokenizer", kind)
    code, _, err = shell("export.py", "tiny", "out")
    assert code == 0 and "without a tokenizer.json" in err and kind in err
    assert sorted(file.name for file in Path("out").iterdir()) == ["config.json", "model.safetensors"]
    config = json.loads(Path("out/config.json").read_text())
    assert config["eos_token_id"] == config["bos_token_id"] == end
    assert same_logits("tiny", "out").config.eos_token_id == end


@pytest.fixture
def bpe(shell, tiny, workplace) -> str:
    """A run with a BPE tokenizer."""
    write_folder(workplace / "base")
    (workplace / "own.toml").write_text('[data]\npath = "poem.txt"\n[train]\nsteps = 2\nbatch_size = 2\nthreads = 1\n')
    words = ["--train.start", "./base", "--log.sample_tokens", "0"]
    assert shell("train.py", "own.toml", "--run", "bpe", *words)[0] == 0
    return "bpe"


def test_a_bpe_run_takes_its_tokenizer_along(shell, bpe):
    code, _, err = shell("export.py", bpe, "out")
    assert code == 0 and "with its tokenizer" in err
    tokenizer = transformers.AutoTokenizer.from_pretrained("out")
    ours = read_tokenizer(Path("runs/bpe/tokenizer.json").read_bytes(), "tokenizer.json")
    assert isinstance(ours, BPETokenizer)
    assert tokenizer(POEM)["input_ids"] == ours.encode(POEM).tolist() and len(ours.encode(POEM)) < len(POEM)
    theirs = same_logits(bpe, "out")
    assert theirs.config.eos_token_id == tokenizer.eos_token_id == ours.end_of_text
    code, written, _ = shell("sample.py", bpe, "--prompt", "The dog", "--temperature", "0", "--max-tokens", "8")
    prompt = tokenizer("The dog", return_tensors="pt")
    tokens = theirs.generate(**prompt, max_new_tokens=8, do_sample=False, pad_token_id=ours.end_of_text)[0]
    assert written.strip("\n") == tokenizer.decode(tokens, skip_special_tokens=True).strip("\n")


def test_what_goes_out_comes_in_again(shell, bpe):
    shell("export.py", bpe, "out")
    before, again = find_base(bpe), find_base("./out")
    assert before.model_config == again.model_config and before.tokenizer.to_json() == again.tokenizer.to_json()
    assert before.weights.keys() == again.weights.keys()
    assert all(tensor.equal(again.weights[name]) for name, tensor in before.weights.items())


def test_a_checkpoint_can_be_chosen_and_the_best_is_taken_else(shell, tiny):
    shell("train.py", *tiny, *HOT, "--train.keep", "0")
    assert "step 4," in shell("export.py", "tiny", "four", "--checkpoint", "step-4")[2]
    same_logits("tiny", "four", "step-4")
    assert shell("export.py", "runs/tiny/checkpoints/step-000004", "again")[0] == 0
    assert Path("again/model.safetensors").read_bytes() == Path("four/model.safetensors").read_bytes()
    shell("export.py", "tiny", "last", "--checkpoint", "last")
    weights = model_tensors(restore("tiny", "last").model)
    state = transformers.AutoModelForCausalLM.from_pretrained("last").state_dict()
    assert state["transformer.wte.weight"].equal(weights["embedding.token.weight"])


def test_the_weights_say_that_they_are_pytorch_s(shell, tiny):
    """Without it, transformers before version 5 refuses the file."""
    shell("train.py", *tiny, *SHORT)
    shell("export.py", "tiny", "out")
    with safe_open("out/model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_what_llama_cpp_s_converter_reads_is_there(shell, tiny):
    """Its GPT-2 asks config.json for these keys by name, n_ctx among them, which transformers has given up."""
    shell("train.py", *tiny, *SHORT)
    shell("export.py", "tiny", "out")
    config = json.loads(Path("out/config.json").read_text())
    assert {"n_layer", "n_ctx", "n_embd", "n_head", "layer_norm_epsilon", "vocab_size"} <= config.keys()
    assert config["architectures"] == ["GPT2LMHeadModel"] and config["n_ctx"] == config["n_positions"] == 16


def refused(result: tuple[int, str, str], *words: str, code: int = 2) -> None:
    """One line on stderr, and nothing was written."""
    got, out, err = result
    assert (got, out) == (code, "") and err.startswith("error: ") and err.count("\n") == 1, err
    assert all(word in err for word in words), err
    assert not Path("out").exists() and not list(Path().glob(".*partial"))


def test_mistakes_cost_one_line_and_write_nothing(shell, tiny):
    shell("train.py", *tiny, *SHORT)
    refused(shell("export.py"), "RUN", "FOLDER")
    refused(shell("export.py", "tiny"), "FOLDER")
    refused(shell("export.py", "nowhere", "out"), "nowhere", "available runs: tiny")
    refused(shell("export.py", "tiny", "out", "--format", "onnx"), "--format", "onnx", "transformers")
    refused(shell("export.py", "tiny", "out", "--checkpoint", "step-99"), "step-99", "step-3")
    refused(shell("export.py", "tiny", "out", "--chekpoint", "last"), "did you mean --checkpoint")
    refused(shell("export.py", "tiny", "runs"), "is not an empty folder")
    refused(shell("export.py", "tiny", "poem.txt"), "is not an empty folder")
    refused(shell("export.py", "tiny", "poem.txt/out"), "poem.txt", code=1)
    assert Path("poem.txt").read_text() == POEM


def test_an_empty_folder_is_filled_and_a_new_one_made(shell, tiny):
    shell("train.py", *tiny, *SHORT)
    Path("empty").mkdir()
    assert shell("export.py", "tiny", "empty")[0] == shell("export.py", "tiny", "a/b/new")[0] == 0
    assert sorted(f.name for f in Path("empty").iterdir()) == sorted(f.name for f in Path("a/b/new").iterdir())
    assert oct(Path("empty/model.safetensors").stat().st_mode)[-3:] == "644"


def test_what_gpt_2_can_t_be_is_one_line(shell, tiny, workplace):
    shell("train.py", *tiny, *SHORT, "--model.norm", "post")
    refused(shell("export.py", "tiny", "out"), 'model.norm="post"')
    shell("train.py", *tiny, *SHORT, "--model.norm", "post", "--model.position", "rotary", "--run", "turned")
    refused(shell("export.py", "turned", "out"), 'model.norm="post"')
    (workplace / "d.toml").write_text('[model]\nkind = "mlp"\n[data]\npath = "mnist-5k"\n[train]\nsteps = 2\n')
    shell("train.py", "d.toml", "--run", "digits")
    refused(shell("export.py", "digits", "out"), "digit network")


TURNED = {
    "as it is": [],
    "untied": ["--model.tied", "false"],
    "without biases": ["--model.bias", "false", "--model.dropout", "0.1"],
    "larger": ["--model.n_layer", "3", "--model.n_head", "4", "--model.n_embd", "48", "--model.activation", "gelu"],
}


@pytest.mark.parametrize("network", TURNED)
def test_a_network_with_rotary_positions_is_a_gpt_neox_there(shell, tiny, network):
    shell("train.py", *tiny, *SHORT, *HOT, "--model.position", "rotary", *TURNED[network])
    assert shell("export.py", "tiny", "out")[0] == 0
    theirs, ours = same_logits("tiny", "out", kind="GPTNeoXForCausalLM"), restore("tiny").model_config
    assert theirs.config.hidden_dropout == ours.dropout and theirs.config.attention_dropout == 0
    tied = theirs.get_output_embeddings().weight is theirs.get_input_embeddings().weight
    assert theirs.config.tie_word_embeddings == ours.tied == tied
    assert theirs.config.max_position_embeddings == ours.context_length
    named = {name.replace("lm_head", "embed_out") for name in theirs.state_dict()}  # which files call it
    with safe_open("out/model.safetensors", "pt") as file:
        assert {*file.keys()} == named - ({"embed_out.weight"} if tied else set())


def test_adapters_of_a_network_with_rotary_positions_go_out_merged(shell, tiny):
    words = ["--model.position", "rotary"]
    shell("train.py", *tiny, *SHORT, *words, "--run", "base")
    adapt = ["--train.start", "base", "--model.lora.rank", "2"]
    assert shell("train.py", *tiny, *SHORT, *HOT, *words, *adapt)[0] == 0
    refused(shell("export.py", "tiny", "out", "--format", "peft"), "rotary positions", "merged")
    assert shell("export.py", "tiny", "out")[0] == 0
    same_logits("tiny", "out", kind="GPTNeoXForCausalLM")


def test_a_full_disk_leaves_nothing_behind(shell, tiny, monkeypatch):
    shell("train.py", *tiny, *SHORT)

    def full(tensors: Any, file: Path, metadata: Any) -> None:
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device", str(file))

    monkeypatch.setattr("training.tensorfile.save_file", full)
    before = sorted(Path().rglob("*"))
    refused(shell("export.py", "tiny", "out"), "No space left", code=1)
    assert sorted(Path().rglob("*")) == before


def test_the_command_line_is_understood_without_torch():
    code = "import sys, export; assert 'torch' not in sys.modules; export.understand(['--help'])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "--checkpoint" in done.stdout, done.stderr


def test_a_run_in_eight_bits_is_a_quarter_of_it_and_speaks(shell, tiny, workplace):
    words = ["--model.n_embd", "128", "--model.tied", "False", "--train.steps", "1"]
    assert shell("train.py", *tiny, *words)[0] == 0
    code, out, err = shell("export.py", "tiny", "small", "--quantize", "int8")
    assert (code, out) == (0, "") and "with int8 weights" in err
    before, after = (next(Path(p).rglob("checkpoints/*/model.safetensors")) for p in ("runs/tiny", "small"))
    assert after.stat().st_size < 0.3 * before.stat().st_size
    assert shell("sample.py", "./small", "--max-tokens", 5)[0] == 0
    refused(shell("export.py", "tiny", "other", "--quantize", "int8", "--format", "peft"), "--quantize")


def test_a_run_in_eight_bits_can_t_learn_and_says_so(shell, tiny):
    assert shell("train.py", *tiny, "--train.steps", "1")[0] == 0
    assert shell("export.py", "tiny", "runs/small", "--quantize", "int8")[0] == 0
    refused(shell("train.py", *tiny, "--run", "tuned", "--train.start", "small"), "int8", "cannot be trained")
    code, _, err = shell("train.py", "--resume", "--run", "small", "--train.steps", 9)
    assert code == 2 and err.splitlines()[-1].startswith("error: ") and "cannot be trained" in err

"""LoRA: the arithmetic against PEFT's, and a run that holds its base once and can be moved, cut and gone on from."""

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import train
from configs.schema import LoRAConfig
from data.fetch import sha256
from model import GPT, GPTConfig, build_model
from model.gpt2 import to_gpt2
from model.lora import LoRALinear, merge_lora
from model.peft import peft_config, to_peft
from tests.conftest import POEM
from tests.processes import fingerprint
from training.checkpoint import model_tensors, own_tensors
from training.learner import build_network
from training.restore import restore
from training.run import read_log, read_record
from training.start import find_base

SHAPE = {"n_layer": 2, "n_head": 2, "n_embd": 16, "vocab_size": 31, "context_length": 12}
TOKENS = torch.randint(31, (3, 12), generator=torch.Generator().manual_seed(1))
LORA = "--model.kind gpt --model.lora.rank 2 --model.lora.alpha 8 --optim.lr 0.01".split()


def drawn(model: nn.Module) -> Any:
    """The network with every number drawn, adapters included."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2, generator=generator)
    return model.eval()


def adapted(**lora: Any) -> GPT:
    """A small GPT with adapters, drawn."""
    return drawn(build_model(GPTConfig(**SHAPE, lora=LoRAConfig(**lora))))


# The arithmetic.

TARGETS = [
    ["query", "key", "value", "out", "up", "down"],
    ["query", "value"],
    ["key"],
    ["out", "key"],
    ["up", "down"],
    ["down"],
]


def hugging_face(config: GPTConfig, weights: dict[str, Tensor]) -> Any:
    """Their GPT-2 with our weights, the adapters among them left out."""
    from tests.huggingface import empty_gpt2

    theirs = empty_gpt2(config)
    plain = {name: tensor for name, tensor in weights.items() if "lora" not in name}
    missing, unknown = theirs.load_state_dict(to_gpt2(plain, config), strict=False)
    assert missing == ["lm_head.weight"] and not unknown  # it is tied
    return theirs


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # PEFT's, of transformers
@pytest.mark.parametrize("targets", TARGETS, ids=" ".join)
@torch.inference_mode()
def test_peft_loads_our_adapters_and_gives_our_logits(tmp_path, targets):
    from peft import PeftModel

    model = adapted(rank=3, alpha=5.0, targets=targets)
    assert model.config.lora is not None
    save_file(to_peft(own_tensors(model), model.config), tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps(peft_config(model.config.lora, "gpt2")))
    base = hugging_face(model.config, model_tensors(model))
    plain = base(TOKENS).logits
    theirs = PeftModel.from_pretrained(base, tmp_path)
    learned = {name for name, _ in theirs.named_parameters() if "lora_" in name}
    assert len(learned) == len(to_peft(own_tensors(model), model.config))
    assert (model(TOKENS) - plain).abs().max() > 1e-3  # a hundred times the tolerance
    torch.testing.assert_close(theirs(TOKENS).logits, model(TOKENS), rtol=0, atol=1e-5)


@pytest.mark.parametrize("targets", TARGETS, ids=" ".join)
@torch.inference_mode()
def test_a_merged_network_is_a_plain_one_with_the_same_logits(targets):
    model = adapted(rank=3, targets=targets).double()  # rounding is then 1e-13 of logits around 1
    before = model(TOKENS)
    merge_lora(model)
    assert not any(isinstance(module, LoRALinear) for module in model.modules())
    assert model_tensors(model).keys() == model_tensors(GPT(GPTConfig(**SHAPE))).keys()
    assert model.config == GPTConfig(**SHAPE) and all(p.requires_grad for p in model.parameters())
    torch.testing.assert_close(model(TOKENS), before, rtol=0, atol=1e-10)


def test_the_order_of_the_targets_changes_nothing():
    torch.manual_seed(0)
    one = build_model(GPTConfig(**SHAPE, lora=LoRAConfig(targets=["up", "query", "up"])))
    torch.manual_seed(0)
    other = build_model(GPTConfig(**SHAPE, lora=LoRAConfig(targets=["query", "up"])))
    a, b = model_tensors(one), model_tensors(other)
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# The run.


CONFIG = """
[data]
path = "other.txt"
[train]
start = "base"
steps = 12
batch_size = 4
eval_every = 4
threads = 1
[log]
every = 1
sample_tokens = 8
"""
SIZES = "--data.path poem.txt --model.kind gpt --model.n_layer 2 --model.n_head 2 --model.n_embd 16".split()
AGAIN = ["again.toml"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run, `base`, that has learned the poem, and a run beside it, `lora`, with another text."""
    from training.run import understand

    folder = tmp_path_factory.mktemp("trained")
    (folder / "poem.txt").write_text(POEM)
    (folder / "other.txt").write_text(POEM[::-1])
    (folder / "again.toml").write_text(CONFIG)
    (folder / "first.toml").write_text(CONFIG.replace('start = "base"', ""))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("training.plan.TRIAL_SECONDS", 0)
        train.main(understand(["first.toml", *SIZES, "--model.context_length", "16", "--run", "base"]))
        train.main(understand([*AGAIN, *LORA, "--run", "lora"]))
    return folder


@pytest.fixture(autouse=True)
def runs(workplace: Path, trained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The runs there, in a copy that can be spoilt. How long a step will take is of no interest here."""
    monkeypatch.setattr("training.plan.TRIAL_SECONDS", 0)
    shutil.copytree(trained, workplace, dirs_exist_ok=True)
    return workplace / "runs"


def files(folder: Path) -> dict[Path, str]:
    """The hash of every file."""
    return {file: sha256(file) for file in folder.rglob("*") if file.is_file()}


def test_checkpoints_hold_the_adapters_alone_and_the_base_is_kept_once(shell, runs):
    before = files(runs / "base")
    code, _, err = shell("train.py", *AGAIN, *LORA, "--run", "again")
    run = runs / "again"
    kept = load_file(run / "base/model.safetensors")
    theirs = load_file(restore("base").checkpoint.folder / "model.safetensors")
    assert kept.keys() == theirs.keys() and all(torch.equal(kept[name], theirs[name]) for name in kept)
    numbers = 2 * 2 * (4 * (16 + 16) + 2 * (16 + 64))  # layers, rank, inputs + outputs of the six targets
    for folder in (run / "checkpoints").glob("step-*"):
        adapters, moments = (load_file(folder / f"{name}.safetensors") for name in ("model", "optimizer"))
        assert sum(tensor.numel() for tensor in adapters.values()) == numbers
        assert {name.partition("/")[0] for name in moments} <= adapters.keys()
        assert json.loads((folder / "manifest.json").read_text())["base"] == sha256(run / "base/model.safetensors")
    assert code == 0 and f"{numbers:,} of them trainable (" in err
    assert files(runs / "base") == before
    losses = [line["val_loss"] for line in read_log(run) if "val_loss" in line]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(("optimizer", "cut"), [("adamw", 1), ("adamw", 7), ("muon", 7)])
def test_a_lora_run_cut_in_two_equals_the_run_uncut(shell, runs, monkeypatch, optimizer, cut):
    from training.run import Run

    words = [*AGAIN, *LORA, "--model.dropout", "0.1", "--optim.name", optimizer, "--train.freeze", "blocks.0.mlp"]
    assert shell("train.py", *words, "--run", "uncut")[0] == 0
    log = Run.log

    def log_and_stop(run: Run, **record: object) -> None:
        log(run, **record)
        if record["step"] == cut - 1 and "lr" in record:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "log", log_and_stop)
        assert shell("train.py", *words, "--run", "cut")[0] == 143
    shutil.rmtree(runs / "base")
    assert shell("train.py", "--resume", "--run", "cut")[0] == 0
    assert fingerprint(runs / "cut") == fingerprint(runs / "uncut")


def test_a_lora_run_can_be_moved_and_needs_nothing_that_it_came_from(shell, runs, tmp_path_factory):
    words = ["--prompt", "god", "--temperature", "0.5", "--seed", "3", "--max-tokens", "40"]
    before = shell("sample.py", "lora", *words)[1]
    assert len(before) > 30 and before != shell("sample.py", "base", *words)[1]
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "moved"
    shutil.move(runs / "lora", elsewhere)
    shutil.rmtree(runs / "base")
    assert shell("sample.py", elsewhere, *words)[1] == before


@torch.inference_mode()
def test_in_eight_bits_a_lora_run_is_a_plain_run(tmp_path):
    from training.quantized import save_quantized

    restored = restore("lora")
    tokens, before = TOKENS % 20, restored.model(TOKENS % 20)
    save_quantized(restored, tmp_path / "small")
    small = restore(str(tmp_path / "small"))
    assert (small.model(tokens) - before).abs().max() < 0.05  # of logits around 1; quantising alone, no lost adapters
    assert (restore("base").model(tokens) - before).abs().max() > 0.1


def test_the_loss_of_the_merged_network_is_the_one_that_was_logged():
    from training.evaluate import evaluate
    from training.loss import cross_entropy
    from training.prepare import open_data

    restored = restore("lora", "last")
    data = open_data(restored.record.resolved, restored.tokenizer)
    found = evaluate(restored.model, data, "val", cross_entropy)
    assert found is not None
    assert found.loss == pytest.approx(read_log(restored.folder)[-1]["val_loss"], rel=1e-5)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
@torch.inference_mode()
def test_peft_speaks_as_the_run_does(shell, workplace, monkeypatch):
    from peft import AutoPeftModelForCausalLM, PeftModel
    from transformers import AutoModelForCausalLM

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    code, _, err = shell("export.py", "lora", "out", "--format", "peft")
    assert code == 0 and "the adapters of runs/lora, step " in err and err.count("\n") == 1
    tokens, restored = TOKENS % 20, restore("lora")
    base = AutoModelForCausalLM.from_pretrained("out/base").eval()
    torch.testing.assert_close(base(tokens).logits, restore("base").model(tokens), rtol=0, atol=1e-5)
    found = AutoPeftModelForCausalLM.from_pretrained("out").eval()  # its config says where the base is
    for theirs in (found, PeftModel.from_pretrained(base, "out")):
        torch.testing.assert_close(theirs(tokens).logits, restored.model(tokens), rtol=0, atol=1e-5)
    assert (restored.model(tokens) - restore("base").model(tokens)).abs().max() > 1e-3
    assert sorted(path.name for path in (workplace / "out").iterdir()) == [
        "adapter_config.json", "adapter_model.safetensors", "base",
    ]  # fmt: skip


@pytest.mark.parametrize("words", [[], LORA], ids=["all of it", "adapters again"])
def test_what_starts_from_a_lora_run_starts_from_its_merged_weights(shell, runs, words):
    start = ["--train.start", "lora", "--train.steps", "0", "--run", "next"]
    assert shell("train.py", *AGAIN, *start, *words)[0] == 0
    merged, again = find_base("lora"), find_base("next")
    assert merged.weights.keys() == again.weights.keys() == find_base("base").weights.keys()
    assert all(torch.equal(merged.weights[name], again.weights[name]) for name in merged.weights)
    config = read_record(runs / "next").resolved.model
    assert isinstance(config, GPTConfig) and bool(config.lora) == bool(words)


def test_a_run_stopped_before_its_first_checkpoint_begins_again_from_its_base(shell, runs, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("training.checkpoint.save", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert shell("train.py", *AGAIN, *LORA, "--run", "cut")[0] == 130
    assert not (runs / "cut/checkpoints").exists()
    assert shell("train.py", "--resume", "--run", "cut")[0] == 0
    assert fingerprint(runs / "cut") == fingerprint(runs / "lora")


# What can go wrong.


def one_line(result: tuple[int, str, str], *words: str, code: int = 2) -> None:
    """The command ended with this exit code and one line on stderr that holds these words."""
    got, out, err = result
    assert (got, out) == (code, ""), err
    assert err.startswith("error: ") and err.count("\n") == 1, err
    for word in words:
        assert word in err, err


MISTAKES = {
    "a rank above the matrix": (["--model.lora.rank", "17"], ["model.lora.rank=17", "16"]),
    "no rank": (["--model.lora.rank", "0"], ["model.lora.rank", "0"]),
    "no such target": (["--model.lora.targets", "query", "valeu"], ["model.lora.targets", "'valeu'", "'value'"]),
    "no target": (["--model.lora.targets", "[]"], ["model.lora.targets"]),
    "no such setting": (["--model.lora.rnak", "3"], ["model.lora.rnak", "model.lora.rank"]),
    "all adapters frozen": (["--train.freeze", "blocks"], ["train.freeze", "freezes every parameter"]),
    "new characters": (["--data.path", "new.txt", "--data.extend", "true"], ["data.extend", "[model.lora]"]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_about_adapters_is_one_line(shell, workplace, mistake):
    (workplace / "new.txt").write_text("ü" * 1000)
    words, expected = MISTAKES[mistake]
    one_line(shell("train.py", *AGAIN, *LORA, "--run", "bad", *words), *expected)
    assert not (workplace / "runs/bad").exists()


def test_an_empty_table_asks_for_the_usual_adapters(shell, runs):
    with open("again.toml", "a") as file:
        file.write('\n[model]\nkind = "gpt"\n[model.lora]\n')
    for words in ([], ["--model.lora.rank", "2"]):
        assert shell("train.py", *AGAIN, "--run", "usual", "--train.steps", "0", "--overwrite", *words)[0] == 0
        config = read_record(runs / "usual").resolved.model
        assert isinstance(config, GPTConfig) and config.lora == LoRAConfig(rank=2 if words else 8)


def test_adapters_need_a_network_that_has_learned(shell):
    words = ["first.toml", *SIZES, "--model.lora.rank", "4", "--run", "bad"]
    one_line(shell("train.py", *words), "[model.lora]", "train.start")


def test_adapters_are_for_text_networks(shell, workplace):
    (workplace / "d.toml").write_text('[model]\nkind = "mlp"\n[data]\npath = "mnist-5k"\n[train]\nsteps = 5\n')
    assert shell("train.py", "d.toml", "--run", "d")[0] == 0
    one_line(shell("train.py", "d.toml", "--run", "e", "--model.lora.rank", "4"), "unknown setting model.lora")
    (workplace / "e.toml").write_text('[model]\nkind = "auto"\n[data]\npath = "mnist-5k"\n[train]\nsteps = 5\n')
    words = ["e.toml", "--train.start", "d", "--run", "e"]
    one_line(shell("train.py", *words, "--model.lora.rank", "4"), "model.lora", "train.start=d", "no such setting")
    assert shell("train.py", *words, "--model.dropout", "0.1")[0] == 0


def test_a_run_without_adapters_has_none_to_hand_on(shell, workplace):
    one_line(shell("export.py", "base", "out", "--format", "peft"), "base has no adapters", "omit --format peft")
    assert not (workplace / "out").exists()


@pytest.mark.parametrize("setting", [["rank", "3"], ["alpha", "3"], ["targets", "query"]], ids=" ".join)
def test_a_lora_run_cant_go_on_with_other_adapters(shell, setting):
    name, value = setting
    one_line(shell("train.py", "--resume", "--run", "lora", f"--model.lora.{name}", value), f"model.lora.{name}")


def damaged(file: Path) -> None:
    """Flip a bit."""
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def swapped(file: Path) -> None:
    """Put a base there that is whole, but another one."""
    weights = load_file(file)
    weights["norm.bias"] += 1
    save_file(weights, file)
    (file.parent / "manifest.json").write_text(json.dumps({"sha256": {file.name: sha256(file)}}))


HARM = {
    "a bit has flipped": damaged,
    "it is another one": swapped,
    "it is gone": Path.unlink,
    "its hash is another one": lambda file: (file.parent / "manifest.json").write_text(
        json.dumps({"sha256": {file.name: 64 * "0"}})
    ),
}


@pytest.mark.parametrize("harm", HARM)
def test_a_base_that_is_not_what_the_adapters_learned_beside_is_refused(shell, runs, harm):
    HARM[harm](runs / "lora/base/model.safetensors")
    for words in (["sample.py", "lora"], ["train.py", *AGAIN, "--train.start", "lora", "--run", "next"]):
        one_line(shell(*words), "base is damaged", "model.safetensors", "adapters in step-", code=1)
    code, _, err = shell("train.py", "--resume", "--run", "lora", "--train.steps", "20")
    assert code == 1 and "base is damaged" in err.splitlines()[-1]


def test_adapters_that_have_lost_the_hash_of_their_base_are_refused(shell, runs):
    for file in (runs / "lora/checkpoints").glob("step-*/manifest.json"):
        content = json.loads(file.read_text())
        del content["base"]
        file.write_text(json.dumps(content))
    one_line(shell("sample.py", "lora"), "base is damaged", code=1)


def test_a_plan_counts_what_learns():
    from configs.schema import Config
    from training.plan import count_parameters

    model = GPTConfig(**SHAPE, lora=LoRAConfig(rank=2, targets=["query"]))
    settings = {"model": model, "data": {"path": ["x"]}, "train": {"steps": 1, "start": "x", "freeze": ["blocks.0"]}}
    config = Config.model_validate(settings)
    assert count_parameters(config) == sum(p.numel() for p in build_network(config).parameters())
    assert count_parameters(config, learning=True) == 2 * (16 + 16)

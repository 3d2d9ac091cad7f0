"""A checkpoint is whole or it is not one; what is read back is what was saved, bit for bit."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from configs.errors import UserError
from configs.files import Damaged
from configs.schema import OptimConfig
from data.tokenizer import CharTokenizer
from model import GPT, GPTConfig
from tests.conftest import ROOT
from training import checkpoint
from training.checkpoint import State
from training.optim import build_optimizers
from training.tensorfile import read_tensors

CONFIG = GPTConfig(n_layer=1, n_head=2, n_embd=8, vocab_size=11, context_length=4)


def trained(optimizer: str = "adamw") -> tuple[GPT, list]:
    """A tiny network after one step."""
    torch.manual_seed(0)
    model = GPT(CONFIG)
    optimizers = build_optimizers(model, OptimConfig(name=optimizer, momentum=0.9))
    model(torch.arange(4).unsqueeze(0)).square().mean().backward()
    for each in optimizers:
        each.step()
    return model, optimizers


def saved(folder: Path, step: int = 5, optimizer: str = "adamw") -> Path:
    """A checkpoint of it."""
    return checkpoint.save(folder, State(step=step, log_bytes=0), *trained(optimizer))


@pytest.mark.parametrize("optimizer", ["sgd", "rmsprop", "adam", "adamw", "muon"])
def test_what_comes_back_is_what_was_saved(tmp_path, optimizer):
    model, optimizers = trained(optimizer)
    folder = checkpoint.save(tmp_path, State(step=5, log_bytes=7), model, optimizers)
    torch.manual_seed(1)
    other = GPT(CONFIG)
    others = build_optimizers(other, OptimConfig(name=optimizer, momentum=0.9))
    found = checkpoint.verify(folder)
    checkpoint.load_model(found, other)
    checkpoint.load_optimizers(found, other, others)
    assert found.state == State(step=5, log_bytes=7)
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
    memory, read = (checkpoint.optimizer_tensors(m, o) for m, o in ((model, optimizers), (other, others)))
    assert memory and memory.keys() == read.keys()
    assert all(torch.equal(memory[name], read[name]) and memory[name].dtype == read[name].dtype for name in memory)


def test_a_tied_weight_is_saved_once(tmp_path):
    from safetensors import safe_open

    with safe_open(saved(tmp_path) / "model.safetensors", framework="pt") as tensors:
        assert "embedding.token.weight" in tensors.keys() and "unembedding.weight" not in tensors.keys()


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_network_that_is_no_longer_finite_is_never_saved(tmp_path, poison):
    model, optimizers = trained()
    with torch.no_grad():
        model.norm.weight[0] = poison
    with pytest.raises(UserError, match=r"norm\.weight"):
        checkpoint.save(tmp_path, State(step=5, log_bytes=0), model, optimizers)
    assert not list(tmp_path.iterdir())


DAMAGES = {
    "one bit of the weights": lambda f: flip(f / "model.safetensors", -5),
    "one bit of a header": lambda f: flip(f / "model.safetensors", 20),
    "one bit of the moments": lambda f: flip(f / "optimizer.safetensors", -5),
    "one bit of the state": lambda f: flip(f / "state.json", 4),
    "one bit of the manifest": lambda f: flip(f / "manifest.json", 40),
    "half the weights": lambda f: cut(f / "model.safetensors"),
    "half the manifest": lambda f: cut(f / "manifest.json"),
    "no weights": lambda f: (f / "model.safetensors").unlink(),
    "no manifest": lambda f: (f / "manifest.json").unlink(),
    "one file more": lambda f: (f / "extra.bin").write_bytes(b"x"),
    "an empty manifest": lambda f: (f / "manifest.json").write_text("{}"),
    "a manifest that forgets a file": lambda f: forget(f / "manifest.json"),
    "a manifest without end": lambda f: (f / "manifest.json").write_text("[" * 10**6),
    "a huge manifest": lambda f: (f / "manifest.json").write_text(" " * 2**21),
}


def another(file: Path) -> Path:
    """A file beside it."""
    return file.with_name("state.json" if file.suffix == ".safetensors" else "model.safetensors")


WAYS = {
    "is empty": lambda f: f.write_bytes(b""),
    "is gone": lambda f: f.unlink(),
    "is a folder": lambda f: (f.unlink(), f.mkdir()),
    "has one byte more": lambda f: f.write_bytes(f.read_bytes() + b"x"),
    "has one byte less": lambda f: f.write_bytes(f.read_bytes()[:-1]),
    "is all zeros": lambda f: f.write_bytes(bytes(f.stat().st_size)),
    "is another file": lambda f: f.write_bytes(another(f).read_bytes()),
    "is backwards": lambda f: f.write_bytes(f.read_bytes()[::-1]),
    "has another name": lambda f: f.rename(f.with_name(f"{f.name}.old")),
}
EVERY = {
    f"{name} {way}": lambda folder, name=name, act=act: act(folder / name)
    for name in sorted([*checkpoint.FILES, "manifest.json"])
    for way, act in WAYS.items()
}
DAMAGES |= EVERY  # 50 ways in all


def flip(file: Path, at: int) -> None:
    """Flip one bit."""
    content = bytearray(file.read_bytes())
    content[at] ^= 1
    file.write_bytes(content)


def cut(file: Path) -> None:
    """Keep the first half."""
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def forget(manifest: Path) -> None:
    """List one file less."""
    content = json.loads(manifest.read_text())
    del content["sha256"]["optimizer.safetensors"]
    manifest.write_text(json.dumps(content))


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_noticed_and_the_checkpoint_before_is_used(tmp_path, capsys, damage):
    saved(tmp_path, 5)
    DAMAGES[damage](saved(tmp_path, 6))
    with pytest.raises(Damaged, match="step-000006"):
        checkpoint.verify(tmp_path / "step-000006")
    found = checkpoint.last(tmp_path)
    assert found is not None and found.state.step == 5
    assert "step-000006 is damaged" in capsys.readouterr().err


@given(st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_mutation_of_any_file_loads_or_crashes(tmp_path, data):
    folder = tmp_path / "step-000005"
    if not folder.exists():
        saved(tmp_path)
    file = data.draw(st.sampled_from(sorted(folder.iterdir())))
    before = file.read_bytes()
    content = bytearray(before)
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content
    file.write_bytes(content)
    try:
        if content == before:
            checkpoint.verify(folder)
        else:
            with pytest.raises(Damaged):
                found = checkpoint.verify(folder)
                # Other white space in a manifest says the same thing.
                assert file.name == "manifest.json" and found.state.step == 5
                raise Damaged(folder, "no difference")
    finally:
        file.write_bytes(before)


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    found = checkpoint.verify(saved(tmp_path))
    other = GPT(CONFIG.model_copy(update={"n_embd": 16}))
    with pytest.raises(Damaged, match="does not fit"):
        checkpoint.load_model(found, other)
    with pytest.raises(Damaged, match="unexpected tensor"):
        checkpoint.load_optimizers(found, nn.Linear(2, 2), [])


def test_a_header_too_large_to_parse_is_not_parsed(tmp_path):
    file = tmp_path / "model.safetensors"
    file.write_bytes((2**30).to_bytes(8, "little") + b"{}")
    with pytest.raises(Damaged, match="header"):
        read_tensors(file, None)


def test_the_best_and_the_newest_are_kept(tmp_path):
    for step in range(6):
        saved(tmp_path, step)
        if step == 1:
            checkpoint.set_best(tmp_path, step)
        checkpoint.prune(tmp_path, keep=2)
    assert [f.name for f in checkpoint.step_folders(tmp_path)] == ["step-000005", "step-000004", "step-000001"]
    best = checkpoint.best(tmp_path)
    assert best is not None and best.state.step == 1


def test_nothing_old_is_deleted_before_the_new_is_known_to_be_whole(tmp_path):
    saved(tmp_path, 1)
    flip(saved(tmp_path, 2) / "model.safetensors", -1)
    with pytest.raises(Damaged):
        checkpoint.prune(tmp_path, keep=1)
    assert (tmp_path / "step-000001").exists()


@pytest.mark.parametrize(
    "name", ["../../elsewhere", "/etc", "step-5/../..", "", "step-abc", "step-000001\nstep-000002"]
)
def test_best_cant_point_out_of_its_folder(tmp_path, name):
    saved(tmp_path, 5)
    (tmp_path / "best").write_text(name)
    found = checkpoint.best(tmp_path)
    assert found is not None and found.folder == tmp_path / "step-000005"


KILLED = """
import os, signal, sys, threading, random, time
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from tests.test_checkpoint import saved
threading.Thread(target=lambda: (time.sleep(float(sys.argv[3])), os.kill(os.getpid(), signal.SIGKILL))).start()
for step in range(10**6):
    saved(Path(sys.argv[2]), step)
    print(step, flush=True)
"""


@pytest.mark.parametrize("seconds", [0.05, 0.11, 0.23])
def test_kill_9_loses_no_checkpoint_that_was_acknowledged(tmp_path, seconds):
    command = [sys.executable, "-c", KILLED, str(ROOT), str(tmp_path), str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == -9, done.stderr
    acknowledged = [int(line) for line in done.stdout.split("\n")[:-1]]
    found = checkpoint.last(tmp_path)
    if acknowledged:
        assert found is not None and found.state.step >= acknowledged[-1]
    for folder in checkpoint.step_folders(tmp_path):
        checkpoint.verify(folder)
    shutil.rmtree(tmp_path)


def test_a_checkpoint_knows_the_tokenizer_that_it_was_trained_with(shell, tiny, workplace):
    assert shell("train.py", *tiny)[0] == 0
    file = workplace / "runs/tiny/tokenizer.json"
    mine = file.read_text()
    newest = checkpoint.step_folders(workplace / "runs/tiny/checkpoints")[0]
    manifest = json.loads((newest / "manifest.json").read_text())
    assert manifest["tokenizer"] == hashlib.sha256(mine.encode()).hexdigest()
    file.write_text(CharTokenizer(json.loads(mine)["characters"].replace("a", "ä")).file)  # of the same size
    for words in (["sample.py", "tiny"], ["train.py", "--resume", "--run", "tiny", "--train.steps", "20"]):
        code, out, err = shell(*words)
        assert (code, out) == (1, "") and "was trained with a different tokenizer.json" in err and err.count("\n") == 1
    file.write_text(mine)
    assert shell("sample.py", "tiny")[0] == 0

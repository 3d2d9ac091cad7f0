"""What a checkpoint says when it is not one, how its folders are made and put right, and what is left untouched."""

import json
import os
import shutil
import stat
import struct
from pathlib import Path

import pytest
import torch
from torch import nn

from configs import files
from configs.errors import UserError
from configs.files import Damaged, sync
from data.fetch import sha256
from model import GPT
from tests.test_checkpoint import CONFIG, flip, saved, trained
from training import checkpoint, manifest
from training.checkpoint import State
from training.run import Run
from training.tensorfile import LARGEST_HEADER, open_tensors, read_tensors


def answered(folder: Path, message: str) -> None:
    """This checkpoint is refused with exactly this reason."""
    with pytest.raises(Damaged) as caught:
        checkpoint.verify(folder)
    assert str(caught.value) == f"{folder} is damaged: {message}" and caught.value.exit_code == 1


def rewrite(file: Path, **new: object) -> None:
    """Say something else in a JSON file."""
    file.write_text(json.dumps(json.loads(file.read_text()) | new))


def test_a_damaged_checkpoint_says_which_file_and_how(tmp_path):
    flip(saved(tmp_path, 1) / "optimizer.safetensors", -1)
    answered(tmp_path / "step-000001", "optimizer.safetensors has changed since it was saved")
    (saved(tmp_path, 2) / "more").touch()
    answered(tmp_path / "step-000002", "unexpected or missing files")
    rewrite(saved(tmp_path, 3) / "manifest.json", sha256={})
    answered(tmp_path / "step-000003", "its manifest does not list its files")
    answered(tmp_path / "step-000004", f"[Errno 2] No such file or directory: '{tmp_path}/step-000004'")
    state = saved(tmp_path, 5) / "state.json"
    state.write_text('{"step": -1, "log_bytes": 0}')
    rewrite(state.with_name("manifest.json"), sha256={n: sha256(state.with_name(n)) for n in checkpoint.FILES})
    answered(state.parent, "1 validation error for State")
    rewrite(saved(tmp_path, 6) / "manifest.json", base="not a hash")
    answered(tmp_path / "step-000006", "1 validation error for Manifest")
    rewrite(saved(tmp_path, 7) / "manifest.json", base="0" * 65)
    answered(tmp_path / "step-000007", "1 validation error for Manifest")


def test_what_does_not_fit_is_named_with_its_file(tmp_path):
    found = checkpoint.verify(saved(tmp_path))
    wider = GPT(CONFIG.model_copy(update={"vocab_size": 12}))
    with pytest.raises(Damaged) as caught:
        checkpoint.load_model(found, wider)
    tensor = "embedding.token.weight does not fit this network"
    assert str(caught.value) == f"{found.folder} is damaged: model.safetensors: {tensor}"
    _, optimizers = trained()
    with pytest.raises(Damaged) as caught:
        checkpoint.load_optimizers(found, wider, optimizers)
    said = "optimizer.safetensors: unexpected tensor embedding.token.weight/exp_avg of shape (11, 8)"
    assert str(caught.value) == f"{found.folder} is damaged: {said}"


@pytest.mark.parametrize(("length", "parsed"), [(LARGEST_HEADER, True), (LARGEST_HEADER + 1, False)])
def test_a_header_of_four_megabytes_is_parsed_and_none_that_is_larger(tmp_path, length, parsed):
    assert LARGEST_HEADER == 4 * 1024 * 1024
    file = tmp_path / "model.safetensors"
    file.write_bytes(struct.pack("<Q", length) + b"{}".ljust(length))
    if parsed:
        assert read_tensors(file, None) == {}
    else:
        with pytest.raises(Damaged, match=rf"^{tmp_path} is damaged: model\.safetensors has too large a header$"):
            read_tensors(file, None)


def test_a_file_of_tensors_that_is_none_is_named(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(bytes(8) + b"12345678")
    with pytest.raises(Damaged, match=rf"^{tmp_path} is damaged: a\.safetensors: .*[hH]eader"):
        read_tensors(tmp_path / "a.safetensors", None)
    with pytest.raises(Damaged, match=r"b\.safetensors: .*No such file"):
        read_tensors(tmp_path / "b.safetensors", None)


@pytest.mark.timeout(30)  # a pipe that is opened is waited for without end
def test_a_pipe_is_no_file_of_tensors(tmp_path):
    os.mkfifo(tmp_path / "c.safetensors")
    with (
        pytest.raises(Damaged, match=r"c\.safetensors is not a regular"),
        open_tensors(tmp_path / "c.safetensors"),
    ):
        pass


def test_eight_bits_cant_learn_on(tmp_path):
    folder = checkpoint.save(tmp_path, State(step=5, log_bytes=0, quantized=True), *trained())
    with pytest.raises(UserError, match=f"^{folder} has int8 weights, which cannot be trained") as caught:
        checkpoint.verify(folder).require_trainable()
    assert caught.value.exit_code == 2
    checkpoint.verify(saved(tmp_path, 6)).require_trainable()


def test_what_was_logged_after_the_last_checkpoint_is_forgotten(tmp_path):
    (tmp_path / "log.jsonl").write_text(10 * ("x" * 9 + "\n"))
    with Run(tmp_path) as run:
        run.checkpoints.mkdir()
        checkpoint.save(run.checkpoints, State(step=5, log_bytes=70), *trained())
        assert checkpoint.resume(run, *trained()) == 5 and (tmp_path / "log.jsonl").stat().st_size == 70
        checkpoint.save(run.checkpoints, State(step=6, log_bytes=70, quantized=True), *trained())
        with pytest.raises(UserError, match="int8"):
            checkpoint.resume(run, *trained())
        for folder in checkpoint.step_folders(run.checkpoints):
            shutil.rmtree(folder)
        assert checkpoint.resume(run, *trained()) is None and (tmp_path / "log.jsonl").stat().st_size == 0


def test_a_poisoned_moment_is_not_saved_and_the_step_is_named(tmp_path):
    model, optimizers = trained()
    memory = optimizers[0].state[model.norm.weight]
    memory["exp_avg"][0] = float("nan")
    with pytest.raises(UserError) as caught:
        checkpoint.save(tmp_path, State(step=5, log_bytes=0), model, optimizers)
    said = "norm.weight/exp_avg contains NaN or infinity; step 5 was not saved, the previous checkpoint is valid"
    assert str(caught.value) == said and caught.value.exit_code == 3


def test_a_whole_twin_takes_the_place_of_the_older_one(tmp_path):
    older = saved(tmp_path, 5, "sgd")
    older.rename(tmp_path / "elsewhere")
    newer = saved(tmp_path, 5, "adamw")
    newer.rename(files.partial_of(newer))
    (tmp_path / "elsewhere").rename(older)  # killed before the older one was removed
    checkpoint.adopt(tmp_path)
    assert [folder.name for folder in tmp_path.iterdir()] == ["step-000005"]
    assert any(name.endswith("/exp_avg") for name in read_tensors(older / "optimizer.safetensors", None))


def test_writing_again_replaces_the_folder_and_what_was_left_of_an_attempt(tmp_path):
    folder = tmp_path / "runs" / "step-000005"
    (tmp_path / "runs").mkdir()
    beside = files.partial_of(folder)
    assert beside == tmp_path / "runs" / ".step-000005.partial"
    for text in ("one", "two"):
        beside.mkdir()
        (beside / "left").touch()
        manifest.write(folder, {}, {"text": text})
        assert sorted(file.name for file in folder.iterdir()) == ["manifest.json", "text"]
        assert (folder / "text").read_text() == text and not beside.exists()
        assert manifest.read_manifest(folder).sha256 == {"text": sha256(folder / "text")}
    for file in folder.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert (folder / "manifest.json").read_text().startswith('{\n "format": 1,\n "sha256": {\n') and "null" not in (
        folder / "manifest.json"
    ).read_text()


@pytest.mark.parametrize("when", ["filling", "renaming"])
def test_a_disk_that_refuses_leaves_the_older_folder_and_nothing_half(tmp_path, monkeypatch, when):
    folder = tmp_path / "checkpoints" / "step-000005"
    manifest.write(folder, {}, {"text": "old"})

    remove = shutil.rmtree

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    def kept(path: Path, ignore_errors: bool = False) -> None:
        remove(path, ignore_errors) if ignore_errors else full()

    monkeypatch.setattr(*((manifest, "save_file", full) if when == "filling" else (shutil, "rmtree", kept)))
    tensors = {"a.safetensors": {"x": torch.zeros(1000), "y": torch.zeros(250)}}
    with pytest.raises(UserError) as caught:
        manifest.write(folder, tensors, {"text": "new"})
    said = f"cannot write {folder} (5,000 bytes): No space left on device. Earlier checkpoints are intact; "
    assert str(caught.value).startswith(said) and caught.value.exit_code == 1
    assert (folder / "text").read_text() == "old"
    assert files.partial_of(folder).exists() == (when == "renaming")  # whole, so that `adopt` can take it up


def test_no_half_of_a_run_is_begun_where_a_run_was_deleted(tmp_path):
    with pytest.raises(UserError, match="No such file or directory"):
        manifest.write(tmp_path / "gone" / "checkpoints" / "step-000005", {}, {"text": "x"})
    assert not (tmp_path / "gone").exists()
    manifest.write(tmp_path / "checkpoints" / "step-000005", {}, {"text": "x"})  # but the last folder is made


def test_all_that_is_saved_is_on_the_disk_before_it_is_said_to_be(tmp_path, monkeypatch):
    synced: list[str] = []
    for module in (files, checkpoint):
        monkeypatch.setattr(module, "sync", lambda path: synced.append(path.name))
    folder = saved(tmp_path)
    partial = files.partial_of(folder).name
    names = ["manifest.json", "model.safetensors", "optimizer.safetensors", "state.json"]
    assert sorted(synced[-6:-2]) == names
    assert synced[-2:] == [partial, tmp_path.name]
    synced.clear()
    checkpoint.set_best(tmp_path, 5)
    assert synced == [f".best.{os.getpid()}.partial", tmp_path.name]
    folder.rename(files.partial_of(folder))
    synced.clear()
    checkpoint.adopt(tmp_path)
    assert synced == [tmp_path.name]


def test_syncing_syncs_and_closes(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    done: list[int] = []
    monkeypatch.setattr(os, "fsync", done.append)
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").is_dir() else 0
    for path in (tmp_path, tmp_path / "file"):
        sync(path)
    assert len(done) == 2 and (not before or len(os.listdir("/proc/self/fd")) == before)
    with monkeypatch.context() as patch:  # undone before a failure is told, which needs paths
        patch.setattr(os, "name", "nt")
        sync(tmp_path / "file")
        sync(tmp_path)  # Windows has no such thing for folders
    assert len(done) == 3


def test_checkpoints_are_told_by_their_number_and_others_names_are_left_alone(tmp_path):
    assert checkpoint.step_folders(tmp_path / "nowhere") == []
    for name in ("step-000009", "step-1000000", "step-999999", "step-12345", "step-000008.old", "a-step-000001"):
        (tmp_path / name).mkdir()
    assert [f.name for f in checkpoint.step_folders(tmp_path)] == ["step-1000000", "step-999999", "step-000009"]


def test_a_best_that_is_damaged_or_none_gives_way_to_the_last(tmp_path, capsys):
    saved(tmp_path, 6)
    checkpoint.set_best(tmp_path, 5)
    assert (tmp_path / "best").read_text() == "step-000005\n"
    flip(saved(tmp_path, 5) / "model.safetensors", -1)
    found = checkpoint.best(tmp_path)
    assert found is not None and found.state.step == 6
    said = capsys.readouterr()
    assert said.err.endswith(
        "step-000005 is damaged: model.safetensors has changed since it was saved; using the last checkpoint\n"
    )
    assert said.out == ""
    (tmp_path / "best").write_bytes(b"\xff\xfe")
    found = checkpoint.best(tmp_path)
    assert found is not None and found.state.step == 6


def test_nothing_is_pruned_that_shall_be_kept(tmp_path):
    for step in (1, 2, 3):
        saved(tmp_path, step)
    for keep in (0, 3, 4):
        checkpoint.prune(tmp_path, keep)
        assert len(checkpoint.step_folders(tmp_path)) == 3
    checkpoint.prune(tmp_path, 1)
    assert [f.name for f in checkpoint.step_folders(tmp_path)] == ["step-000003"]


def test_another_tokenizer_is_refused_and_a_checkpoint_that_knows_of_none_takes_any(tmp_path):
    checkpoints = tmp_path / "checkpoints"
    checkpoints.mkdir()
    free = saved(checkpoints, 1)
    assert manifest.read_manifest(free).tokenizer is None
    (tmp_path / "tokenizer.json").write_text("mine")
    bound = saved(checkpoints, 2)
    assert manifest.read_manifest(bound).tokenizer == sha256(tmp_path / "tokenizer.json")
    (tmp_path / "tokenizer.json").write_text("another")
    assert checkpoint.verify(free).state.step == 1
    with pytest.raises(UserError, match=f"^{bound} was trained with a different tokenizer.json") as caught:
        checkpoint.verify(bound)
    assert caught.value.exit_code == 1 and not isinstance(caught.value, Damaged)


def test_weights_are_copied_and_adapters_stay_as_they_begin():
    model = nn.Module()
    names = ("plain", "x.lora_A", "x.lora_B")
    for name in names[1:]:
        model.x = getattr(model, "x", nn.Module())
        model.x.register_parameter(name[2:], nn.Parameter(torch.ones(2)))
    assert checkpoint.has_adapters(model) and checkpoint.own_tensors(model).keys() == {"x.lora_A", "x.lora_B"}
    model.register_parameter("plain", nn.Parameter(torch.ones(2)))
    checkpoint.load_weights(model, {"plain": torch.zeros(2)})
    for wrong in ({}, {"plain": torch.zeros(2), "other": torch.zeros(2)}):
        with pytest.raises(KeyError):
            checkpoint.load_weights(model, wrong)
    assert [float(p.detach().sum()) for name, p in sorted(model.named_parameters())] == [0, 2, 2]
    assert not checkpoint.has_adapters(nn.Linear(1, 1))
    assert checkpoint.own_tensors(nn.Linear(1, 1)).keys() == {"weight", "bias"}

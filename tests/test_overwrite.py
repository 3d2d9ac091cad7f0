"""--overwrite replaces what a run wrote, and nothing else: notes stay, and data and base model are not deleted."""

import shutil
from pathlib import Path

import pytest

from configs.errors import UserError
from tests.huggingface import write_folder
from tests.test_mistakes import one_line
from training import run
from training.run import Run, delete_run, open_run, sorted_out

OURS = [
    "run.json", "tokenizer.json", "log.jsonl", "timing.jsonl", "samples.txt", "curves.png", ".run.json.partial",
    ".curves.png.17.partial", "base/model.safetensors", "base/manifest.json", ".base.partial/model.safetensors",
    "checkpoints/best", "checkpoints/.best.17.partial", "checkpoints/step-000005/model.safetensors",
    "checkpoints/step-000005/optimizer.safetensors", "checkpoints/step-000005/state.json",
    "checkpoints/step-000005/manifest.json", "checkpoints/.step-000006.partial/state.json",
]  # fmt: skip
THEIRS = [
    "notes.txt", "log.jsonl.bak", "run.json.old", "corpus/poem.txt", "corpus/run.json", "curves2.png", ".hidden",
    "checkpoints/notes.txt", "checkpoints/step-5/model.safetensors", "best", "samples.txt~", "events/checkpoints/best",
]  # fmt: skip


def filled(folder: Path, names: list[str]) -> Path:
    """A folder with these files."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def files(folder: Path) -> set[str]:
    """The files in it."""
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}


def test_what_a_run_wrote_is_deleted_and_the_rest_is_kept_and_named_in_a_line(tmp_path, capsys):
    folder = filled(tmp_path / "r", [*OURS, *THEIRS])
    open_run(folder, resume=False, overwrite=True).lock.close()
    assert files(folder) == {*THEIRS, "run.lock"}
    assert not (folder / "base").exists() and not (folder / "checkpoints/step-000005").exists()
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "run: .hidden, best, checkpoints/notes.txt, " in err and " and 7 more" in err


def test_a_file_in_a_folder_that_is_replaced_is_not_deleted_with_it(tmp_path):
    for place in ("base", "checkpoints/step-000005"):
        folder = filled(tmp_path / place.replace("/", "-"), [*OURS, f"{place}/notes.txt"])
        with pytest.raises(UserError, match=f"{place}/notes.txt was not written by a run and would be lost"):
            open_run(folder, resume=False, overwrite=True)
        assert {*OURS, f"{place}/notes.txt"} <= files(folder)
        Run(folder).lock.close()  # and the run is not locked


@pytest.mark.parametrize("left", range(len(OURS) - 1))
def test_an_overwriting_that_is_cut_off_leaves_no_run_and_can_be_finished(tmp_path, monkeypatch, left):
    folder = filled(tmp_path / "r", [*OURS, "notes.txt", "run.lock"])
    unlink, deleted = Path.unlink, []

    def cut_off(path: Path) -> None:
        if len(deleted) > left:
            raise KeyboardInterrupt
        deleted.append(path.name)
        unlink(path)

    monkeypatch.setattr(Path, "unlink", cut_off)
    with pytest.raises(KeyboardInterrupt):
        delete_run(folder)
    monkeypatch.undo()
    assert deleted[0] == "run.json"
    with pytest.raises(UserError, match="run not found: "):
        run.read_record(folder)
    for resume in (False, True):  # neither takes the old checkpoints for its own, nor deletes them
        if any(not name.startswith(".") for name in sorted_out(folder)[0]):
            with pytest.raises(UserError, match=r"has files of a run but no run\.json: use --overwrite"):
                open_run(folder, resume, overwrite=False)
    open_run(folder, resume=False, overwrite=True).lock.close()
    assert files(folder) == {"notes.txt", "run.lock"}
    for resume in (False, True):
        open_run(folder, resume, overwrite=False).lock.close()  # what is left is no run, and no reason to refuse one
    assert files(folder) == {"notes.txt", "run.lock"}


def test_a_file_that_cannot_be_deleted_is_one_line(tmp_path, monkeypatch):
    folder = filled(tmp_path / "r", OURS)

    def refused(path: Path) -> None:
        if path.name == "best":
            raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "unlink", refused)
    with pytest.raises(UserError, match=r"cannot delete .*best .Permission denied.; fix its permissions, then repeat"):
        open_run(folder, resume=False, overwrite=True)
    Run(folder).lock.close()


@pytest.fixture
def trained(shell, tiny) -> Path:
    """A run with a note and a corpus in its folder."""
    assert shell("train.py", *tiny, "--train.steps", "2", "--train.eval_every", "2")[0] == 0
    folder = Path("runs/tiny")
    (folder / "notes.txt").write_text("precious")
    (folder / "corpus").mkdir()
    shutil.copy("poem.txt", folder / "corpus/poem.txt")
    Path("link").symlink_to(folder / "corpus")
    Path("poem-link.txt").symlink_to(folder / "corpus/poem.txt")
    return folder


def test_a_note_survives_the_run_that_it_is_about(shell, tiny, trained):
    code, _, err = shell("train.py", *tiny, "--train.steps", "1", "--overwrite")
    assert code == 0 and (trained / "notes.txt").read_text() == "precious"
    assert "runs/tiny: keeping files that were not written by a run: corpus/poem.txt, notes.txt" in err


DATA = [
    ["runs/tiny/corpus/poem.txt"], ["runs/tiny/corpus"], ["runs/tiny/corpus/*.txt"], ["./runs/../runs/tiny/corpus"],
    ["link"], ["link/poem.txt"], ["poem-link.txt"], ["poem.txt", "link"], ["runs"], ["."], ["**/poem.txt"],
    ["runs/tiny/samples.txt"], ["runs/tiny/log.jsonl"], ["ABSOLUTE"],
]  # fmt: skip


@pytest.mark.parametrize("paths", DATA, ids=" ".join)
def test_a_run_that_contains_the_data_is_not_overwritten(shell, tiny, trained, workplace, paths):
    before = files(trained)
    paths = [str((trained / "corpus/poem.txt").absolute()) if path == "ABSOLUTE" else path for path in paths]
    one_line(shell("train.py", *tiny, "--overwrite", "--data.path", *paths), "data.path", "runs/tiny", "--run NAME")
    assert files(trained) == before


STARTS = ["tiny", "./runs/tiny", "runs/tiny/checkpoints/step-000002", "out/../runs/tiny", "runs/tiny/hf", "hf-link"]


@pytest.mark.parametrize("start", STARTS)
def test_a_run_that_contains_the_base_model_is_not_overwritten(shell, tiny, trained, start):
    Path("out").mkdir()
    write_folder(trained / "hf")
    Path("hf-link").symlink_to(trained / "hf")
    Path("tuned.toml").write_text('[data]\npath = "poem.txt"\n[train]\nsteps = 1\n')
    before = files(trained)
    code, out, err = shell("train.py", "tuned.toml", "--run", "tiny", "--overwrite", "--train.start", start)
    last = err.splitlines()[-1]
    assert (code, out, err.count("error:")) == (2, "", 1) and "Traceback" not in err
    assert last.startswith("error: --overwrite: runs/tiny contains ") and "train.start" in last and "--run NAME" in last
    assert files(trained) == before


def test_data_and_base_beside_the_run_are_no_reason_to_refuse(shell, tiny, trained):
    shutil.copytree("runs/tiny", "runs/tiny2")
    shutil.copytree("runs/tiny/corpus", "runs/tinycorpus")
    Path("tuned.toml").write_text('[data]\npath = "runs/tinycorpus"\n[train]\nsteps = 1\n')
    code, _, err = shell("train.py", "tuned.toml", "--overwrite", "--run", "tiny", "--train.start", "tiny2")
    assert code == 0, err


def test_nothing_is_deleted_before_the_new_run_begins(shell, tiny, trained, monkeypatch):
    before = files(trained)
    monkeypatch.setattr("training.prepare.describe", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        shell("train.py", *tiny, "--overwrite")
    assert files(trained) == before

"""Data that has changed is noticed, and files of other versions are neither damaged nor lost."""

import hashlib
import json
import os
import shlex
import shutil
from pathlib import Path

import pytest
import torch

from data import digits
from data.digits import Digits, fingerprint
from tests.conftest import ROOT, TINY
from tests.processes import untimed
from tests.test_resume_settings import DIGITS, content, few_digits, refused, resolved, rewrite

EARLIER = json.loads((ROOT / "tests/earlier_runs.json").read_text())
"""run.json as earlier commits wrote it: "text" and "digits" just before there was a format number, "first text" when
a text's fingerprint was computed in another way"""


@pytest.fixture(autouse=True)
def quickly(monkeypatch):
    """Few images, and no step is timed."""
    monkeypatch.setitem(digits.DATASETS, "mnist-5k", few_digits)
    monkeypatch.setattr("train.seconds_per_step", untimed)
    monkeypatch.setattr("train.draw_curves", lambda folder: None)


@pytest.fixture
def text(shell, poem) -> Path:
    """A finished run of a text network."""
    poem.with_name("text.toml").write_text(TINY)
    assert shell("train.py", "text.toml")[0] == 0
    return Path("runs/text")


@pytest.fixture
def mlp(shell, workplace) -> Path:
    """A finished run of a digit network."""
    (workplace / "digits.toml").write_text(DIGITS)
    assert shell("train.py", "digits.toml")[0] == 0
    return Path("runs/digits")


def one_label(splits: dict, split: str) -> None:
    _, labels = splits[split]
    labels[3] = (labels[3] + 1) % 10


def one_pixel(splits: dict, split: str) -> None:
    images, _ = splits[split]
    images[2, 400] ^= 1


def the_order(splits: dict, split: str) -> None:
    images, labels = splits[split]
    splits[split] = (images.flip(0), labels.flip(0))


CHANGES = [one_label, one_pixel, the_order]


@pytest.mark.parametrize("split", ["train", "val", "test"])
@pytest.mark.parametrize("change", CHANGES)
def test_digits_that_have_changed_are_noticed_with_a_command_that_works(shell, mlp, monkeypatch, change, split):
    before = content(mlp)
    assert shell("train.py", "--resume", "--run", "digits", "--dry-run")[::2] == (0, "")
    splits = few_digits()
    change(splits, split)
    monkeypatch.setitem(digits.DATASETS, "mnist-5k", lambda val_fraction: splits)
    result = shell("train.py", "--resume", "--run", "digits", "--optim.lr", "0.5")  # of which nothing is said
    command = refused(result)
    assert "the data (mnist-5k) has changed since runs/digits started, so it cannot be resumed exactly" in result[2]
    assert content(mlp) == before
    assert shell(*command)[0] == 0 and resolved(Path("runs/digits-2"))["train"]["start"] == "runs/digits"


def test_a_fingerprint_tells_splits_apart_and_is_the_same_twice():
    splits = few_digits()
    assert fingerprint(splits) == fingerprint(few_digits()) == Digits(splits).sha256
    moved = dict(splits) | {"train": splits["val"], "val": splits["train"]}
    assert fingerprint(moved) != fingerprint(splits)
    with_more = splits | {"mnist-test": splits["test"]}  # there or not, as MNIST is at hand or not
    assert fingerprint(with_more) == fingerprint(splits)


def test_a_digits_fingerprint_is_sha256_over_names_counts_images_and_labels():
    images = torch.arange(784, dtype=torch.uint8).expand(1, 784)
    expected = hashlib.sha256(b"train 1 " + bytes(i % 256 for i in range(784)) + b"\x07").hexdigest()
    assert fingerprint({"train": (images, torch.tensor([7]))}) == expected


def test_a_text_that_was_touched_but_not_changed_resumes(shell, text, poem):
    os.utime(poem, (1, 1))
    assert shell("train.py", "--resume", "--run", "text", "--train.steps", "13")[0] == 0


def test_one_byte_of_a_text_is_noticed(shell, text, poem):
    poem.write_text(poem.read_text().replace("lazy", "hazy", 1))
    result = shell("train.py", "--resume", "--run", "text")
    assert "the data (poem.txt) has changed since runs/text started" in result[2]
    assert shell(*refused(result))[0] == 0


def test_a_text_that_grew_by_characters_without_a_token_is_fine_tuned_on_as_is_advised(shell, text, poem):
    poem.write_text(poem.read_text() + "Größe: 5 €\n" * 9)
    result = shell("train.py", "--resume", "--run", "text")
    assert "the data (poem.txt) has changed since runs/text started" in result[2]
    command = refused(result)
    assert "--data.extend" in command and shell(*command)[0] == 0
    assert resolved(Path("runs/text-2"))["model"]["vocab_size"] > resolved(text)["model"]["vocab_size"]


def test_a_text_of_which_too_little_is_left_has_changed(shell, text, poem):
    poem.write_text(poem.read_text()[:100])
    code, _, err = shell("train.py", "--resume", "--run", "text")
    assert code == 2 and err.startswith("error: the data (poem.txt) has changed since runs/text started: ")
    assert "too small" in err and err.count("\n") == 1


def earlier(run: Path, name: str) -> None:
    """Make a run what an earlier commit wrote: its run.json, and manifests and states without a format number."""
    (run / "run.json").write_text(json.dumps(EARLIER[name]))
    for step in (run / "checkpoints").glob("step-*"):
        state = json.loads((step / "state.json").read_text())
        manifest = json.loads((step / "manifest.json").read_text())
        old = ("step", "log_bytes") if name == "first text" else ("step", "log_bytes", "quantized")
        (step / "manifest.json").write_text(
            json.dumps({n: v for n, v in manifest.items() if n == "sha256" or (n == "tokenizer" and name == "text")})
        )
        rewrite(step / "state.json", json.dumps({n: state[n] for n in old}))


def test_a_text_run_from_before_formats_resumes_samples_and_still_notices_a_change(shell, text, poem):
    earlier(text, "text")
    assert shell("sample.py", "text", "--max-tokens", "3")[0] == 0
    assert shell("train.py", "--resume", "--run", "text", "--dry-run")[::2] == (0, "")
    before = poem.read_text()
    poem.write_text(before.replace("lazy", "hazy", 1))
    assert "has changed" in shell("train.py", "--resume", "--run", "text")[2]
    poem.write_text(before)
    code, _, err = shell("train.py", "--resume", "--run", "text", "--train.steps", "14")
    assert code == 0 and "warning" not in err
    record = json.loads((text / "run.json").read_text())
    assert record["format"] == 1 and record["data_sha256"] == EARLIER["text"]["data_sha256"]


@pytest.mark.parametrize("name", ["digits", "first text"])
def test_where_no_fingerprint_can_be_compared_one_warning_says_so_and_the_next_resume_compares(
    shell, request, monkeypatch, name
):
    run = request.getfixturevalue("mlp" if name == "digits" else "text")
    earlier(run, name)
    words = ["train.py", "--resume", "--run", run.name, "--train.steps"]
    steps = EARLIER[name]["resolved"]["train"]["steps"]
    code, _, err = shell(*words, steps + 1)
    assert code == 0 and err.count("warning") == 1, err
    assert f"cannot check that the data is unchanged: {run} was trained with another version of pellucid" in err
    code, _, err = shell(*words, steps + 2)
    assert code == 0 and "warning" not in err
    if name == "digits":
        monkeypatch.setitem(digits.DATASETS, "mnist-5k", lambda val_fraction: few_digits(val_fraction, seed=1))
    else:
        Path("poem.txt").write_text("Another text altogether, over the lazy dog.\n" * 90)
    assert "has changed" in shell(*words, steps + 3)[2]


def test_a_fingerprint_of_a_later_recipe_cannot_be_compared(shell, mlp):
    record = json.loads((mlp / "run.json").read_text())
    (mlp / "run.json").write_text(json.dumps(record | {"data_recipe": 2, "data_sha256": "0" * 64}))
    code, _, err = shell("train.py", "--resume", "--run", "digits", "--dry-run")
    assert code == 0 and "cannot check that the data is unchanged" in err


NEWER = "was written by a newer version of pellucid (format 2; this version reads up to 1); update pellucid\n"


def newer(file: Path) -> dict[str, bytes]:
    """Make a file of the present format one of the next, with something in it that is not known yet."""
    rewritten = json.loads(file.read_text())
    (rewritten.get("index", rewritten))["format"] = 2
    file.write_text(json.dumps(rewritten | {"novelty": True}))
    return content(Path.cwd())


READERS = [
    "sample.py text --max-tokens 3",
    "train.py --resume --run text",
    "train.py text.toml --run next --train.start text",
    "export.py text out",
]


@pytest.mark.parametrize("words", READERS)
@pytest.mark.parametrize("name", ["run.json", "tokenizer.json", "state.json", "manifest.json"])
def test_a_run_of_a_newer_version_is_called_that_and_stays_as_it_is(shell, text, words, name):
    newest = max((text / "checkpoints").glob("step-*"))
    file = text / name if (text / name).exists() else newest / name
    (text / "checkpoints/best").write_text(newest.name + "\n")
    newer(file)
    if name == "state.json":
        rewrite(file, file.read_text())
    elif name == "tokenizer.json":
        for manifest in (text / "checkpoints").glob("step-*/manifest.json"):  # as if it had always been there
            found = json.loads(manifest.read_text())
            manifest.write_text(json.dumps({n: v for n, v in found.items() if n != "tokenizer"}))
    elif name == "manifest.json":
        (newest / "something-new.bin").write_bytes(b"1")
    before = content(Path.cwd())
    code, _, err = shell(*shlex.split(words))
    where = "command line: train.start: " if "--train.start" in words else ""  # which setting led to the file
    assert code == 1 and err.endswith(f"error: {where}{file} {NEWER}") and "damaged" not in err
    assert content(Path.cwd()) == before or name == "state.json"


@pytest.mark.parametrize("name", ["index.json", "tokenizer.json"])
@pytest.mark.parametrize("moved", [True, False])
def test_tokens_that_a_newer_version_prepared_are_called_that_and_stay(shell, text, tmp_path, monkeypatch, name, moved):
    monkeypatch.setattr("data.prepare.TOKENS", tmp_path / "tokens")
    assert shell("train.py", "text.toml", "--run", "first")[0] == 0
    (folder,) = (path for path in (tmp_path / "tokens").iterdir() if path.is_dir())
    if moved:
        folder = Path(shutil.move(folder, tmp_path / "moved"))
    before = newer(folder / name)
    words = ["--data.path", "moved"] if moved else []
    code, _, err = shell("train.py", "text.toml", "--run", "next", *words)
    assert code == 1 and err.endswith(f"{name} {NEWER}") and "damaged" not in err, err
    assert content(Path.cwd()) == before


@pytest.mark.parametrize("number", ['"2"', "2.5", "null", "[2]", "-1", "1" * 5000])
def test_a_format_that_is_no_number_of_a_version_is_damage(shell, text, number):
    record = (text / "run.json").read_text()
    (text / "run.json").write_text(record.replace('"format": 1', f'"format": {number}', 1))
    code, _, err = shell("sample.py", "text")
    assert code == 1 and "is damaged" in err and err.count("\n") == 1


def test_tokens_of_an_older_version_are_prepared_again(shell, text, tmp_path, monkeypatch):
    monkeypatch.setattr("data.prepare.TOKENS", tmp_path / "tokens")
    assert shell("train.py", "text.toml", "--run", "first")[0] == 0
    monkeypatch.setattr("data.prepare.VERSION", 2)
    assert shell("train.py", "text.toml", "--run", "next")[0] == 0
    assert len([path for path in (tmp_path / "tokens").iterdir() if path.is_dir()]) == 2


def test_the_fingerprint_of_a_text_is_that_of_recipe_1(text, poem):
    """What the version before format numbers recorded for the same text: a run must not be told that it changed."""
    assert json.loads((text / "run.json").read_text())["data_sha256"] == EARLIER["text"]["data_sha256"]

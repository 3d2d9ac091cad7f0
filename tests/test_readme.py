"""The README is true: every command in it does what it says."""

import json
import re
import shlex
import shutil
from collections.abc import Callable
from statistics import mean

import pytest

from data.find import python_stdlib
from tests.conftest import POEM, ROOT

README = (ROOT / "README.md").read_text()


COMMAND = r"python ((?:train|sample|export|explore)\.py"


def commands() -> list[list[str]]:
    """Every call of a script in the README, in its order, once each."""
    lines = re.findall(rf"^(?:\$ )?{COMMAND} .*)$|`{COMMAND} [^`]*)`", README, re.M)
    return [shlex.split(words, comments=True) for words in dict.fromkeys(a or b for a, b in lines)]


def test_every_command_works(shell, workplace, monkeypatch):
    some = python_stdlib()[::20]  # of the same kind, and quicker
    monkeypatch.setattr("data.find.python_stdlib", lambda: some)
    monkeypatch.setattr("training.plan.TRIAL_SECONDS", 0)
    shutil.copytree(ROOT / "configs", "configs")
    (workplace / "my.txt").write_text(POEM * 5 + "Once upon a time")
    write_three(workplace / "three.png")
    done = set()
    for script, *words in commands():
        code, _, err = shell(script, *shortened(script, words))
        assert code == 0, (script, words, err)
        done.add(script)
    assert len(commands()) >= 10 and done >= {"train.py", "sample.py", "export.py"}


def shortened(script: str, words: list[str]) -> list[str]:
    """The same command, so that it takes a second."""
    if script == "explore.py" and len(words) == 1 and words[0] != "--help":
        return [*words, "--export", "page.html"]  # instead of a server, which would wait for someone to look
    if script in ("export.py", "explore.py") or {"--test-digits", "--image", "--help", "--list"} & set(words):
        return words
    if script == "sample.py":
        return [*words, "--max-tokens", "9"]
    if "--train.minutes" in words:
        at = words.index("--train.minutes")
        words = words[:at] + words[at + 2 :]
    short = ["--train.steps", "3", "--train.eval_every", "3", "--log.sample_tokens", "5"]
    return [*words, "--overwrite", *short]


def write_three(file) -> None:
    """A drawing of a 3."""
    from PIL import Image, ImageDraw

    picture = Image.new("L", (200, 200), "white")
    ImageDraw.Draw(picture).line([(60, 40), (130, 60), (90, 95), (140, 130), (60, 160)], fill="black", width=16)
    picture.save(file)


def test_what_the_readme_points_to_is_there():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
    for config in re.findall(r"`(\w+\.toml)`", README):
        assert (ROOT / "configs" / config).exists(), config


def column(name: str, key: str) -> list[float]:
    """One value of every row of a committed result."""
    return [row[key] for row in json.loads((ROOT / f"benchmarks/results/{name}.json").read_text())["rows"]]


def percent(name: str, key: str = "test_accuracy") -> Callable[[], float]:
    """The mean over the rows, in percent."""
    return lambda: 100 * mean(column(name, key))


def average(name: str, key: str) -> Callable[[], float]:
    """The mean over the rows."""
    return lambda: mean(column(name, key))


TUNED = "finetune_shakespeare"
FIGURES: dict[str, Callable[[], float]] = {  # where the README has a number, and what was measured
    r"`digits_demo\.toml`.* ([\d.]+) % of 1,000 test images \(five seeds\)": percent("digits_demo"),
    r"`digits\.toml`.* ([\d.]+) % of 10,000 test images \(three seeds\)": percent("digits"),
    r"`digits_modern\.toml`.* ([\d.]+) % \(five seeds\)": percent("digits_modern"),
    r"`python\.toml` .* ([\d.]+) bits per byte": average("python", "val_bits_per_byte"),
    r"(?m)^step 1,026: .* bits per byte ([\d.]+)$": average("python", "val_bits_per_byte"),
    r"(?m)^done: ([\d,]+) steps, saved in runs/python": average("python", "steps"),
    r"shakespeare_adamw\.toml\): ([\d.]+)": average("shakespeare_adamw", "val_loss"),
    r"`shakespeare_hour\.toml`.* ([\d.]+) and [\d.]+ nats": lambda: column("shakespeare_hour", "val_loss")[0],
    r"`shakespeare_hour\.toml`.* [\d.]+ and ([\d.]+) nats": lambda: column("shakespeare_hour", "val_loss")[1],
    r"the base untouched ([\d.]+)": average(TUNED, "untouched"),
    r"from nothing ([\d.]+)": average(TUNED, "scratch"),
    r"nothing in 600 steps ([\d.]+)": average(TUNED, "scratch_3x"),
    r"fine-tuned \*\*([\d.]+)\*\*": average(TUNED, "finetuned"),
    r"adapters of rank 8 \((\d+) % of the parameters\)": percent(TUNED, "lora_trainable"),
    r"adapters of rank 8 \(.*\) ([\d.]+)\.": average(TUNED, "lora"),
}


@pytest.mark.parametrize("where", FIGURES)
def test_a_figure_is_what_was_measured(where):
    found = re.findall(where, README)
    assert len(found) == 1, found
    number = found[0].replace(",", "")
    assert number == f"{FIGURES[where]():.{len(number.partition('.')[2])}f}"


@pytest.mark.parametrize(
    ("name", "word"), [("digits_demo", "five"), ("digits", "three"), ("digits_modern", "five"), (TUNED, "three")]
)
def test_as_many_seeds_were_run_as_the_readme_says(name, word):
    where = {TUNED: r"mean of (\w+) seeds"}.get(name, rf"`{name}\.toml`.*\((\w+) seeds\)")
    assert re.findall(where, README) == [word]
    assert len(set(column(name, "seed"))) == {"three": 3, "five": 5}[word]


def test_the_plan_in_the_readme_adds_up():
    layers, width, windows, context = 4, 128, 24, 64  # configs/python.toml: bytes, rotary positions, no biases
    parameters = 257 * width + layers * (12 * width * width + 2 * width) + width
    printed = README[README.index("configs/python.toml --train.minutes") :]
    assert f"\n{parameters:,} parameters, " in printed
    found = re.search(r"([\d,]+) windows to learn.*\n([\d,]+) steps of 24 windows = ([\d,]+) tokens", printed)
    assert found
    train, steps, seen = (int(number.replace(",", "")) for number in found.groups())
    assert seen == steps * windows * context
    assert f"{steps * windows / train:.1f} epochs" in printed


def test_make_has_the_targets_that_the_readme_names():
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M)
    assert set(re.findall(r"^make (\w+)", README, re.M)) <= set(targets)

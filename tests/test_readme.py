"""The README is true: every command in it does what it says."""

import re
import shlex
import shutil

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


def test_make_has_the_targets_that_the_readme_names():
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M)
    assert set(re.findall(r"^make (\w+)", README, re.M)) <= set(targets)

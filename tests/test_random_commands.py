"""Whatever a config or a command line holds, only declared settings of declared types come through."""

import json
import tomllib
from contextlib import redirect_stdout
from datetime import datetime
from io import StringIO
from pathlib import Path
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from configs.command import SETTINGS, check, parse
from configs.errors import UserError, one_line

FLAGS = ["--resume", "--overwrite", "--dry-run", "--run", "--run=x"]
WORDS = ["gpt", "mlp", "auto", "adamw", "muon", "python-stdlib", "byte", "inf", "nan", "1e-3", "10", "-1", "true", "[]"]
words = st.sampled_from(WORDS) | st.text(max_size=8)
values = st.recursive(
    st.booleans() | st.integers() | st.integers(-2, 20) | st.floats() | st.floats(0, 1) | words | st.datetimes(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=2),
    max_leaves=4,
)
keys = st.sampled_from(SETTINGS) | st.builds("{}.{}".format, st.sampled_from(["model", "train", "x"]), words)
GOOD = {"model.kind": "gpt", "model.n_embd": 8, "model.n_head": 2, "data.path": ["a.txt"], "train.steps": 3}
trees = st.dictionaries(keys, values, max_size=3).map(lambda tree: GOOD | tree) | st.dictionaries(keys, values)


def toml(value: Any) -> str:
    """The value as TOML writes it, for what JSON has not another notation."""
    match value:
        case bool():
            return str(value).lower()
        case datetime():
            return value.isoformat()
        case dict():
            return "{" + ", ".join(f"{json.dumps(key)} = {toml(inner)}" for key, inner in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(toml, value)) + "]"
        case str():
            return json.dumps(value)
        case _:
            return repr(value)


def document(tree: dict[str, Any]) -> str:
    """One `section."key" = value` a line."""
    lines = (
        ".".join(json.dumps(part) for part in name.split(".")) + f" = {toml(value)}" for name, value in tree.items()
    )
    return "\n".join(lines) + "\n"


def understood(arguments: list[str]) -> dict[str, Any] | None:
    """The settings of a command; None where it is answered in one line that a shell would see as a mistake."""
    try:
        return parse(arguments).settings
    except UserError as error:
        assert error.exit_code == 2 and one_line(error) and "Traceback" not in str(error)
        return None


def same(asked: Any, got: Any) -> bool:
    """Whether a setting is what was asked for, and of its type: no text became a number, no boolean an integer."""
    if isinstance(asked, list | tuple):
        return len(asked) == len(got) and all(map(same, asked, got))
    if isinstance(got, float) and type(asked) is int:
        return got == asked
    if isinstance(got, tuple) and isinstance(asked, str):
        return got == (asked,)
    return type(asked) is type(got) and asked == got


def require_declared(given_settings: dict[str, Any]) -> None:
    """Every setting that came through is declared, and is in the config as it was given."""
    assert given_settings.keys() <= {*SETTINGS} | {"model.lora"}
    config = check(given_settings, {})
    for name, asked in given_settings.items():
        got: Any = config
        for part in name.split("."):
            got = getattr(got, part)
        assert same(asked, got) or (name == "model.lora" and got is not None), (name, asked, got)


options = st.builds("--{}={}".format, keys, words | values.map(str)) | st.sampled_from(FLAGS) | words


@settings(deadline=None)
@given(tree=trees)
@example(tree=GOOD)
def test_only_declared_settings_come_through_from_any_toml(tree, tmp_path_factory):
    file = tmp_path_factory.getbasetemp() / "any.toml"
    file.write_text(document(tree), encoding="utf-8", errors="surrogatepass")
    found = understood([str(file)])
    assert found is not None or tree != GOOD
    if found is not None:
        assert tomllib.loads(file.read_text())
        require_declared(found)


@settings(deadline=None)
@given(given_words=st.lists(options, max_size=4))
@example(given_words=["--model.sizes=inf"])
@example(given_words=["--resume", ""])
def test_only_declared_settings_come_through_from_any_command_line(given_words, tmp_path_factory):
    file = tmp_path_factory.getbasetemp() / "good.toml"
    file.write_text(document(GOOD))
    said = StringIO()
    try:
        with redirect_stdout(said):
            found = understood([str(file), *given_words])
    except SystemExit as end:  # -h is among all the words there are
        assert end.code == 0 and any(word.startswith("-h") or word == "--help" for word in given_words)
        assert "usage" in said.getvalue()
        return
    if found is not None:
        assert found.keys() <= {*SETTINGS}
        config = check(found, {})
        assert config.train.steps is None or type(config.train.steps) is int
    assert not Path("runs/x").exists()

"""Every name that a file system allows can be given, from the command line to the files of a run and back."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from configs.command import CLI, parse
from configs.errors import UserError, for_shell, one_line
from configs.schema import Config
from configs.words import LISTS, TEXTS, json_list, parts, take_texts
from tests.conftest import POEM
from training.run import Record, read_record, run_folder

NOT_UTF8 = "\udcff\udcfe.txt"  # as Python gives the bytes FF FE on Linux
HOSTILE = [
    "Füße.txt", 'a"b.txt', "a'b.txt", "a\\b.txt", "a\nb.txt", "a\tb.txt", "\r", '["', '["a.txt", "b.txt"', "[x]", "[]",
    "{a}", '{"a": 1}', "a,b", ",", "null", "None", "true", "1e5", "*", "?", "$HOME", "$(ls)", " ", " x ", "#", "=",
    "a=b", "日本語.txt", NOT_UTF8, "\x1b[31mred", "\u202e.txt", "%s", "\N{GRINNING FACE}", "data.path", '"', "\\",
]  # fmt: skip
names = st.text(st.characters(exclude_characters="\0", exclude_categories=())) | st.sampled_from(HOSTILE)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A config that is good."""
    file = tmp_path_factory.mktemp("config") / "good.toml"
    file.write_text('[model]\nkind = "gpt"\n[data]\npath = "a.txt"\n[train]\nsteps = 3\nstart = "b"\n')
    return str(file)


def given_on_the_command_line(config: str, words: list[str]) -> dict[str, object]:
    """The settings that these words make."""
    command = parse([config, *words])
    return {name: value for name, value in command.settings.items() if command.origins[name] == CLI}


@settings(deadline=None)
@given(option=st.sampled_from(sorted(LISTS)), texts=st.lists(names, min_size=1))
@example(option="data.path", texts=HOSTILE)
@example(option="train.freeze", texts=["--overwrite", "-x", "-", ""])
def test_a_list_of_any_texts_comes_back_as_it_was_typed(option, texts):
    seed, length = ["--train.seed", "4"], ["--train.steps=3"]
    if not any(map(json_list, texts)):
        repeated = [f"--{option}={text}" for text in texts]
        assert take_texts([*seed, *repeated, *length]) == ([*seed, *length], {option: texts})
    texts = [text.lstrip("-") for text in texts]
    if len(texts) > 1 or not json_list(texts[0]):
        for words in ([f"--{option}", *texts], [f"--{option}={texts[0]}", *texts[1:]]):
            assert take_texts([*seed, *words, *length]) == ([*seed, *length], {option: texts})


@given(option=st.sampled_from(sorted(TEXTS)), text=names)
@example(option="train.start", text="--overwrite")
def test_a_single_text_comes_back_as_it_was_typed(option, text):
    assert take_texts(["--train.seed=4", f"--{option}={text}"]) == (["--train.seed=4"], {option: text})
    text = text.lstrip("-")
    assert take_texts([f"--{option}", text, "--dry_run"]) == (["--dry_run"], {option: text})


def test_hostile_names_become_settings(config):
    paths = [*HOSTILE, "--overwrite", "-"]
    words = [f"--data.path={path}" for path in paths]
    assert given_on_the_command_line(config, [*words, "--train.seed=4"]) == {"data.path": paths, "train.seed": 4}
    assert given_on_the_command_line(config, ["--data.path", *HOSTILE]) == {"data.path": HOSTILE}
    for text in ("None", "null", '{"a": 1}', "[x]", 'a "b".txt', NOT_UTF8, "-x"):
        assert given_on_the_command_line(config, [f"--train.start={text}"]) == {"train.start": text}
        assert parse([config, f"--run={text}"]).run == text


def test_of_an_option_that_is_repeated_a_list_collects_and_a_text_takes_the_last(config):
    words = ["--data.path", "a", "b", "--train.start", "x", "--data.path=c", "--train.start", "y", "--data.path", "a"]
    assert given_on_the_command_line(config, words) == {"data.path": ["a", "b", "c", "a"], "train.start": "y"}
    matrices = ["--model.lora.targets", "query", "--model.lora.targets", "up", "down"]
    assert given_on_the_command_line(config, matrices) == {"model.lora.targets": ["query", "up", "down"]}


def test_one_word_may_be_a_json_list_unless_a_file_has_that_very_name(config, workplace):
    word = '["a.txt", "F\\u00fc\\u00dfe.txt"]'
    assert given_on_the_command_line(config, ["--data.path", word]) == {"data.path": ["a.txt", "Füße.txt"]}
    assert given_on_the_command_line(config, ["--data.path", word, "x"]) == {"data.path": [word, "x"]}
    (workplace / word).write_text(POEM)
    assert given_on_the_command_line(config, [f"--data.path={word}"]) == {"data.path": [word]}
    for text in ("[]", "[1]", '["a", 1]', '["a"', "[x]", '"a"', '{"a": "b"}', "[" * 100_000, f"[{'9' * 10_000}]"):
        assert json_list(text) == []


def test_the_options_whose_values_are_text_follow_from_the_schema():
    assert LISTS == {"data.path", "data.extensions", "train.freeze", "model.lora.targets"}
    assert TEXTS >= {"run", "train.start", "data.field", "train.device"}
    assert not TEXTS & {"train.threads", "train.steps", "model.bias", "model.sizes", "optim.betas", "optim.lr"}
    assert parts(list[str] | None) == {list, str, type(None)}


@settings(deadline=None, max_examples=25)
@given(st.lists(names.map(lambda name: name.replace("\ud800", "")), min_size=1, max_size=30))
@example(HOSTILE)
def test_a_name_in_a_command_is_printable_and_bash_reads_it_back(texts):
    texts = [text for text in texts if file_system_allows(text)]
    words = [for_shell(text) for text in texts]
    assert all(word.isprintable() and one_line(word) for word in words)
    bash = shutil.which("bash") or pytest.skip("no bash")
    done = subprocess.run([bash, "-c", f"printf '%s\\0' {' '.join(words)}"], capture_output=True, check=True)
    assert done.stdout.split(b"\0")[:-1] == ([os.fsencode(text) for text in texts] or [b""])


def file_system_allows(name: str) -> bool:
    """Whether Python can ask for a file of this name."""
    try:
        return "\0" not in os.fsdecode(os.fsencode(name))
    except UnicodeEncodeError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="other systems allow fewer names")
def test_a_run_of_hostile_names_is_trained_resumed_sampled_explored_and_exported(shell, tiny, workplace):
    for number, name in enumerate(HOSTILE):
        Path(name).write_text(f"{POEM}{number}")
    Path("-x.txt").write_text(POEM)
    Path("mnist").write_text(POEM)
    Path("~").write_text(POEM)
    run = "Fü ß\n'e\"\\$x[1]"
    paths = [*HOSTILE, "./-x.txt", "./mnist", "~"]
    code, _, err = shell("train.py", *tiny, "--data.path", *paths, "--run", run, "--train.device", "cpu")
    assert code == 0 and err.endswith(f"python sample.py {for_shell(f'runs/{run}')}\n")
    record = read_record(Path("runs", run))
    assert record.asked["data.path"] == record.resolved.data.path == paths
    assert shell("train.py", "--resume", "--run", run, "--train.steps", "14")[0] == 0
    assert shell("train.py", "--resume", "--run", run, "--dry-run")[1].count("\n") == 1
    start = ["--train.start", run, "--run", "next", f"--data.path={NOT_UTF8}", "--data.path", "[x]", "--train.steps=1"]
    assert shell("train.py", *tiny, *start)[0] == 0
    assert read_record(Path("runs/next")).resolved.train.start == run
    for word in (run, f"runs/{run}", f"./runs/{run}/"):
        assert shell("sample.py", word, "--prompt", "The", "--max-tokens", "3")[0] == 0
    assert one_line(run) in shell("sample.py", "--list")[1]
    assert shell("explore.py", run, "parameters")[0] == 0
    for format in (["--format", "transformers"], ["--quantize", "int8"]):
        assert shell("export.py", run, f"{run} {format[1]}", *format)[0] == 0
    assert shell("sample.py", f"./{run} int8", "--prompt", "The", "--max-tokens", "3")[0] == 0
    Path("runs", run, "curves.png").stat()


@pytest.mark.parametrize("words", [["--run", "a\udcff"], ["--train.start", "a\udcff/b"]], ids=ascii)
def test_a_folder_of_weights_whose_name_is_not_utf8_is_refused_before_anything_is_done(shell, tiny, words):
    code, out, err = shell("train.py", *tiny, *words)
    assert (code, out) == (2, "") and err.count("\n") == 1 and "is not valid UTF-8" in err and "\\udcff" in err
    assert not Path("runs").exists()


def test_a_name_may_have_255_bytes_in_each_part_of_a_path():
    assert run_folder("x" * 255).name == "x" * 255
    assert run_folder("/".join(["x" * 255] * 3)).name == "x" * 255
    for name in ("x" * 256, f"a/{'ü' * 128}/b"):
        with pytest.raises(UserError, match="is not a valid run name"):
            run_folder(name)


def test_a_config_whose_name_is_not_utf8_is_recorded(shell, tiny, workplace):
    os.rename("tiny.toml", b"\xff.toml")
    assert shell("train.py", "\udcff.toml", "--run", "r", "--train.steps", "1")[0] == 0
    assert read_record(Path("runs/r")).origins["data.path"] == "\udcff.toml"


@settings(deadline=None)
@given(st.lists(names.filter(bool), min_size=1), names)
def test_a_record_of_any_names_is_ascii_and_comes_back(paths, origin):
    config = Config.model_validate({"model": {"kind": "gpt"}, "data": {"path": paths}, "train": {"steps": 1}})
    record = Record(
        asked={"data.path": paths}, origins={"data.path": origin or "x"}, resolved=config, data_sha256="", machine={}
    )
    assert record.to_json().isascii()
    assert Record.model_validate(json.loads(record.to_json())) == record

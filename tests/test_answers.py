"""How a command ends: its exit code, its one line, and what is never on that line. And files that may be hostile."""

import os
import signal
import sys

import pytest
from pydantic import ValidationError

from configs import errors
from configs.errors import UserError, answer, did_you_mean, one_line, reason, result_or_exit, spoken_once
from configs.files import LARGEST_JSON, LONGEST_LINE, MOST_VALUES, Damaged, lines_of, require_file, small
from configs.schema import DataConfig, GPTConfig


def raising(error: BaseException):
    """A main function that goes wrong."""

    def main() -> None:
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UserError("no"), 2, "error: no\n"),
        (UserError("no\nmore\x1b", 3), 3, "error: no more\n"),
        (KeyboardInterrupt(), 130, ""),
        (
            ModuleNotFoundError("x", name="peft"),
            1,
            "error: this needs peft, which is not installed: pip install peft\n",
        ),
        (PermissionError(13, "Permission denied", "a/b"), 1, "error: a/b: Permission denied\n"),
        (OSError(28, "No space left on device"), 1, "error: No space left on device\n"),
        (OSError("odd\x07"), 1, "error: odd\\x07\n"),
    ],
)
def test_what_goes_wrong_is_an_exit_code_and_one_line(capsys, error, code, line):
    assert answer(raising(error)) == code
    assert capsys.readouterr() == ("", line.replace("more\n", "more\\x1b\n"))


def test_what_goes_well_is_zero_or_what_main_returns(capsys):
    assert (answer(lambda: None), answer(lambda: 0), answer(lambda: 7)) == (0, 0, 7)
    assert capsys.readouterr() == ("", "")


def test_a_reader_that_has_gone_is_no_mistake(capfd):
    code, (out, err) = answer(raising(BrokenPipeError())), capfd.readouterr()
    assert (code, out, err) == (1, "", "")
    kept = os.dup(1)
    try:
        assert answer(raising(BrokenPipeError())) == 1
        assert os.fstat(sys.stdout.fileno()).st_rdev == os.stat(os.devnull).st_rdev  # what is left goes nowhere
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def test_a_result_comes_back_and_a_mistake_ends_the_process(capsys):
    assert result_or_exit(lambda: 0) == 0 and result_or_exit(lambda: [3]) == [3]
    with pytest.raises(SystemExit) as ended:
        result_or_exit(raising(UserError("no", 3)))
    assert ended.value.code == 3 and capsys.readouterr().err == "error: no\n"


@pytest.mark.parametrize(
    ("world", "rank", "heard"), [(None, None, 1), ("1", "5", 1), ("2", "0", 1), ("2", None, 1), ("2", "1", 0)]
)
def test_of_several_processes_the_first_is_heard(capsys, monkeypatch, world, rank, heard):
    for name, value in (("WORLD_SIZE", world), ("RANK", rank)):
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name, raising=False)
    done = []
    with spoken_once():
        print("out")
        print("error: ü", file=sys.stderr)
        done.append(1)
    print("after")
    assert done == [1] and capsys.readouterr() == ("out\n" * heard + "after\n", "error: ü\n" * heard)


def test_ctrl_c_ends_the_process_without_a_word():
    child = os.fork()
    if child == 0:
        errors.end_quietly_at_interrupt()
        os.kill(os.getpid(), signal.SIGINT)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 130


def test_a_message_is_one_line_of_4000_characters_that_steers_nothing():
    assert one_line(" a\n\tb\r\n c\x0b") == "a b c"
    assert one_line("a\x1b[31mb\u202ec\x00") == "a\\x1b[31mb\\u202ec\\x00"
    assert one_line("über 中") == "über 中"
    assert one_line("x" * 4000) == "x" * 4000
    assert one_line("x" * 2001 + "y" * 2000) == "x" * 2000 + " ... " + "y" * 2000


def test_the_nearest_known_word_is_offered_and_nothing_far():
    assert did_you_mean("bset", ["last", "best", "bests"]) == "; did you mean best?"
    assert did_you_mean("abcde", ["abcxyz"]) == ""  # a likeness of 0.55
    assert did_you_mean("abcde", ["abcxy"]) == "; did you mean abcxy?"  # 0.6 is enough
    assert did_you_mean("zzz", ["best"]) == did_you_mean("best", []) == ""


def test_a_reason_has_a_place_and_a_message():
    with pytest.raises(ValidationError) as caught:
        DataConfig.model_validate({"path": ["a"], "field": 3, "extend": 4})
    assert reason(caught.value) == "field: Input should be a valid string"
    with pytest.raises(ValidationError) as caught:
        DataConfig.model_validate({"path": ["a", 3]})
    assert reason(caught.value) == "path.1: Input should be a valid string"
    with pytest.raises(ValidationError) as caught:
        GPTConfig(n_embd=3, n_head=2)
    assert reason(caught.value) == "n_embd=3 is not divisible by n_head=2"
    with pytest.raises(ValidationError) as caught:
        DataConfig.model_validate({"path": ["a"], "x" * 100: 3})
    assert reason(caught.value) == f"{'x' * 80}: Extra inputs are not permitted"
    assert reason(ValueError("no")) == "no" and reason(ValueError()) == "ValueError"


def damaged(path, message: str) -> None:
    """Reading it is refused with this reason."""
    with pytest.raises(Damaged) as caught:
        small(path)
    assert str(caught.value) == f"{path.parent} is damaged: x {message}" and caught.value.exit_code == 1


def test_a_small_file_has_a_megabyte_and_131072_values_at_most(tmp_path):
    assert (LARGEST_JSON, MOST_VALUES, LONGEST_LINE) == (1024**2, 131_072, 65_536)
    file = tmp_path / "x"
    for content in (b" " * LARGEST_JSON, b"," * MOST_VALUES, b"[{" * (MOST_VALUES // 16)):
        file.write_bytes(content)
        assert small(file) == content
    file.write_bytes(b" " * (LARGEST_JSON + 1))
    damaged(file, "is too large: the limit is 1,048,576 bytes")
    for content in (b",", b"[", b"{"):
        file.write_bytes(content * (MOST_VALUES // (1 if content == b"," else 8) + 1))
        damaged(file, "contains too many values")
    file.write_bytes(b'"' + b",[{" * 200_000 + rb"\"," + b'"' + b"\n")  # in a text they are letters
    assert small(file).startswith(b'",[{')
    file.write_bytes(b'"' + b",\n" * 200_000)  # one that does not end, too
    assert small(file)
    file.write_bytes(b'"a",' * 131_073)
    damaged(file, "contains too many values")
    file.write_bytes(b"12345678")
    assert small(file, largest=8) == b"12345678"
    with pytest.raises(Damaged, match="too large"):
        small(file, largest=7)
    file.write_bytes(b"[1,2]")
    assert small(file, values=9)
    with pytest.raises(Damaged, match="too many"):
        small(file, values=8)


@pytest.mark.timeout(30)  # a pipe that is opened is waited for without end
def test_what_is_no_file_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "x")
    damaged(tmp_path / "x", "is not a regular file")
    with pytest.raises(Damaged, match=f"^{tmp_path} is damaged: x is not a regular file$"):
        list(lines_of(tmp_path / "x"))
    with pytest.raises(IsADirectoryError):
        small(tmp_path)
    require_file(tmp_path)
    with pytest.raises(FileNotFoundError):
        require_file(tmp_path / "nowhere")


def test_a_log_has_whole_lines_of_64_kb_at_most(tmp_path):
    file = tmp_path / "x"
    longest = b"a" * (LONGEST_LINE - 1) + b"\n"
    file.write_bytes(b"one\n" + longest + b"\nhalf")
    assert list(lines_of(file)) == [b"one\n", longest, b"\n"]
    file.write_bytes(b"one\n" + b"a" + longest)
    lines = lines_of(file)
    assert next(lines) == b"one\n"
    with pytest.raises(Damaged, match=f"^{tmp_path} is damaged: x has a line longer than 65,536 bytes$"):
        next(lines)

"""A terminal that is closed, a full disk behind stderr, a stream that was never there: training goes on."""

import errno
import fcntl
import io
import logging
import os
import pty
import signal
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from tqdm import tqdm

from configs.terminal import Lasting, secure_streams
from tests.conftest import ROOT, TINY
from tests.processes import Child, fingerprint, training
from training.report import progress_bar, say, show_step
from training.run import Interruption

LONG = ["--train.steps", "400", "--train.eval_every", "200", "--log.sample_tokens", "0"]


class Broken(io.TextIOWrapper):
    """A terminal on which nothing can be written any more."""

    def __init__(self, number: int | None) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8")
        self.number = number

    def write(self, text: str) -> int:
        raise OSError(self.number, os.strerror(self.number)) if self.number else ValueError("I/O on closed file")

    def flush(self) -> None:
        self.write("")

    def isatty(self) -> bool:
        return True

    def close(self) -> None:
        pass


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EPIPE, errno.EBADF, errno.EDQUOT, None])
def test_nothing_that_speaks_on_stderr_raises(monkeypatch, number):
    monkeypatch.setattr(sys, "stderr", Broken(number))
    with pytest.raises((OSError, ValueError)):
        print("x", file=sys.stderr)
    secure_streams()
    print("x", file=sys.stderr, flush=True)
    sys.stderr.writelines(["x"])
    say("x")
    bar = progress_bar(0, 2)
    for step in (0, 1):
        show_step(bar, step, 1.0, 1)
        tqdm.write("x", file=sys.stderr)
    bar.close()
    logging.StreamHandler(sys.stderr).emit(logging.makeLogRecord({"msg": "x"}))
    sys.excepthook(ValueError, ValueError("x"), None)


def test_a_stream_that_works_is_left_as_it_is(capsys):
    secure_streams()
    secure_streams()
    assert isinstance(sys.stderr, Lasting) and not isinstance(sys.stderr.stream, Lasting)
    print("a ü", file=sys.stderr)
    assert capsys.readouterr().err == "a ü\n" and sys.stderr.encoding and not sys.stderr.isatty()


def python(folder: Path, redirection: str, *words: str) -> int:
    """The exit code of a script, started by a shell."""
    command = f'exec "$0" "$@" {redirection}'
    run = subprocess.run(["sh", "-c", command, sys.executable, *words], cwd=folder, timeout=100, check=False)
    return run.returncode


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a config and the run that it becomes."""
    from tests.conftest import POEM

    folder = tmp_path_factory.mktemp("streams")
    (folder / "poem.txt").write_text(POEM)
    (folder / "tiny.toml").write_text(TINY)
    assert training(folder, ["tiny.toml", "--run", "uncut"]).wait() == 0
    return folder


@pytest.mark.parametrize("redirection", ["2>/dev/full", "<&- >&- 2>&-"])
def test_a_run_without_streams_is_complete(place, redirection):
    name = str(len(redirection))
    code = python(place, redirection, str(ROOT / "train.py"), "tiny.toml", "--run", name)
    assert code == 0
    assert fingerprint(place / "runs" / name) == fingerprint(place / "runs/uncut")
    texts = [file.read_text() for file in (place / "runs" / name).iterdir() if file.suffix in (".jsonl", ".json")]
    assert not any("loss 3" in text or "parameters" in text for text in texts), "nothing is printed into a file"


def test_output_that_cannot_be_written_is_one_line(place):
    command = ["sh", "-c", 'exec "$0" "$1" --list >/dev/full', sys.executable, str(ROOT / "sample.py")]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "error: No space left on device\n")


def test_a_reader_that_has_gone_is_no_error(place):
    command = ["sh", "-c", '{ "$0" "$1" --list; echo "$?" >code; } | true', sys.executable, str(ROOT / "sample.py")]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
    assert done.stderr == "" and (place / "code").read_text() in ("0\n", "1\n")


def on_a_terminal(folder: Path, *words: str, own: bool, before: object = None) -> tuple[Child, int]:
    """Training on a terminal, which is the process's own if it is to hear that it is closed; and its other end."""
    master, slave = pty.openpty()

    def attach() -> None:
        if own:
            os.setsid()
            fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
        signal.signal(signal.SIGHUP, before or signal.SIG_DFL)  # type: ignore[arg-type]
        os.close(master)
        os.dup2(slave, 2)
        os.close(slave)
        secure_streams()

    child = training(folder, ["tiny.toml", *LONG, *words], attach)
    os.close(slave)
    return child, master


def read_until_step(child: Child, master: int) -> str:
    """What is on the terminal when the first steps are made."""
    seen = os.read(master, 100)
    assert child.reached("step", 20)
    os.set_blocking(master, False)
    while True:
        try:
            seen += os.read(master, 10_000)
        except BlockingIOError:
            return seen.decode(errors="replace")


@pytest.mark.parametrize(("own", "handler"), [(False, None), (True, signal.SIG_IGN)], ids=["not its own", "nohup"])
def test_a_run_outlives_a_terminal_of_which_it_need_not_hear(place, own, handler):
    name = f"pty{own}"
    child, master = on_a_terminal(place, "--run", name, own=own, before=handler)
    assert "parameters" in read_until_step(child, master)
    os.close(master)
    assert child.wait() == 0
    if not (place / "runs/long").exists():
        assert training(place, ["tiny.toml", *LONG, "--run", "long"]).wait() == 0
    assert fingerprint(place / "runs" / name) == fingerprint(place / "runs/long")


def test_a_terminal_that_is_closed_stops_the_run_which_is_saved_and_goes_on(place):
    child, master = on_a_terminal(place, "--run", "closed", own=True)
    read_until_step(child, master)
    os.close(master)
    assert child.wait() == 128 + signal.SIGHUP
    steps = [int(folder.name[5:]) for folder in (place / "runs/closed/checkpoints").glob("step-*")]
    assert 20 <= max(steps) < 400 and max(steps) not in (0, 200)
    assert training(place, ["--resume", "--run", "closed"]).wait() == 0
    if not (place / "runs/long").exists():
        assert training(place, ["tiny.toml", *LONG, "--run", "long"]).wait() == 0
    assert fingerprint(place / "runs/closed") == fingerprint(place / "runs/long")


def test_signals_are_heard_inside_and_put_back_and_an_ignored_one_stays_ignored():
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    signal.signal(signal.SIGHUP, lambda *heard: None)
    before = [signal.getsignal(number) for number in numbers]
    for number in numbers:
        with Interruption() as stop:
            signal.raise_signal(number)
            assert stop() and stop.exit_code == 128 + number
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interruption() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert not stop()
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        signal.signal(signal.SIGHUP, before[2])
        assert [signal.getsignal(number) for number in numbers] == before
    finally:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


class Terminal(io.StringIO):
    """A terminal that remembers."""

    def isatty(self) -> bool:
        return True


def drawn(monkeypatch: pytest.MonkeyPatch, first: int, last: int, steps: int, seconds: float) -> list[str]:
    """What a bar shows while these steps are made, each of which takes so long."""
    monkeypatch.setattr(sys, "stderr", Terminal())
    bar, now = progress_bar(first, steps), [0.0]
    bar._time = lambda: now[0]
    bar.start_t = bar.last_print_t = 0.0
    for step in range(first, last):
        now[0] += seconds
        show_step(bar, step, 1 + step / 10, 10)
    bar.close()
    return [line for line in sys.stderr.getvalue().replace("\n", "").split("\r") if line.strip()]


def test_the_bar_moves_by_time_and_ends_at_100_percent(monkeypatch):
    lines = drawn(monkeypatch, 0, 40, 40, 0.2)
    assert len(lines) >= 40  # log.every is 10, and each step takes longer than the bar needs to be drawn again
    assert lines[-1].startswith("100%") and "40/40" in lines[-1] and "loss 4.9000" in lines[-1]
    assert "step/s" in lines[20] and "00:0" in lines[20] and "loss" in lines[20]
    assert len(drawn(monkeypatch, 0, 40, 40, 0.01)) <= 6


def test_the_bar_of_a_resumed_run_begins_where_it_stopped_and_one_that_stops_early_does_not_say_100_percent(
    monkeypatch,
):
    lines = drawn(monkeypatch, 20, 30, 40, 0.2)
    assert "20/40" in lines[0] and lines[-1].lstrip().startswith("75%") and "30/40" in lines[-1]


def test_without_a_terminal_there_is_a_line_every_so_many_steps(capsys):
    bar = progress_bar(0, 25)
    for step in range(25):
        show_step(bar, step, 2.0, 10)
    bar.close()
    assert capsys.readouterr().err.splitlines() == [f"step {n} of 25: loss 2.0000" for n in (0, 10, 20)]

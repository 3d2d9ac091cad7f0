"""Training in a process of its own that can be killed: a fork of this one, which has torch loaded already."""

import hashlib
import mmap
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import train
from configs.errors import INTERRUPTED, answer
from training import checkpoint
from training.run import understand

PHASES = ("start-up", "step", "evaluation", "save")


class Child:
    """A forked process that runs `work`; what it prints goes to a file, where it is can be read while it runs."""

    def __init__(self, folder: Path, work: Callable[[mmap.mmap], int]) -> None:
        self.output = folder / "output.txt"
        self.board = mmap.mmap(-1, 64)
        """bytes 0-3: how often each of PHASES was entered; from 8 on: the last save acknowledged, plus one"""
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            code = 99
            try:
                out = os.open(self.output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                os.dup2(out, 1)
                os.dup2(out, 2)
                sys.stdout = os.fdopen(1, "w", buffering=1)
                sys.stderr = os.fdopen(2, "w", buffering=1)
                code = work(self.board)
            except BaseException:
                traceback.print_exc()
            finally:
                with suppress(OSError):
                    sys.stderr.flush()
                os._exit(code)

    def wait(self) -> int:
        """The exit code; below zero the number of the signal that killed it."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal; the process has not been waited for, so its number is still its own."""
        os.kill(self.pid, number)

    def reached(self, phase: str, times: int, seconds: float = 60) -> bool:
        """Wait until a phase was entered so often; False if the process ended before."""
        deadline = time.monotonic() + seconds
        while self.board[PHASES.index(phase)] < times and time.monotonic() < deadline:
            if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                return False
            time.sleep(0.0002)
        return True

    def acknowledged(self) -> int:
        """The step of the last save that returned; -1 if none did."""
        return int.from_bytes(self.board[8:16], "little") - 1

    def text(self) -> str:
        """What it printed."""
        return self.output.read_text()


def training(folder: Path, words: list[str], before: Callable[[], None] = lambda: None) -> Child:
    """`python train.py WORDS` in a fork."""

    def work(board: mmap.mmap) -> int:
        os.chdir(folder)
        mark(board)
        before()
        signal.signal(signal.SIGINT, lambda number, frame: os._exit(INTERRUPTED))  # as end_quietly_at_interrupt does
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        return answer(lambda: train.main(understand(words)))

    return Child(folder, work)


def mark(board: mmap.mmap) -> None:
    """Write on the board when a phase begins and what has been saved."""

    def entering(phase: str, function: Callable) -> Callable:
        def marked(*args: object, **named: object) -> object:
            at = PHASES.index(phase)
            board[at] = min(255, board[at] + 1)
            result = function(*args, **named)
            if phase == "save":
                board[8:16] = (args[1].step + 1).to_bytes(8, "little")
            return result

        return marked

    train.seconds_per_step = untimed
    train.prepare = entering("start-up", train.prepare)
    train.update = entering("step", train.update)
    train.examine = entering("evaluation", train.examine)
    checkpoint.save = entering("save", checkpoint.save)


def untimed(update: object, data: object, config: object) -> float:
    """In place of the throwaway steps that time a run: every step that is made is one of the run's own."""
    return 0.01


def fingerprint(run: Path) -> dict[str, str]:
    """SHA-256 of the log and of everything in the last checkpoint."""
    last = max((run / "checkpoints").glob("step-*"))
    files = [run / "log.jsonl", *sorted(last.iterdir())]
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}

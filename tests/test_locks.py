"""Two processes cannot write to one folder; a file system without locks is warned about, and is no reason to stop."""

import errno
import fcntl
import os
import re
import time
from pathlib import Path

import pytest

from configs import files
from configs.errors import UserError
from configs.files import lock, open_lock
from data.tokenizing import alone_in
from tests.processes import Child
from training.run import Run, take_lock

WITHOUT = [errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS, errno.EIO, errno.EPERM]


def refuse(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Let every attempt at a lock fail so."""

    def flock(file: object, how: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)


@pytest.mark.parametrize("number", WITHOUT, ids=errno.errorcode.get)
def test_a_file_system_without_locks_costs_one_warning(tmp_path, monkeypatch, capsys, number):
    (tmp_path / "run.lock").write_text("process 1 on a machine that is off\n")
    refuse(monkeypatch, number)
    for _ in range(2):
        take_lock(tmp_path / "run.lock").close()
        with alone_in(tmp_path):
            pass
    err = capsys.readouterr().err
    assert (
        err.count("\n") == 1 and f"{tmp_path} cannot be locked ({os.strerror(number)})" in err and "in use" not in err
    )


@pytest.mark.parametrize("number", [errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES], ids=errno.errorcode.get)
def test_a_lock_that_is_held_names_who_holds_it(tmp_path, monkeypatch, number):
    (tmp_path / "run.lock").write_text("process 7 on a machine\n")
    refuse(monkeypatch, number)
    with pytest.raises(UserError, match=f"^{re.escape(str(tmp_path))} is in use by process 7 on a machine$"):
        take_lock(tmp_path / "run.lock")
    assert (tmp_path / "run.lock").read_text() == "process 7 on a machine\n"


def test_a_training_run_goes_on_without_a_lock(shell, tiny, monkeypatch):
    refuse(monkeypatch, errno.ENOLCK)
    code, _, err = shell("train.py", *tiny)
    assert code == 0 and err.count("warning: runs/tiny cannot be locked (No locks available)") == 1
    code, _, err = shell("train.py", *tiny, "--resume")
    assert code == 0, err


def holding(folder: Path, name: str, seconds: float) -> Child:
    """Another process that holds a lock for a while."""

    def hold(board: object) -> int:
        with open_lock(folder / name) as file:
            lock(file, held=lambda: os._exit(3))
            (folder / "held").touch()
            time.sleep(seconds)
        return 0

    child = Child(folder, hold)
    while not (folder / "held").exists():
        time.sleep(0.01)
    return child


def test_a_run_that_another_process_has_is_refused_until_that_ends(tmp_path):
    child = holding(tmp_path, "run.lock", 60)
    with pytest.raises(UserError, match="in use by"):
        Run(tmp_path)
    child.kill()
    child.wait()
    Run(tmp_path).lock.close()


def test_who_prepares_tokens_waits_for_another_process_and_says_so(tmp_path, capsys):
    child = holding(tmp_path, ".lock", 0.5)
    with alone_in(tmp_path):
        assert os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert child.wait() == 0
    assert capsys.readouterr().err == "waiting for another process that is already preparing tokens\n"


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES], ids=errno.errorcode.get)
def test_a_folder_that_cannot_be_written_to_is_one_line(tmp_path, monkeypatch, number):
    def refused(path: Path, mode: str) -> None:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(files, "FileIO", refused)
    for attempt in (lambda: take_lock(tmp_path / "run.lock"), lambda: alone_in(tmp_path).__enter__()):
        with pytest.raises(UserError, match=f"^cannot write to {re.escape(str(tmp_path))}: {os.strerror(number)}$"):
            attempt()


def test_a_full_disk_does_not_make_a_lock_fail(tmp_path, monkeypatch):
    class Full(files.FileIO):
        def write(self, content: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "FileIO", Full)
    with take_lock(tmp_path / "run.lock") as held:
        assert not held.closed


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.ENOTSUP], ids=errno.errorcode.get)
def test_a_file_system_that_cannot_sync_is_no_reason_to_stop_and_a_broken_disk_is(tmp_path, monkeypatch, number):
    def fsync(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fsync)
    files.write_whole(tmp_path / "a", "x")
    assert (tmp_path / "a").read_text() == "x"
    number = errno.EIO
    with pytest.raises(OSError):
        files.write_whole(tmp_path / "a", "y")
    assert (tmp_path / "a").read_text() == "x"

"""The run folder: all there is to know about one run, in one place that can be moved, zipped and trusted.

Nothing here needs torch, so that a mistake in a run's name is answered at once.
"""

import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any, TextIO

from configs.command import Command, parse
from configs.errors import INTERRUPTED, UserError, about, reason
from configs.files import Damaged, lines_of, small
from configs.schema import Config, Name, Settings

RUNS = Path("runs")
NOT_FINITE = 3  # the exit code of a loss that is no number
LONGEST_NAME = 255  # bytes, in most file systems
LARGEST_RECORD = 2**23  # bytes of run.json, which names the files of a corpus three times
PACKAGES = ("torch", "numpy", "safetensors", "pydantic", "tiktoken", "torchvision")


class Record(Settings):
    """run.json: what was asked, what it was resolved to, and on what machine."""

    asked: dict[str, Any]
    """settings that were given, by dotted name"""
    origins: dict[str, Name]
    """the file each of them came from, or "command line\""""
    resolved: Config
    """every setting, no `auto` left"""
    data_sha256: str
    """of the corpus; empty for digits, whose files are fixed"""
    machine: dict[str, Any]
    """versions, processor, git commit: for the reader"""

    def to_json(self) -> str:
        """The content of run.json: ASCII, in which JSON can escape even names that aren't UTF-8."""
        return json.dumps(self.model_dump(exclude_none=True), indent=1) + "\n"


class Run:
    """An open run folder, locked for this process until it is left (`with run:`) or the process ends."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.checkpoints = folder / "checkpoints"
        self.lock = take_lock(folder / "run.lock")
        self.failing: set[str] = set()
        """files that could not be written, of which a warning has been given"""

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if isinstance(error, UserError) and error.exit_code == NOT_FINITE:
            self.log(stopped=str(error))
        self.lock.close()

    def write(self, name: str, content: str) -> None:
        """Put a text file into the folder, whole or not at all."""
        beside = self.folder / f".{name}.partial"
        beside.write_text(content, encoding="utf-8")
        beside.replace(self.folder / name)

    def describe(self, record: Record) -> None:
        """Write run.json."""
        self.write("run.json", record.to_json())

    def log(self, **record: Any) -> None:
        """Add a line to log.jsonl: only what the config and the seed determine."""
        self.add("log.jsonl", json.dumps(record) + "\n")

    def time(self, **record: Any) -> None:
        """Add a line to timing.jsonl: what the clock says."""
        self.add("timing.jsonl", json.dumps({**record, "at": round(time.time(), 3)}) + "\n")

    def add(self, name: str, text: str) -> None:
        """Add to the end of a text file; one warning if it can't be done, for a log is no reason to stop."""
        file = self.folder / name
        before = file.stat().st_size if file.exists() else 0
        try:
            with file.open("a", encoding="utf-8") as out:
                out.write(text)
        except OSError as error:
            with suppress(OSError):
                os.truncate(file, before)  # half a line would spoil the next
            if name not in self.failing:
                print(f"warning: {file} can't be written ({error.strerror}); it goes on without", file=sys.stderr)
            self.failing.add(name)

    def log_bytes(self) -> int:
        """The length of log.jsonl."""
        file = self.folder / "log.jsonl"
        return file.stat().st_size if file.exists() else 0

    def cut_log(self, length: int) -> None:
        """Forget what was logged after the checkpoint that training goes on from."""
        if (self.folder / "log.jsonl").exists():
            os.truncate(self.folder / "log.jsonl", length)


def run_folder(name: str) -> Path:
    """A plain name is a folder under runs/; anything with a separator is a path. Raises UserError."""
    longest = max(map(len, os.fsencode(name).split(os.sep.encode())))
    if "\0" in name or not name.strip() or longest > LONGEST_NAME or name in (".", ".."):
        raise UserError(f"{name!r} cannot name a folder")
    require_utf8(name)
    if os.path.basename(name) == name:
        return RUNS / name
    path = Path(name).expanduser()
    return path if len(path.parts) > 1 else path.absolute()  # ./mine must not become mine, which is runs/mine


def require_utf8(name: str) -> None:
    """Raises UserError for a folder that safetensors couldn't read weights from."""
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{name!r} is not UTF-8, and weights can't be read from such a folder: rename it") from error


def understand(arguments: list[str]) -> Command:
    """train.py's command line, checked as far as that goes without torch. Raises UserError."""
    command = parse(arguments)
    with about("--run"):
        folder = run_folder(command.run)
    claim(folder, command.resume, command.overwrite or command.dry_run)
    if "data.path" not in command.settings:  # no config was given, so there must be a run
        read_record(folder)
    if command.dry_run and not command.resume:
        from training.forecast import answer_at_once

        answer_at_once(command)
    return command


def claim(folder: Path, resume: bool, overwrite: bool) -> None:
    """Raises UserError unless a run may be begun or continued in this folder. Changes nothing."""
    refuse_links(folder)
    if not folder.exists() or not any(p.name != "run.lock" for p in folder.iterdir()):
        return
    if not (folder / "run.json").is_file():
        raise UserError(f"{folder} is not a run (it has no run.json) and is left alone; choose another --run")
    if not (resume or overwrite):
        raise UserError(f"{folder} exists: --resume continues it, --overwrite replaces it, --run NAME names another")


def open_run(folder: Path, resume: bool, overwrite: bool) -> Run:
    """The run folder, locked, and emptied if it is written over. Raises UserError as `claim` does."""
    claim(folder, resume, overwrite)
    folder.mkdir(parents=True, exist_ok=True)
    run = Run(folder)
    try:
        claim(folder, resume, overwrite)  # another process may have been quicker
    except UserError:
        run.lock.close()
        raise
    for inside in folder.iterdir() if overwrite else ():
        if inside.name != "run.lock":
            shutil.rmtree(inside) if inside.is_dir() else inside.unlink()
    return run


def read_record(folder: Path) -> Record:
    """What run.json says. Raises UserError if there is no run or its record is damaged."""
    file = folder / "run.json"
    if not file.is_file():
        raise UserError(f"there is no run in {folder}{known_runs()}")
    refuse_links(folder)
    try:
        return Record.model_validate(json.loads(small(file, LARGEST_RECORD)))
    except (ValueError, RecursionError) as error:  # pydantic's mistakes are of this kind too
        raise UserError(f"{file} is damaged: {reason(error)}", 1) from error


def refuse_links(folder: Path) -> None:
    """Raises UserError if something in the run is a link: what is written there would be written elsewhere."""
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            if (path := Path(place, name)).is_symlink():
                raise UserError(f"{path} is a link, and a run is all in one folder; put there what it leads to", 1)


def known_runs() -> str:
    """ "; runs here: ..." with the newest first, or nothing."""
    names = [folder.name for folder in all_runs()[:5]]
    return f"; runs here: {', '.join(names)}" if names else "; train one first: python train.py configs/python.toml"


def all_runs() -> list[Path]:
    """The folders of all runs under runs/, the newest first."""
    records = RUNS.glob("*/run.json") if RUNS.is_dir() else []
    return [record.parent for record in sorted(records, key=lambda r: r.stat().st_mtime, reverse=True)]


def read_log(folder: Path) -> list[dict]:
    """The lines of log.jsonl; a last line that was cut off in mid-writing is left out. Raises Damaged for no log."""
    file = folder / "log.jsonl"
    try:
        return [json.loads(line) for line in lines_of(file)] if file.exists() else []
    except (ValueError, RecursionError) as error:
        raise Damaged(folder, f"{file.name}: {error}") from error


def take_lock(file: Path) -> TextIO:
    """Lock the file until this process ends, however it ends. Raises UserError if another one has it."""
    lock = file.open("a+", encoding="utf-8")
    try:
        if os.name == "nt":
            import msvcrt

            lock.seek(2**20)  # a byte that nobody reads: Windows' locks are mandatory
            msvcrt.locking(lock.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        with lock:
            time.sleep(0.1)  # whoever has just taken it is about to write its name
            lock.seek(0)
            owner = lock.read().strip() or "another process"
        raise UserError(f"{file.parent} is in use by {owner}") from error
    lock.truncate(0)
    lock.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    lock.flush()
    return lock


def machine() -> dict[str, Any]:
    """What a reader needs in order to judge or repeat a run."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: version(name) for name in PACKAGES},
        "processors": os.cpu_count(),
        "commit": git("rev-parse", "HEAD"),
        "changed": bool(git("status", "--porcelain", "--untracked-files=no")),
        "command": sys.argv,
    }


def version(package: str) -> str | None:
    """The installed version, None if it isn't installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def git(*arguments: str) -> str | None:
    """What git says about this repository, None if it is none."""
    try:
        here = Path(__file__).parent
        out = subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return out.stdout.strip()


class Interruption:
    """Ctrl-C and SIGTERM, remembered until a step is finished; a second Ctrl-C stops at once.

    Calling it says whether to stop. Outside the main thread, where Python forbids handlers, it never does.
    """

    def __init__(self) -> None:
        self.exit_code = 0
        self.before: dict[int, Any] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():
            self.before = {number: signal.signal(number, self.note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def note(self, number: int, frame: object) -> None:
        """The handler."""
        if number == signal.SIGINT and self.exit_code == INTERRUPTED:
            os._exit(INTERRUPTED)
        self.exit_code = 128 + number

    def __call__(self) -> bool:
        return self.exit_code != 0

"""The run folder: all there is to know about one run, in one place that can be moved, zipped and trusted.

Nothing here needs torch, so that a mistake in a run's name is answered at once.
"""

import json
import os
import platform
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from importlib import metadata
from io import FileIO
from pathlib import Path
from typing import Any, Literal

from configs.command import Command, parse
from configs.errors import INTERRUPTED, UserError, about, reason
from configs.files import Damaged, append, lines_of, lock, open_lock, refuse_newer, small, write_whole
from configs.schema import Config, Name, Settings

RUNS = Path("runs")
FORMAT = 1  # of run.json
NOT_FINITE = 3  # the exit code of a loss that is no number
LONGEST_NAME = 255  # bytes, in most file systems
LARGEST_RECORD = 2**23  # bytes of run.json, which names the files of a corpus three times
LOCK = "run.lock"
STEP = re.compile(r"step-\d{6,18}")
CHECKPOINT_FILES = ("model.safetensors", "optimizer.safetensors", "state.json")  # besides manifest.json
PARTIAL = r"(\.\d+)?\.partial"
WRITTEN = re.compile(  # every file that a run writes, complete or partial, as a path in its folder
    r"run\.lock|(run|tokenizer)\.json|(log|timing)\.jsonl|samples\.txt|curves\.png"
    rf"|\.((run|tokenizer)\.json|curves\.png){PARTIAL}"
    r"|base/(model\.safetensors|manifest\.json)|\.base\.partial/.+"
    rf"|checkpoints/(best|\.best{PARTIAL}|\.{STEP.pattern}\.partial/.+)"
    rf"|checkpoints/{STEP.pattern}/({'|'.join(map(re.escape, CHECKPOINT_FILES))}|manifest\.json)"
)
EMPTIED = re.compile(r"(base|checkpoints|\.base\.partial)(/.*)?")  # the folders that are in it
REPLACED = re.compile(rf"base/|checkpoints/{STEP.pattern}/")  # folders that a run replaces as a whole
KEPT = 5  # names of files that stay when a run is overwritten, before the rest is counted
LONGEST_OWNER = 200  # bytes, of the process that holds a lock
STOPPING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
PACKAGES = ("torch", "numpy", "safetensors", "pydantic", "tiktoken", "torchvision")


class Hardware(Settings):
    """What decides how numbers are computed. On the same hardware --resume is bit-exact."""

    processor: str
    cores: int
    gpu: str | None = None


class Record(Settings):
    """run.json: what was asked, what it was resolved to, and on what machine."""

    format: Literal[0, 1] = 0
    """0 is a run from before there was a number"""
    asked: dict[str, Any]
    """settings that were given, by dotted name"""
    origins: dict[str, Name]
    """the file each of them came from, or "command line\""""
    resolved: Config
    """every setting, no `auto` left"""
    data_sha256: str
    """fingerprint of the data; empty for digits in format 0"""
    data_recipe: int = 0
    """how that was computed; see Dataset.recipe"""
    hardware: Hardware | None = None
    """where it was trained last; none in format 0"""
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
        self.lock = take_lock(folder / LOCK)
        self.failing: set[str] = set()
        """files that could not be written, of which a warning has been given"""

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if isinstance(error, UserError) and error.exit_code == NOT_FINITE:
            self.log(stopped=str(error))
        self.lock.close()

    def write(self, name: str, content: str) -> None:
        """Write a text file of the folder: all of it or none."""
        write_whole(self.folder / name, content)

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
        try:
            append(self.folder / name, text)
        except OSError as error:
            if name not in self.failing:
                file = self.folder / name
                print(f"warning: {file} can't be written ({error.strerror}); it goes on without", file=sys.stderr)
            self.failing.add(name)

    def length(self, name: str) -> int:
        """Bytes of a text file; 0 if it does not exist."""
        file = self.folder / name
        return file.stat().st_size if file.exists() else 0

    def cut(self, name: str, length: int | None = None) -> None:
        """Shorten a text file to its whole lines within the first `length` bytes.

        What goes was written after the checkpoint that training resumes from, or is the half of a line at which a
        process was killed.
        """
        file = self.folder / name
        if file.is_file():
            os.truncate(file, file.read_bytes()[:length].rfind(b"\n") + 1)


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
    if not folder.exists() or not any(p.name != LOCK for p in folder.iterdir()):
        return
    if not (folder / "run.json").is_file():
        if not (folder / LOCK).is_file():
            raise UserError(f"{folder} is not a run (it has no run.json) and is left alone; choose another --run")
        if overwrite or not any(not name.startswith(".") for name in sorted_out(folder)[0]):
            return  # what an --overwrite that was cut off has left
        raise UserError(f"{folder} has lost its run.json: --overwrite starts again in it, --run NAME names another")
    if not (resume or overwrite):
        raise UserError(f"{folder} exists: --resume continues it, --overwrite replaces it, --run NAME names another")


def open_run(folder: Path, resume: bool, overwrite: bool) -> Run:
    """The run folder, locked, without the files of a run that is overwritten. Raises UserError as `claim` does."""
    claim(folder, resume, overwrite)
    folder.mkdir(parents=True, exist_ok=True)
    run = Run(folder)
    try:
        claim(folder, resume, overwrite)  # another process may have been quicker
        if overwrite or not (folder / "run.json").exists():
            delete_run(folder)
    except UserError:
        run.lock.close()
        raise
    return run


def delete_run(folder: Path) -> None:
    """Delete the files that a run has written, and name those that stay. Raises UserError if it can't.

    run.json goes first: what is left of a run, if this is cut off, is none.
    """
    written, others = sorted_out(folder)
    if inside := [name for name in others if REPLACED.match(name)]:
        raise UserError(f"{folder / inside[0]} was not written by a run; move it out, for its folder is replaced")
    try:
        for name in sorted(written, key=lambda name: name != "run.json"):
            (folder / name).unlink()
        for place, *_ in os.walk(folder, topdown=False):
            if EMPTIED.fullmatch(Path(place).relative_to(folder).as_posix()):
                with suppress(OSError):  # it has a file that no run wrote
                    os.rmdir(place)
    except OSError as error:
        raise UserError(
            f"{error.filename} can't be deleted ({error.strerror}): give permission, then start again with --overwrite",
            1,
        ) from error
    if others:
        named = ", ".join(others[:KEPT]) + (f" and {len(others) - KEPT:,} more" if len(others) > KEPT else "")
        print(f"{folder}: keeping {named}, which no run wrote", file=sys.stderr)


def sorted_out(folder: Path) -> tuple[list[str], list[str]]:
    """The files in a run folder that a run writes, the lock left out, and the others, as paths in it."""
    names = [Path(place, file).relative_to(folder).as_posix() for place, _, files in os.walk(folder) for file in files]
    names = sorted(name for name in names if name != LOCK)
    written = [name for name in names if WRITTEN.fullmatch(name)]
    return written, [name for name in names if not WRITTEN.fullmatch(name)]


def require_elsewhere(folder: Path, setting: str, files: Iterable[Path]) -> None:
    """Raises UserError if one of these files, which a setting names, lies in the folder of a run to be overwritten."""
    if not folder.exists():
        return
    itself, seen = folder.stat(), set()
    for file in files:
        for place in {(real := file.resolve()), *real.parents} - seen:
            seen.add(place)
            if place.exists() and os.path.samestat(place.stat(), itself):
                raise UserError(
                    f"--overwrite: {folder} contains {file}, which {setting} needs; move that out of the run, or "
                    f"choose another --run NAME"
                )


def read_record(folder: Path) -> Record:
    """What run.json says. Raises UserError if there is no run, or its record is damaged or from a newer version."""
    file = folder / "run.json"
    if not file.is_file():
        raise UserError(f"there is no run in {folder}{known_runs()}")
    refuse_links(folder)
    content = small(file, LARGEST_RECORD)
    try:
        return Record.model_validate(json.loads(content))
    except (ValueError, RecursionError) as error:  # pydantic's mistakes are of this kind too
        refuse_newer(content, file)
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


def take_lock(path: Path) -> FileIO:
    """Lock the file until this process ends, however it ends. Raises UserError if another one has it."""
    file = open_lock(path)

    def in_use() -> None:
        with file:
            time.sleep(0.1)  # whoever has just taken it is about to write its name
            file.seek(0)
            owner = file.read(LONGEST_OWNER).decode(errors="replace").strip() or "another process"
        raise UserError(f"{path.parent} is in use by {owner}")

    lock(file, held=in_use)
    with suppress(OSError):  # the disk may be full; the lock needs no name in it
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n".encode())
    return file


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
    """Ctrl-C, SIGTERM and a closed terminal, remembered until a step is finished; a second Ctrl-C stops at once.

    Calling it says whether to stop. Outside the main thread, where Python forbids handlers, it never does.
    """

    def __init__(self) -> None:
        self.exit_code = 0
        self.before: dict[int, Any] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():
            # nohup ignores SIGHUP, and so it stays. A shell's background jobs ignore SIGINT, which kill may still send.
            heard = [n for n in STOPPING if n == signal.SIGINT or signal.getsignal(n) != signal.SIG_IGN]
            self.before = {number: signal.signal(number, self.note) for number in heard}
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

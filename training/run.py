"""The run folder: create, lock, describe, log, overwrite and list runs.

Imports no torch, so that a mistake in a run's name is reported at once.
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
NOT_FINITE = 3  # exit code when a loss, weight or moment is NaN or infinite
LONGEST_NAME = 255  # bytes, in most file systems
LARGEST_RECORD = 2**23  # bytes of run.json, which lists the files of a corpus three times
LOCK = "run.lock"
STEP = re.compile(r"step-\d{6,18}")
CHECKPOINT_FILES = ("model.safetensors", "optimizer.safetensors", "state.json")  # besides manifest.json
PARTIAL = r"(\.\d+)?\.partial"
WRITTEN = re.compile(  # every file that a run writes, complete or partial, as a path relative to its folder
    r"run\.lock|(run|tokenizer)\.json|(log|timing)\.jsonl|samples\.txt|curves\.png"
    rf"|\.((run|tokenizer)\.json|curves\.png){PARTIAL}"
    r"|base/(model\.safetensors|manifest\.json)|\.base\.partial/.+"
    rf"|checkpoints/(best|\.best{PARTIAL}|\.{STEP.pattern}\.partial/.+)"
    rf"|checkpoints/{STEP.pattern}/({'|'.join(map(re.escape, CHECKPOINT_FILES))}|manifest\.json)"
)
EMPTIED = re.compile(r"(base|checkpoints|\.base\.partial)(/.*)?")  # the subfolders that a run creates
REPLACED = re.compile(rf"base/|checkpoints/{STEP.pattern}/")  # subfolders that a run replaces as a unit
KEPT = 5  # how many of the files that --overwrite keeps are listed by name
LONGEST_OWNER = 200  # bytes, of the lock owner's description
STOPPING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
PACKAGES = ("torch", "numpy", "safetensors", "pydantic", "tiktoken", "torchvision")


class Hardware(Settings):
    """The hardware that determines rounding: on the same hardware --resume is bit-exact."""

    processor: str
    cores: int
    gpu: str | None = None


class Record(Settings):
    """run.json: the requested settings, the resolved config, the data's hash and the machine."""

    format: Literal[0, 1] = 0
    """0: the run predates format numbers"""
    asked: dict[str, Any]
    """the settings that were given, by dotted name"""
    origins: dict[str, Name]
    """the file each of them came from, or "command line\""""
    resolved: Config
    """every setting, no `auto` left"""
    data_sha256: str
    """fingerprint of the data; empty for digits in format 0"""
    data_recipe: int = 0
    """how data_sha256 was computed; see Dataset.recipe"""
    hardware: Hardware | None = None
    """where it was last trained; none in format 0"""
    machine: dict[str, Any]
    """versions, processor, git commit; informational only"""

    def to_json(self) -> str:
        """The content of run.json, in ASCII so that even file names that aren't UTF-8 can be escaped."""
        return json.dumps(self.model_dump(exclude_none=True), indent=1) + "\n"


class Run:
    """A run folder, locked for this process until the `with run:` block or the process ends."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.checkpoints = folder / "checkpoints"
        self.lock = take_lock(folder / LOCK)
        self.failing: set[str] = set()
        """files that could not be written and have been warned about"""

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if isinstance(error, UserError) and error.exit_code == NOT_FINITE:
            self.log(stopped=str(error))
        self.lock.close()

    def write(self, name: str, content: str) -> None:
        """Write a text file in the run folder, atomically."""
        write_whole(self.folder / name, content)

    def describe(self, record: Record) -> None:
        self.write("run.json", record.to_json())

    def log(self, **record: Any) -> None:
        """Append a line to log.jsonl, which contains only what the config and the seed determine."""
        self.add("log.jsonl", json.dumps(record) + "\n")

    def time(self, **record: Any) -> None:
        """Append a line with the current time to timing.jsonl."""
        self.add("timing.jsonl", json.dumps({**record, "at": round(time.time(), 3)}) + "\n")

    def add(self, name: str, text: str) -> None:
        """Append to a text file; if that fails, warn once per file and carry on, since a log is optional."""
        try:
            append(self.folder / name, text)
        except OSError as error:
            if name not in self.failing:
                file = self.folder / name
                print(
                    f"warning: cannot write {file} ({error.strerror}); training continues without it", file=sys.stderr
                )
            self.failing.add(name)

    def length(self, name: str) -> int:
        """The size of a file in bytes; 0 if it does not exist."""
        file = self.folder / name
        return file.stat().st_size if file.exists() else 0

    def cut(self, name: str, length: int | None = None) -> None:
        """Truncate a text file to the complete lines within its first `length` bytes.

        This drops what was written after the checkpoint that training resumes from, and a last line that a killed
        process left incomplete.
        """
        file = self.folder / name
        if file.is_file():
            os.truncate(file, file.read_bytes()[:length].rfind(b"\n") + 1)


def run_folder(name: str) -> Path:
    """The folder of a run: `mine` -> runs/mine; a name with a separator is a path. Raises UserError if invalid."""
    longest = max(map(len, os.fsencode(name).split(os.sep.encode())))
    if "\0" in name or not name.strip() or longest > LONGEST_NAME or name in (".", ".."):
        raise UserError(f"{name!r} is not a valid run name")
    require_utf8(name)
    if os.path.basename(name) == name:
        return RUNS / name
    path = Path(name).expanduser()
    return path if len(path.parts) > 1 else path.absolute()  # ./mine must not become mine, which is runs/mine


def require_utf8(name: str) -> None:
    """Raises UserError for a folder name that safetensors cannot open."""
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{name!r} is not valid UTF-8, so weights cannot be read from it: rename the folder") from error


def understand(arguments: list[str]) -> Command:
    """Parse train.py's command line and check what can be checked without torch. Raises UserError."""
    command = parse(arguments)
    with about("--run"):
        folder = run_folder(command.run)
    claim(folder, command.resume, command.overwrite or command.dry_run)
    if "data.path" not in command.settings:  # without a config, the run must exist
        read_record(folder)
    if command.dry_run and not command.resume:
        from training.forecast import answer_at_once

        answer_at_once(command)
    return command


def claim(folder: Path, resume: bool, overwrite: bool) -> None:
    """Raises UserError unless a run may be started or resumed in this folder. Changes nothing."""
    refuse_links(folder)
    if not folder.exists() or not any(p.name != LOCK for p in folder.iterdir()):
        return
    if not (folder / "run.json").is_file():
        if not (folder / LOCK).is_file():
            raise UserError(f"{folder} exists but is not a run (no run.json); choose another --run NAME")
        if overwrite or not any(not name.startswith(".") for name in sorted_out(folder)[0]):
            return  # left over from an interrupted --overwrite
        raise UserError(
            f"{folder} has files of a run but no run.json: use --overwrite to start again, or another --run NAME"
        )
    if not (resume or overwrite):
        raise UserError(
            f"{folder} already exists: use --resume to continue it, --overwrite to replace it, or another --run NAME"
        )


def open_run(folder: Path, resume: bool, overwrite: bool) -> Run:
    """Create or open the run folder and lock it; an overwritten run's files are deleted. Raises UserError."""
    claim(folder, resume, overwrite)
    folder.mkdir(parents=True, exist_ok=True)
    run = Run(folder)
    try:
        claim(folder, resume, overwrite)  # again: another process may have created it before we had the lock
        if overwrite or not (folder / "run.json").exists():
            delete_run(folder)
    except UserError:
        run.lock.close()
        raise
    return run


def delete_run(folder: Path) -> None:
    """Delete the files that a run wrote and list on stderr those that stay. Raises UserError if that fails.

    run.json goes first, so that an interrupted deletion leaves a folder that is no longer a run.
    """
    written, others = sorted_out(folder)
    if inside := [name for name in others if REPLACED.match(name)]:
        raise UserError(f"--overwrite: {folder / inside[0]} was not written by a run and would be lost; move it first")
    try:
        for name in sorted(written, key=lambda name: name != "run.json"):
            (folder / name).unlink()
        for place, *_ in os.walk(folder, topdown=False):
            if EMPTIED.fullmatch(Path(place).relative_to(folder).as_posix()):
                with suppress(OSError):  # it contains a file that no run wrote
                    os.rmdir(place)
    except OSError as error:
        raise UserError(
            f"cannot delete {error.filename} ({error.strerror}); fix its permissions, then repeat with --overwrite",
            1,
        ) from error
    if others:
        named = ", ".join(others[:KEPT]) + (f" and {len(others) - KEPT:,} more" if len(others) > KEPT else "")
        print(f"{folder}: keeping files that were not written by a run: {named}", file=sys.stderr)


def sorted_out(folder: Path) -> tuple[list[str], list[str]]:
    """The files in a run folder, as relative paths: those that a run writes (without the lock), and all others."""
    names = [Path(place, file).relative_to(folder).as_posix() for place, _, files in os.walk(folder) for file in files]
    names = sorted(name for name in names if name != LOCK)
    written = [name for name in names if WRITTEN.fullmatch(name)]
    return written, [name for name in names if not WRITTEN.fullmatch(name)]


def require_elsewhere(folder: Path, setting: str, files: Iterable[Path]) -> None:
    """Raises UserError if one of the files that a setting needs is in the run folder about to be overwritten."""
    if not folder.exists():
        return
    itself, seen = folder.stat(), set()
    for file in files:
        for place in {(real := file.resolve()), *real.parents} - seen:
            seen.add(place)
            if place.exists() and os.path.samestat(place.stat(), itself):
                raise UserError(
                    f"--overwrite: {folder} contains {file}, which {setting} needs; move that file elsewhere, or "
                    f"choose another --run NAME"
                )


def read_record(folder: Path) -> Record:
    """Read run.json. Raises UserError if the run doesn't exist, or its record is damaged or from a newer version."""
    file = folder / "run.json"
    if not file.is_file():
        raise UserError(f"run not found: {folder}{known_runs()}")
    refuse_links(folder)
    content = small(file, LARGEST_RECORD)
    try:
        return Record.model_validate(json.loads(content))
    except (ValueError, RecursionError) as error:  # pydantic's ValidationError is a ValueError
        refuse_newer(content, file)
        raise UserError(f"{file} is damaged: {reason(error)}", 1) from error


def refuse_links(folder: Path) -> None:
    """Raises UserError if the run contains a symbolic link: writing to it would change a file elsewhere."""
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            if (path := Path(place, name)).is_symlink():
                raise UserError(
                    f"{path} is a symbolic link; run folders may not contain links. Replace it with what it points to",
                    1,
                )


def known_runs() -> str:
    """The end of an error message: the five newest runs ("; available runs: b, a"), or how to train one."""
    names = [folder.name for folder in all_runs()[:5]]
    return f"; available runs: {', '.join(names)}" if names else "; train one: python train.py configs/python.toml"


def all_runs() -> list[Path]:
    """The folders of all runs under runs/, newest first."""
    records = RUNS.glob("*/run.json") if RUNS.is_dir() else []
    return [record.parent for record in sorted(records, key=lambda r: r.stat().st_mtime, reverse=True)]


def read_log(folder: Path) -> list[dict]:
    """The records in log.jsonl, without an incomplete last line. Raises Damaged if a line is not JSON."""
    file = folder / "log.jsonl"
    try:
        return [json.loads(line) for line in lines_of(file)] if file.exists() else []
    except (ValueError, RecursionError) as error:
        raise Damaged(folder, f"{file.name}: {error}") from error


def take_lock(path: Path) -> FileIO:
    """Lock the file until this process ends, however it ends. Raises UserError if another process has locked it."""
    file = open_lock(path)

    def in_use() -> None:
        with file:
            time.sleep(0.1)  # a process that has just taken the lock is about to write its name
            file.seek(0)
            owner = file.read(LONGEST_OWNER).decode(errors="replace").strip() or "another process"
        raise UserError(f"{path.parent} is in use by {owner}")

    lock(file, held=in_use)
    with suppress(OSError):  # the disk may be full; the lock works without a name in it
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n".encode())
    return file


def machine() -> dict[str, Any]:
    """Versions, platform, git commit and command line: what a person needs to reproduce a run."""
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
    """The installed version of a package; None if it isn't installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def git(*arguments: str) -> str | None:
    """The output of a git command on this repository; None if git fails or it isn't a repository."""
    try:
        here = Path(__file__).parent
        out = subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return out.stdout.strip()


class Interruption:
    """Remembers Ctrl-C, SIGTERM or SIGHUP until the current step is finished; a second Ctrl-C exits at once.

    Calling it returns whether to stop: always False outside the main thread, where Python allows no signal handlers.
    """

    def __init__(self) -> None:
        self.exit_code = 0
        self.before: dict[int, Any] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():
            # nohup ignores SIGHUP; respect that. A shell's background jobs ignore SIGINT, but kill may still send it.
            handled = [n for n in STOPPING if n == signal.SIGINT or signal.getsignal(n) != signal.SIG_IGN]
            self.before = {number: signal.signal(number, self.note) for number in handled}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def note(self, number: int, frame: object) -> None:
        """The signal handler."""
        if number == signal.SIGINT and self.exit_code == INTERRUPTED:
            os._exit(INTERRUPTED)
        self.exit_code = 128 + number

    def __call__(self) -> bool:
        return self.exit_code != 0

"""Where a corpus lies: names, files, folders and globs become a list of files, each of them once."""

import glob
import itertools
import os
import sysconfig
from pathlib import Path
from typing import NamedTuple

from configs.errors import UserError
from data.fetch import Source, fetch

SHAKESPEARE = Source(
    "tinyshakespeare.txt",
    "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
    "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    1_115_394,
)
NAMES = {"python-stdlib", "shakespeare", "mnist", "mnist-5k"}  # they win over folders
NOT_STDLIB = {
    "site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "encodings", "pydoc_data",
}  # fmt: skip


class Found(NamedTuple):
    """A file that may belong to a corpus."""

    name: str
    """stays the same wherever its folder lies"""
    path: Path
    alone: bool = False
    """named by the user rather than met in a folder, so that it has to be text"""

    @property
    def hidden(self) -> bool:
        """Whether the file, or a folder on the way to it, has a name that begins with a dot."""
        return not self.alone and any(part.startswith(".") and part != ".." for part in Path(self.name).parts)


def find_files(paths: list[str], extensions: list[str]) -> list[Found]:
    """The files that these paths lead to, in order; one that is reached twice counts once.

    Raises UserError for a path that leads nowhere.
    """
    found: dict[Path, Found] = {}
    for path in paths:
        for file in files_of(path, extensions):
            found.setdefault(file.path.resolve(), file)
    return list(found.values())


def files_of(path: str, extensions: list[str]) -> list[Found]:
    """The files of a corpus with a name, a folder, a glob, or the one file. Raises UserError if there is none."""
    match path:
        case "python-stdlib":
            return python_stdlib()
        case "shakespeare":
            return [Found("tinyshakespeare.txt", fetch(SHAKESPEARE), alone=True)]
        case "mnist" | "mnist-5k":
            raise UserError(f"data.path: {path} holds digits, and a GPT reads text")
    place = Path(path if os.path.lexists(path) else os.path.expanduser(path))
    if place.is_dir():
        return below(place, [p for p in place.rglob("*") if p.is_file() and has_extension(p, extensions)])
    if place.is_file():
        return [Found(place.name, place, alone=True)]
    if matches := [Path(p) for p in glob.glob(str(place), recursive=True) if Path(p).is_file()]:
        fixed = itertools.takewhile(lambda part: not glob.has_magic(part), place.parts)
        return below(Path(*fixed), matches)
    raise UserError(f"data.path: there is no file, folder or corpus {path!r}")


def has_extension(path: Path, extensions: list[str]) -> bool:
    """Whether the file has one of the extensions, packed or not; no extensions stand for all."""
    endings = tuple(f".{extension.lstrip('.')}" for extension in extensions)
    return not endings or path.name.endswith(endings) or path.name.removesuffix(".gz").endswith(endings)


def below(root: Path, files: list[Path]) -> list[Found]:
    """The files in the order of their names, which begin at `root`."""
    return [Found(path.relative_to(root).as_posix() if root.parts else path.as_posix(), path) for path in sorted(files)]


def python_stdlib() -> list[Found]:
    """The source of the Python that is running: its .py files without tests, tables and installed packages."""
    root = Path(sysconfig.get_paths()["stdlib"])
    files = [p for p in root.rglob("*.py") if not NOT_STDLIB & set(p.relative_to(root).parts[:-1])]
    if not files:
        raise UserError(f"this Python has no sources in {root}; choose a text with --data.path")
    return below(root, files)

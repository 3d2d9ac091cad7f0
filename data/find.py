"""Find the files of a corpus: expand dataset names, folders and globs into a list without duplicates."""

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
NAMES = {"python-stdlib", "shakespeare", "mnist", "mnist-5k"}  # take precedence over folders of the same name
NOT_STDLIB = {
    "site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "encodings", "pydoc_data",
}  # fmt: skip


class Found(NamedTuple):
    """A file that may belong to a corpus."""

    name: str
    """relative to the folder or glob that matched it, so the same on every machine"""
    path: Path
    alone: bool = False
    """named by the user rather than found in a folder, so it must be text"""

    @property
    def hidden(self) -> bool:
        """Whether a part of its name begins with a dot; False for a file that the user named."""
        return not self.alone and any(part.startswith(".") and part != ".." for part in Path(self.name).parts)


def find_files(paths: list[str], extensions: list[str]) -> list[Found]:
    """The files at these paths, in order and without duplicates.

    Raises UserError for a path that does not exist.
    """
    found: dict[Path, Found] = {}
    for path in paths:
        for file in files_of(path, extensions):
            found.setdefault(file.path.resolve(), file)
    return list(found.values())


def files_of(path: str, extensions: list[str]) -> list[Found]:
    """The files of a named dataset, a folder or a glob, or the one file. Raises UserError if there are none."""
    match path:
        case "python-stdlib":
            return python_stdlib()
        case "shakespeare":
            return [Found("tinyshakespeare.txt", fetch(SHAKESPEARE), alone=True)]
        case "mnist" | "mnist-5k":
            raise UserError(f"data.path: {path} is an image dataset; a GPT needs text")
    target = Path(path if os.path.lexists(path) else os.path.expanduser(path))
    if target.is_dir():
        return relative_to(target, [p for p in target.rglob("*") if p.is_file() and has_extension(p, extensions)])
    if target.is_file():
        return [Found(target.name, target, alone=True)]
    if matches := [Path(p) for p in glob.glob(str(target), recursive=True) if Path(p).is_file()]:
        fixed = itertools.takewhile(lambda part: not glob.has_magic(part), target.parts)
        return relative_to(Path(*fixed), matches)
    raise UserError(f"data.path: not found: {path!r} (no such file, folder or dataset)")


def has_extension(path: Path, extensions: list[str]) -> bool:
    """Whether the file has one of the extensions, with or without .gz; True if the list is empty."""
    endings = tuple(f".{extension.lstrip('.')}" for extension in extensions)
    return not endings or path.name.endswith(endings) or path.name.removesuffix(".gz").endswith(endings)


def relative_to(root: Path, files: list[Path]) -> list[Found]:
    """The files in sorted order, named relative to `root`."""
    return [Found(path.relative_to(root).as_posix() if root.parts else path.as_posix(), path) for path in sorted(files)]


def python_stdlib() -> list[Found]:
    """The standard library of the running Python: its .py files, without tests, data tables and installed packages."""
    root = Path(sysconfig.get_paths()["stdlib"])
    files = [p for p in root.rglob("*.py") if not NOT_STDLIB & set(p.relative_to(root).parts[:-1])]
    if not files:
        raise UserError(f"data.path: this Python has no sources in {root}; choose another text")
    return relative_to(root, files)

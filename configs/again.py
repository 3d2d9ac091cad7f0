"""Command lines for messages to suggest, ready to paste into a shell: rerun or resume a run with changes."""

import json
import os
from collections.abc import Iterator
from typing import Any

from configs.command import CLI, merge, read
from configs.errors import UserError, for_shell
from configs.words import LISTS


def again(asked: dict[str, Any], origins: dict[str, str], changes: dict[str, Any], run: object) -> str:
    """The command that trains `run` with the settings given for another run, and some changes.

    >>> again({"train.steps": 5}, {"train.steps": "a.toml"}, {"optim.lr": 0.1}, "runs/a-2")
    'python train.py a.toml --optim.lr 0.1 --run runs/a-2'

    Settings from a config file that no longer exists become options. Without any config, --resume starts the run.
    """
    configs = dict(read_configs(origins))
    settings, _ = merge([("", asked), ("", changes)])
    known, _ = merge([*configs.items()])
    options = {name: value for name, value in settings.items() if name not in known or known[name] != value}
    return line(*(configs or ["--resume"]), options=options, run=run)


def resume(run: object, changes: dict[str, Any] | None = None) -> str:
    """The command that resumes `run`."""
    return line("--resume", options=changes or {}, run=run)


def line(*words: str, options: dict[str, Any], run: object) -> str:
    """One train.py command, quoted for the shell."""
    given = (word for name, value in options.items() for word in option(name, value))
    return " ".join(map(for_shell, ["python", "train.py", *words, *given, *option("run", str(run))]))


def read_configs(origins: dict[str, str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The settings in each config file named in `origins` that can still be read."""
    for file in dict.fromkeys(origins.values()):
        if file != CLI and os.path.isfile(file):
            try:
                yield file, read(file)
            except UserError:
                continue


def option(name: str, value: Any) -> list[str]:
    """The arguments that set one setting: ["--data.path", "a.txt", "b.txt"]."""
    if name in LISTS and isinstance(value, list) and value:
        first, *more = value
    else:
        first, more = value if isinstance(value, str) else json.dumps(value), []
    return [f"--{name}={first}", *more] if first.startswith("-") else [f"--{name}", first, *more]

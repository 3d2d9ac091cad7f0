"""The command line of train.py: config files, then overrides, become one checked description of a run."""

import difflib
import re
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError
from pydantic_settings import BaseSettings, CliSettingsSource, CliToggleFlag, SettingsConfigDict, SettingsError

from configs.errors import OneLineParser, UserError, did_you_mean
from configs.schema import DURATIONS, Clash, Config, DataConfig, GPTConfig, LogConfig, OptimConfig, TrainConfig
from configs.words import take_texts

USAGE = "python train.py CONFIG... [--section.key VALUE]... [--run NAME] [--resume | --overwrite] [--dry-run]"
EXAMPLE = "for example: python train.py configs/python.toml --train.minutes 5 --optim.lr 1e-3"
CLI, DEFAULT = "command line", "the default"
LARGEST_FILE, MOST_DOTS = 2**18, 256  # bytes of one config, and dots in a line of it
SHOWN = 200  # characters of a value that is wrong
TABLES = {"model": GPTConfig, "data": DataConfig, "optim": OptimConfig, "train": TrainConfig, "log": LogConfig}
SETTINGS = [
    "model.sizes",
    "model.lora",
    *(f"{section}.{name}" for section, table in TABLES.items() for name in table.model_fields),
]


class Options(Config, BaseSettings):
    """All that train.py can be told."""

    model_config = SettingsConfigDict(cli_avoid_json=True, cli_hide_none_type=True)

    run: str | None = None
    """name of a folder under runs/, or a path (default: the first config's name)"""
    resume: CliToggleFlag[bool] = False
    """continue the run where it stopped, or start it"""
    overwrite: CliToggleFlag[bool] = False
    """replace the run if it exists"""
    dry_run: CliToggleFlag[bool] = False
    """say what would be done, and do nothing"""


class Command(NamedTuple):
    """A command line that has been understood."""

    settings: dict[str, Any]
    """what was given, by dotted name"""
    origins: dict[str, str]
    """where each came from: a file, or CLI"""
    run: str
    resume: bool
    overwrite: bool
    dry_run: bool


def parse(arguments: list[str]) -> Command:
    """Understand train.py's arguments. Raises UserError, or SystemExit after --help."""
    count = next((i for i, word in enumerate(arguments) if word.startswith("-")), len(arguments))
    files, options = arguments[:count], arguments[count:]
    parser = OneLineParser("train.py", USAGE, "Train a network.", EXAMPLE, allow_abbrev=False)
    options, texts = take_texts([*map(underscores, options)])
    try:
        given = CliSettingsSource(Options, cli_parse_args=options, root_parser=parser)()
    except SettingsError as error:  # a list or a table that breaks off, as one that a shell has cut at its spaces
        words = " ".join(options)
        raise UserError(f"{CLI}: can't read {words}; put a list in quotes: --model.sizes '[784, 10]'") from error
    flags = {name: given.pop(name, False) for name in ("resume", "overwrite", "dry_run")}
    run = texts.pop("run", Path(files[0]).stem if files else None)
    if not (files or flags["resume"]) or run is None:
        raise UserError(f"which config? {USAGE}")
    if flags["resume"] and flags["overwrite"]:
        raise UserError(f"{CLI}: --resume continues a run and --overwrite replaces it; choose one")
    settings, origins = merge([(file, read(file)) for file in files] + [(CLI, flatten(given) | texts)])
    if files:
        check(settings, origins)  # a mistake is answered now, before torch is loaded
    return Command(settings, origins, run, **flags)


def underscores(word: str) -> str:
    """--train.batch-size is --train.batch_size; what follows = is left as it is."""
    name, equals, value = word.partition("=")
    return name[:2] + name[2:].replace("-", "_") + equals + value if word.startswith("--") else word


def read(file: str) -> dict[str, Any]:
    """A TOML file as dotted names and values. Raises UserError if it can't be read."""
    try:
        with open(file, "rb") as toml:
            content = toml.read(LARGEST_FILE + 1)
        if len(content) > LARGEST_FILE:
            raise UserError(f"{file} is too large to be a config")
        for number, line in enumerate(content.splitlines(), 1):
            if line.count(b".") > MOST_DOTS:  # the time that tomllib takes grows with the square of it
                raise UserError(f"{file}: line {number} has more than {MOST_DOTS} dots; break it up")
        return flatten(tomllib.loads(content.decode()))
    except FileNotFoundError as error:
        raise UserError(f"config not found: {file}{known_configs(file)}") from error
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}") from error
    except ValueError as error:  # tomllib's and UTF-8's mistakes are both of this kind
        raise UserError(f"{file} is not TOML: {error}") from error
    except RecursionError as error:
        raise UserError(f"{file} is nested too deeply to be a config") from error


def known_configs(file: str) -> str:
    """ "; did you mean X?" for a config with nearly this name, else "; available: ..." with all in configs/."""
    known = {path.stem: str(path) for path in sorted(Path("configs").glob("*.toml"))}
    near = difflib.get_close_matches(Path(file).stem, known, n=1)
    if near:
        return f"; did you mean {known[near[0]]}?"
    return f"; available: {', '.join(known.values())}" if known else ""


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"train": {"steps": 1}} -> {"train.steps": 1}; a table in a table, such as [model.lora], may be empty."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if "." in key:  # in quotes; without them it is a table and its key
            raise ValueError(f"a name with a dot in it, {key!r:.60}")
        table = isinstance(value, dict) and (value or not prefix)
        flat |= flatten(value, f"{prefix}{key}.") if table else {prefix + key: value}
    return flat


def unflatten(flat: dict[str, Any]) -> dict[str, Any]:
    """{"train.steps": 1} -> {"train": {"steps": 1}}."""
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        *path, key = name.split(".")
        place = tree
        for part in path:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                raise UserError(f"{name}: {part} is a value and a table at once")
        place[key] = value if value != {} else place.get(key, {}) | {}
    return tree


def merge(sources: list[tuple[str, dict[str, Any]]]) -> tuple[dict[str, Any], dict[str, str]]:
    """Later sources win, key by key; one that gives a duration replaces whichever was given before."""
    durations = {f"train.{name}" for name in DURATIONS}
    settings: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for origin, flat in sources:
        replaced = durations if durations & flat.keys() else set()
        settings = {name: value for name, value in settings.items() if name not in replaced} | flat
        origins |= dict.fromkeys(flat, origin)
    return settings, {name: origins[name] for name in settings}


def check(settings: dict[str, Any], origins: dict[str, str]) -> Config:
    """The config that these settings make. Raises UserError for the first of them that is wrong."""
    try:
        with located(origins):
            return Config.model_validate(unflatten(settings))
    except ValidationError as error:
        raise UserError(explain(sorted(error.errors(), key=lambda e: e["type"] == "missing")[0], origins)) from error


def explain(error: Any, origins: dict[str, str]) -> str:
    """One line for one of pydantic's errors: where it was given, key, what was expected, what was found."""
    path = [str(part) for part in error["loc"] if part not in ("mlp", "gpt", "auto", "literal['auto']")]
    name = ".".join(path)
    cause = error.get("ctx", {}).get("error")
    names = [".".join([*path, inner]) for inner in cause.names] if isinstance(cause, Clash) else [name]
    message = error["msg"].removeprefix("Value error, ")
    kind = 'model.kind must be "mlp", "gpt" or "auto"'
    answers = {
        "extra_forbidden": f"there is no setting {name}{did_you_mean(name, {*SETTINGS, *TABLES} - {name})}",
        "missing": f"{name} is missing",
        "union_tag_invalid": kind,
        "union_tag_not_found": kind,
        "value_error": message,
    }
    otherwise = f"{name}: {message[0].lower()}{message[1:]}, got {shown(error['input'])}"
    return f"{places(names, origins)}: {answers.get(error['type'], otherwise)}"


def places(names: list[str], origins: dict[str, str]) -> str:
    """Where these settings were given: `a.toml`, or `command line (model.n_embd) and the default (model.n_head)`.

    If none of them was given anywhere, what is wrong is in the files as a whole.
    """
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(place(name, origins) or DEFAULT, []).append(name)
    if not found.keys() - {DEFAULT}:
        files = dict.fromkeys(origin for origin in origins.values() if origin != CLI)
        return " and ".join(files) or (CLI if origins else "config")
    if len(found) == 1:
        return next(iter(found))
    return " and ".join(f"{origin} ({', '.join(given)})" for origin, given in found.items())


def place(name: str, origins: dict[str, str]) -> str | None:
    """Where a setting, the last one in a table, or what a setting is an item of was given."""
    inside = [origin for key, origin in origins.items() if f"{key}.".startswith(f"{name}.")]
    around = [origin for key, origin in origins.items() if name.startswith(f"{key}.")]
    return (inside or around or [None])[-1]


@contextmanager
def located(origins: dict[str, str]) -> Iterator[None]:
    """Put before a message that begins with a setting's name where that was given: `a.toml: data.path: ...`."""
    try:
        yield
    except UserError as error:
        name = re.match(r"[a-z0-9_.]*", str(error))[0]
        if name in origins:
            error.args = (f"{origins[name]}: {error}",)
        raise


def shown(value: Any) -> str:
    """A value that was given, as far as it fits on a line."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of thousands of digits
        return "what can't be shown"
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."

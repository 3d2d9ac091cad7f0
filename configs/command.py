"""The command line of train.py: merges config files and overrides, and validates the settings."""

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
CLI, DEFAULT = "command line", "the default"  # where a setting comes from, if not from a file
LARGEST_FILE, MOST_DOTS = 2**18, 256  # bytes in a config, dots in one of its lines
SHOWN = 200  # characters of an invalid value that a message quotes
TABLES = {"model": GPTConfig, "data": DataConfig, "optim": OptimConfig, "train": TrainConfig, "log": LogConfig}
SETTINGS = [
    "model.sizes",
    "model.lora",
    *(f"{section}.{name}" for section, table in TABLES.items() for name in table.model_fields),
]


class Options(Config, BaseSettings):
    """All options of train.py."""

    model_config = SettingsConfigDict(cli_avoid_json=True, cli_hide_none_type=True)

    run: str | None = None
    """run name (a folder under runs/) or path (default: name of the first config)"""
    resume: CliToggleFlag[bool] = False
    """resume the run, or start it if it does not exist"""
    overwrite: CliToggleFlag[bool] = False
    """replace the run if it exists"""
    dry_run: CliToggleFlag[bool] = False
    """print the plan and exit"""


class Command(NamedTuple):
    """A parsed command line."""

    settings: dict[str, Any]
    """the settings given, by dotted name"""
    origins: dict[str, str]
    """where each setting was given: a file name, or CLI"""
    run: str
    resume: bool
    overwrite: bool
    dry_run: bool


def parse(arguments: list[str]) -> Command:
    """Parse train.py's arguments. Raises UserError, or SystemExit after --help."""
    count = next((i for i, word in enumerate(arguments) if word.startswith("-")), len(arguments))
    files, options = arguments[:count], arguments[count:]
    parser = OneLineParser("train.py", USAGE, "Train a network.", EXAMPLE, allow_abbrev=False)
    options, texts = take_texts([*map(underscores, options)])
    try:
        given = CliSettingsSource(Options, cli_parse_args=options, root_parser=parser)()
    except SettingsError as error:  # an unfinished list or table: the shell has split it at its spaces
        words = " ".join(options)
        raise UserError(f"{CLI}: cannot parse {words}; put a list in quotes: --model.sizes '[784, 10]'") from error
    flags = {name: given.pop(name, False) for name in ("resume", "overwrite", "dry_run")}
    run = texts.pop("run", Path(files[0]).stem if files else None)
    if not (files or flags["resume"]) or run is None:
        raise UserError(f"no config given. Usage: {USAGE}")
    if flags["resume"] and flags["overwrite"]:
        raise UserError(f"{CLI}: --resume continues a run, --overwrite replaces it; use only one of them")
    settings, origins = merge([(file, read(file)) for file in files] + [(CLI, flatten(given) | texts)])
    if files:
        check(settings, origins)  # report a mistake now, before torch is loaded
    return Command(settings, origins, run, **flags)


def underscores(word: str) -> str:
    """--train.batch-size=a-b -> --train.batch_size=a-b."""
    name, equals, value = word.partition("=")
    return name[:2] + name[2:].replace("-", "_") + equals + value if word.startswith("--") else word


def read(file: str) -> dict[str, Any]:
    """A TOML file as values by dotted name. Raises UserError if it cannot be read or is not valid TOML."""
    try:
        with open(file, "rb") as toml:
            content = toml.read(LARGEST_FILE + 1)
        if len(content) > LARGEST_FILE:
            raise UserError(f"{file} is too large for a config: the limit is {LARGEST_FILE:,} bytes")
        for number, line in enumerate(content.splitlines(), 1):
            if line.count(b".") > MOST_DOTS:  # tomllib's time grows with their square
                raise UserError(f"{file}: line {number} has more than {MOST_DOTS} dots; split it")
        return flatten(tomllib.loads(content.decode()))
    except FileNotFoundError as error:
        raise UserError(f"config not found: {file}{known_configs(file)}") from error
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}") from error
    except ValueError as error:  # from tomllib or from UTF-8 decoding
        raise UserError(f"{file} is not valid TOML: {error}") from error
    except RecursionError as error:
        raise UserError(f"{file} is nested too deeply for a config") from error


def known_configs(file: str) -> str:
    """ "; did you mean X?" for a config with a similar name, else "; available: ..." listing configs/, or ""."""
    known = {path.stem: str(path) for path in sorted(Path("configs").glob("*.toml"))}
    near = difflib.get_close_matches(Path(file).stem, known, n=1)
    if near:
        return f"; did you mean {known[near[0]]}?"
    return f"; available: {', '.join(known.values())}" if known else ""


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"train": {"steps": 1}} -> {"train.steps": 1}; an empty nested table, such as [model.lora], is kept as {}."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if "." in key:  # a quoted key; unquoted, the dot would make a table
            raise ValueError(f"key {key!r:.60} contains a dot")
        table = isinstance(value, dict) and (value or not prefix)
        flat |= flatten(value, f"{prefix}{key}.") if table else {prefix + key: value}
    return flat


def unflatten(flat: dict[str, Any]) -> dict[str, Any]:
    """{"train.steps": 1} -> {"train": {"steps": 1}}."""
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        *path, key = name.split(".")
        table = tree
        for part in path:
            table = table.setdefault(part, {})
            if not isinstance(table, dict):
                raise UserError(f"{name}: {part} is both a value and a table")
        table[key] = value if value != {} else table.get(key, {}) | {}
    return tree


def merge(sources: list[tuple[str, dict[str, Any]]]) -> tuple[dict[str, Any], dict[str, str]]:
    """The settings, later sources overriding earlier ones, and the source of each.

    A source with steps, epochs or minutes replaces whichever of the three came before.
    """
    durations = {f"train.{name}" for name in DURATIONS}
    settings: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for origin, flat in sources:
        replaced = durations if durations & flat.keys() else set()
        settings = {name: value for name, value in settings.items() if name not in replaced} | flat
        origins |= dict.fromkeys(flat, origin)
    return settings, {name: origins[name] for name in settings}


def check(settings: dict[str, Any], origins: dict[str, str]) -> Config:
    """The validated config. Raises UserError for the first invalid setting."""
    try:
        with located(origins):
            return Config.model_validate(unflatten(settings))
    except ValidationError as error:
        raise UserError(explain(sorted(error.errors(), key=lambda e: e["type"] == "missing")[0], origins)) from error


def explain(error: Any, origins: dict[str, str]) -> str:
    """One line for a pydantic error: where the setting was given, its name, what is expected, what it got."""
    path = [str(part) for part in error["loc"] if part not in ("mlp", "gpt", "auto", "literal['auto']")]
    name = ".".join(path)
    cause = error.get("ctx", {}).get("error")
    names = [".".join([*path, inner]) for inner in cause.names] if isinstance(cause, Clash) else [name]
    message = error["msg"].removeprefix("Value error, ")
    kind = 'model.kind must be "mlp", "gpt" or "auto"'
    answers = {
        "extra_forbidden": f"unknown setting {name}{did_you_mean(name, {*SETTINGS, *TABLES} - {name})}",
        "missing": f"{name} is missing",
        "union_tag_invalid": kind,
        "union_tag_not_found": kind,
        "value_error": message,
    }
    otherwise = f"{name}: {message[0].lower()}{message[1:]}, got {shown(error['input'])}"
    return f"{describe_origins(names, origins)}: {answers.get(error['type'], otherwise)}"


def describe_origins(names: list[str], origins: dict[str, str]) -> str:
    """Where these settings were given: `a.toml`, or `command line (model.n_embd) and the default (model.n_head)`.

    All config files if none of these settings was given.
    """
    by_origin: dict[str, list[str]] = {}
    for name in names:
        by_origin.setdefault(origin_of(name, origins) or DEFAULT, []).append(name)
    if not by_origin.keys() - {DEFAULT}:
        files = dict.fromkeys(origin for origin in origins.values() if origin != CLI)
        return " and ".join(files) or (CLI if origins else "config")
    if len(by_origin) == 1:
        return next(iter(by_origin))
    return " and ".join(f"{origin} ({', '.join(given)})" for origin, given in by_origin.items())


def origin_of(name: str, origins: dict[str, str]) -> str | None:
    """Where a setting was given; for a table, its last setting; for an item of a list (`data.path.0`), the list."""
    inside = [origin for key, origin in origins.items() if f"{key}.".startswith(f"{name}.")]
    around = [origin for key, origin in origins.items() if name.startswith(f"{key}.")]
    return (inside or around or [None])[-1]


@contextmanager
def located(origins: dict[str, str]) -> Iterator[None]:
    """Prefix a UserError that starts with a setting's name with where it was given: `a.toml: data.path: ...`."""
    try:
        yield
    except UserError as error:
        name = re.match(r"[a-z0-9_.]*", str(error))[0]
        if name in origins:
            error.args = (f"{origins[name]}: {error}",)
        raise


def shown(value: Any) -> str:
    """The value as a message quotes it, shortened to one line."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # thousands of digits or levels
        return "a value too large to show"
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."

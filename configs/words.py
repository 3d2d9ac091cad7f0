"""Extract train.py's text options (names of files, parts and runs), so that they reach the config exactly as typed.

pydantic-settings interprets quotes, brackets, commas, backslashes and `None`, so it only gets the other options.
"""

import json
import os
from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from configs.errors import UserError
from configs.schema import Config


def parts(annotation: Any) -> set[Any]:
    """The types in an annotation: `list[Literal["a"]] | None` -> {list, str, NoneType}."""
    origin, inside = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return {type(value) for value in inside}
    if origin is Annotated:
        return parts(inside[0])
    own = set() if origin in (Union, UnionType) else {origin or annotation}
    return own.union(*map(parts, inside))


def leaves(table: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, set[Any]]]:
    """Dotted name and value types of every setting in `table`."""
    for name, field in table.model_fields.items():
        types = parts(field.annotation)
        tables = [part for part in types if isinstance(part, type) and issubclass(part, BaseModel)]
        for inner in tables:
            yield from leaves(inner, f"{prefix}{name}.")
        if not tables:
            yield f"{prefix}{name}", types


LISTS = {name for name, types in leaves(Config) if types == {list, str}}
TEXTS = {"run"} | {name for name, types in leaves(Config) if str in types and types <= {str, type(None)}}


def take_texts(words: list[str]) -> tuple[list[str], dict[str, Any]]:
    """Split a command line into the words of all other options, and the text options' values by dotted name.

    `["--train.seed", "3", "--data.path", "a.txt", "b.txt"]` -> `["--train.seed", "3"], {"data.path": ["a.txt",
    "b.txt"]}`. A list option takes all words up to the next option, and extends the list when repeated; for other
    options the last value counts. Raises UserError for a missing value or an extra one.
    """
    rest: list[str] = []
    texts: dict[str, Any] = {}
    for group in group_by_option(words):
        option, equals, value = group[0].partition("=")
        name, values = option.removeprefix("--"), [value, *group[1:]] if equals else group[1:]
        if not option.startswith("--") or name not in LISTS | TEXTS:
            rest += group
        elif not values:
            raise UserError(f"command line: {option} needs a value; if it starts with -, use =, as in {option}=-x")
        elif name in LISTS:
            texts[name] = texts.get(name, []) + parse_list(values)
        elif len(values) > 1:
            raise UserError(f"command line: unexpected argument {values[1]!r}")
        else:
            texts[name] = values[0]
    return rest, texts


def group_by_option(words: list[str]) -> list[list[str]]:
    """["-a", "1", "-b"] -> [["-a", "1"], ["-b"]]."""
    groups: list[list[str]] = []
    for word in words:
        if word.startswith("-") or not groups:
            groups.append([word])
        else:
            groups[-1].append(word)
    return groups


def parse_list(words: list[str]) -> list[str]:
    """The words unchanged, except that a single JSON list of strings is parsed, unless it is the name of a file."""
    return (len(words) == 1 and not os.path.lexists(words[0]) and json_list(words[0])) or words


def json_list(word: str) -> list[str]:
    """The list in `["a", "b"]`; [] if the word is anything but a JSON list of strings."""
    try:
        values = json.loads(word) if word.lstrip().startswith("[") else None
    except (ValueError, RecursionError):
        return []
    return values if isinstance(values, list) and all(isinstance(value, str) for value in values) else []

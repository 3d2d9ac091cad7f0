"""Options of train.py whose values are text: names of files, parts and runs reach the config exactly as typed.

pydantic-settings gives quotes, brackets, commas and backslashes a meaning of their own, and `None` another type. So
these options are taken out of the command line before it sees the rest.
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
    """The types that an annotation is made of: `list[Literal["a"]] | None` -> {list, str, NoneType}."""
    origin, inside = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return {type(value) for value in inside}
    if origin is Annotated:
        return parts(inside[0])
    own = set() if origin in (Union, UnionType) else {origin or annotation}
    return own.union(*map(parts, inside))


def leaves(table: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, set[Any]]]:
    """Every setting by its dotted name, with the types of its value."""
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
    """The words without the options whose values are text, and these options' values by dotted name.

    `["--train.seed", "3", "--data.path", "a.txt", "b.txt"]` -> `["--train.seed", "3"], {"data.path": ["a.txt",
    "b.txt"]}`. A list takes all words up to the next that begins with -, and grows if its option is repeated; of
    other options the last counts. Raises UserError for a missing value or one too many.
    """
    rest: list[str] = []
    found: dict[str, Any] = {}
    for group in grouped(words):
        option, equals, value = group[0].partition("=")
        name, values = option.removeprefix("--"), [value, *group[1:]] if equals else group[1:]
        if not option.startswith("--") or name not in LISTS | TEXTS:
            rest += group
        elif not values:
            raise UserError(f"command line: {option} needs a value; one that begins with - follows =: {option}=-x")
        elif name in LISTS:
            found[name] = found.get(name, []) + from_words(values)
        elif len(values) > 1:
            raise UserError(f"command line: {values[1]!r} is one word too many")
        else:
            found[name] = values[0]
    return rest, found


def grouped(words: list[str]) -> list[list[str]]:
    """Each word that begins with - together with those after it that don't."""
    groups: list[list[str]] = []
    for word in words:
        if word.startswith("-") or not groups:
            groups.append([word])
        else:
            groups[-1].append(word)
    return groups


def from_words(words: list[str]) -> list[str]:
    """The words as they are; one alone that is a JSON list of texts is that list, unless a file has this very name."""
    return (len(words) == 1 and not os.path.lexists(words[0]) and json_list(words[0])) or words


def json_list(word: str) -> list[str]:
    """`["a", "b"]` -> the two texts; [] for anything else."""
    try:
        values = json.loads(word) if word.lstrip().startswith("[") else None
    except (ValueError, RecursionError):
        return []
    return values if isinstance(values, list) and all(isinstance(value, str) for value in values) else []

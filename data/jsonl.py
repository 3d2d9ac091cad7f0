"""JSON Lines: a document on every line, in one field of an object."""

import json
from collections.abc import Iterable, Iterator

from configs.errors import UserError
from configs.files import count_values

LONGEST, MOST_VALUES = 2**24, 2**20  # bytes of one line, and values on it


def texts(lines: Iterable[bytes], field: str, where: object) -> Iterator[str]:
    """The field's text on every line that isn't blank.

    Raises UserError, naming the line, for one that is no JSON object, lacks the field, or holds half a character.
    """
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield text_of(line, field, f"{where}:{number}")


def text_of(line: bytes, field: str, where: str) -> str:
    """The text of one line. Raises UserError if there is none."""
    if len(line) >= LONGEST:
        raise UserError(f"{where}: a line of more than {LONGEST:,} bytes; one document belongs on each line")
    if count_values(line, MOST_VALUES) > MOST_VALUES:
        raise UserError(f"{where}: this line holds too many values to be a document")
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: this line is not JSON: {error}") from error
    text = record.get(field) if isinstance(record, dict) else None
    if not isinstance(text, str):
        others = [name for name, value in record.items() if isinstance(value, str)] if isinstance(record, dict) else []
        way_out = f"; it has {', '.join(others[:9])}, so say --data.field NAME" if others else ""
        raise UserError(f"{where}: this line has no text in a field {field!r}{way_out}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{where}: this text holds half of a surrogate pair, which UTF-8 can't") from error
    return text

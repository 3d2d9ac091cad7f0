"""JSON Lines: a document on every line, in one field of an object."""

import json
from collections.abc import Iterable, Iterator

from configs.errors import UserError

LONGEST = 2**28  # bytes of one line


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
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: this line is not JSON: {error}") from error
    if not isinstance(record, dict) or not isinstance(record.get(field), str):
        fields = (
            ", ".join(sorted(name for name, value in record.items() if isinstance(value, str))[:9])
            if isinstance(record, dict)
            else ""
        )
        has = f"; it has {fields}, so say --data.field NAME" if fields else ""
        raise UserError(f"{where}: this line has no text in a field {field!r}{has}")
    try:
        record[field].encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{where}: this text holds half of a surrogate pair, which UTF-8 can't") from error
    return record[field]

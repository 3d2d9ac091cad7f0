"""Read JSON Lines: one document per line, in one field of a JSON object."""

import json
from collections.abc import Iterable, Iterator

from configs.errors import UserError
from configs.files import count_values

LONGEST, MOST_VALUES = 2**24, 2**20  # bytes of one line, and values on it


def texts(lines: Iterable[bytes], field: str, where: object) -> Iterator[str]:
    """The text of every line that is not blank.

    Raises UserError, naming the line, if it is not a JSON object with text in `field`, or contains a lone surrogate.
    """
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield text_of(line, field, f"{where}:{number}")


def text_of(line: bytes, field: str, where: str) -> str:
    """The text of one line. Raises UserError as `texts` does."""
    if len(line) >= LONGEST:
        raise UserError(f"{where}: line longer than {LONGEST:,} bytes; put one document on each line")
    if count_values(line, MOST_VALUES) > MOST_VALUES:
        raise UserError(f"{where}: line with more than {MOST_VALUES:,} JSON values; put one document on each line")
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: invalid JSON: {error}") from error
    text = record.get(field) if isinstance(record, dict) else None
    if not isinstance(text, str):
        others = [name for name, value in record.items() if isinstance(value, str)] if isinstance(record, dict) else []
        way_out = f"; choose another with --data.field: {', '.join(others[:9])}" if others else ""
        raise UserError(f"{where}: no text in field {field!r}{way_out}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{where}: the text contains an unpaired surrogate, which UTF-8 cannot encode") from error
    return text

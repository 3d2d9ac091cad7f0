"""From tokens to text that can be shown while it grows: whole characters, and nothing that may turn out too much."""

import codecs
from collections.abc import Callable, Sequence


class TextStream:
    """Tokens go in one by one, text comes out as soon as it is certain.

    Bytes wait until their UTF-8 character is whole (what never becomes one is U+FFFD). The text ends before the first
    of `stops` to be complete, and what may be the beginning of one waits until that is decided. Because text is
    compared, not tokens, it makes no difference how a stop is cut into tokens. The token `end` ends the text too.
    """

    def __init__(self, token_bytes: Callable[[int], bytes], end: int | None = None, stops: Sequence[str] = ()) -> None:
        self.token_bytes, self.end, self.stops = token_bytes, end, stops
        self.decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self.waiting = ""
        self.ended = False

    def add(self, token: int) -> str:
        """What is certain after this token and wasn't before."""
        return self.close() if token == self.end else self.release(self.decoder.decode(self.token_bytes(token)))

    def close(self) -> str:
        """The rest, when no more tokens come."""
        text = self.release(self.decoder.decode(b"", final=True)) + self.waiting
        self.waiting, self.ended = "", True
        return text

    def release(self, more: str) -> str:
        """Take in more text and give out what no stop can concern any longer."""
        if self.ended:
            return ""
        text = self.waiting + more
        found = [(start + len(stop), start) for stop in self.stops if (start := text.find(stop)) >= 0]
        if found:
            self.waiting, self.ended = "", True
            return text[: min(found)[1]]
        begun = [n for stop in self.stops for n in range(1, len(stop)) if text.endswith(stop[:n])]
        sure = len(text) - max(begun, default=0)
        self.waiting = text[sure:]
        return text[:sure]

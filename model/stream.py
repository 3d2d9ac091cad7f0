"""Decode sampled tokens into text as they arrive: only complete characters, and nothing past a stop string."""

import codecs
from collections.abc import Callable, Sequence


class TextStream:
    """Takes tokens one by one and returns text as soon as it is final.

    Bytes wait until their UTF-8 character is complete (invalid ones become U+FFFD). The text ends before the first of
    `stops` to be completed, and a possible start of one waits until that is decided. Stops are compared with text, so
    it makes no difference how they are split into tokens. The token `end` ends the text too.
    """

    def __init__(self, token_bytes: Callable[[int], bytes], end: int | None = None, stops: Sequence[str] = ()) -> None:
        self.token_bytes, self.end, self.stops = token_bytes, end, stops
        self.decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self.waiting = ""
        self.ended = False

    def add(self, token: int) -> str:
        """The text that this token makes final."""
        return self.close() if token == self.end else self.release(self.decoder.decode(self.token_bytes(token)))

    def close(self) -> str:
        """The remaining text, after the last token."""
        text = self.release(self.decoder.decode(b"", final=True)) + self.waiting
        self.waiting, self.ended = "", True
        return text

    def release(self, more: str) -> str:
        """Append text and return what can no longer be part of a stop."""
        if self.ended:
            return ""
        text = self.waiting + more
        found = [(start + len(stop), start) for stop in self.stops if (start := text.find(stop)) >= 0]
        if found:
            self.waiting, self.ended = "", True
            return text[: min(found)[1]]
        partial = [n for stop in self.stops for n in range(1, len(stop)) if text.endswith(stop[:n])]
        final = len(text) - max(partial, default=0)
        self.waiting = text[final:]
        return text[:final]

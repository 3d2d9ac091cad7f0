"""A text network speaks: prompts are read, texts grow side by side, and what is certain is shown at once.

Text goes to stdout, everything else to stderr. On a terminal, characters that could steer it are shown as U+FFFD; a
file or a pipe gets the text as it is.
"""

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

import torch
from torch import Tensor, nn

from configs.errors import UserError, one_line
from data.seeds import seed_for
from data.tokenizer import Tokenizer, decode, first_token
from model import GPT
from model.cache import Reader
from model.generate import Drawn, Sampling, grow, window_start
from model.quantize import quantize
from model.stream import TextStream
from training.report import visible
from training.request import Request
from training.restore import Restored

ROWS = 16  # texts that grow side by side


class Speaker(NamedTuple):
    """A network that is ready to read, and how it was asked to speak."""

    reader: Reader
    tokenizer: Tokenizer
    request: Request
    sampling: Sampling
    prompts: list[list[int]]
    """what of them is in view"""

    @property
    def context(self) -> int:
        """Tokens it can look at, at most."""
        return self.reader.config.context_length


class Text(NamedTuple):
    """One of the texts that were asked for."""

    prompt: int
    """which of the prompts"""
    sample: int
    """which of its samples; with the seed this alone decides the luck, so that no text depends on the others"""
    tokens: list[int]
    """of the prompt"""


def speaker(restored: Restored, request: Request) -> Speaker:
    """The network in the precision that was asked for, its prompts understood.

    Raises UserError for int8 weights in bfloat16, and for a prompt that the tokenizer has no tokens for.
    """
    model, tokenizer = restored.model, restored.tokenizer
    assert isinstance(model, GPT) and tokenizer is not None
    if restored.checkpoint.state.quantized and request.dtype == "bfloat16":
        raise UserError(f"--dtype bfloat16: the weights of {restored.folder} are int8; leave --dtype out")
    if request.quantize == "int8" and not restored.checkpoint.state.quantized:
        quantize(model)
    if request.dtype == "bfloat16":
        model.bfloat16()
    sampling = Sampling(**{name: getattr(request, name) for name in Sampling._fields})
    prompts = [read(prompt, tokenizer, model.config.context_length) for prompt in request.prompts]
    reader = Reader(model)
    model.blocks = nn.ModuleList()  # the reader has a copy, and memory for one alone may be all there is
    return Speaker(reader, tokenizer, request, sampling, prompts)


def write_texts(speaker: Speaker) -> None:
    """Write all that was asked for: every sample of every prompt."""
    request = speaker.request
    warn_of_window(speaker)
    texts = [Text(p, s, tokens) for p, tokens in enumerate(speaker.prompts) for s in range(request.samples)]
    write = write_in_turn if request.logprobs is None else write_scores
    for first in range(0, len(texts), ROWS):
        write(speaker, texts[first : first + ROWS])


def read(prompt: str, tokenizer: Tokenizer, context: int) -> list[int]:
    """The tokens of a prompt that are in view; of a very long one only the end is tokenised at all."""
    longest = max(len(tokenizer.token_bytes(token)) for token in range(tokenizer.vocab_size))
    end = prompt[-context * longest :]  # as many tokens as fit at least: none has more characters than bytes
    tokens = tokenizer.encode(end).tolist() or [first_token(tokenizer)]
    view = tokens[window_start(len(tokens), context) :]
    if len(view) < len(tokens) or len(end) < len(prompt):
        seen = len(decode(tokenizer, view))
        note(f"the prompt is beyond the network's context: of {len(prompt):,} characters the last {seen:,} are read")
    return view


def warn_of_window(speaker: Speaker) -> None:
    """Say beforehand what happens to a text that outgrows the context."""
    T = speaker.context
    if max(map(len, speaker.prompts)) + speaker.request.max_tokens > T:
        note(f"a text that outgrows the context of {T} tokens is gone on with from its last {T - T // 2 + 1} to {T}")


def write_in_turn(speaker: Speaker, texts: list[Text]) -> None:
    """Show one text after the other, the first that isn't finished as it grows."""
    streams, waiting, shown = [stream(speaker) for _ in texts], [""] * len(texts), 0
    begin(speaker, texts[0])
    for text, piece in pieces(speaker, texts, streams):
        waiting[text] += piece
        while shown < len(texts):
            show(waiting[shown])
            waiting[shown] = ""
            if not streams[shown].ended:
                break
            show("\n")
            shown += 1
            if shown < len(texts):
                begin(speaker, texts[shown])


def begin(speaker: Speaker, text: Text) -> None:
    """Name a text, if there are several, and show its prompt."""
    request = speaker.request
    counts = (("prompt", text.prompt, len(request.prompts)), ("sample", text.sample, request.samples))
    if names := ", ".join(f"{name} {number + 1} of {count}" for name, number, count in counts if count > 1):
        note(f"--- {names}")
    show(request.prompts[text.prompt])


def pieces(speaker: Speaker, texts: list[Text], streams: list[TextStream]) -> Iterator[tuple[int, str]]:
    """What becomes certain, text by text, while they grow side by side."""
    for drawn in growing(speaker, texts, streams):
        for text, token, _ in drawn:
            yield text, streams[text].add(token)
    for text, rest in enumerate(streams):
        if not rest.ended:
            yield text, rest.close()


def growing(speaker: Speaker, texts: list[Text], streams: list[TextStream]) -> Iterator[list[Drawn]]:
    """The tokens that the texts grow by, each until its stream has ended."""
    request = speaker.request
    luck = [torch.Generator().manual_seed(seed_for(request.seed, text.sample)) for text in texts]
    tokens = [text.tokens for text in texts]
    return grow(speaker.reader, tokens, request.max_tokens, speaker.sampling, luck, lambda text, _: streams[text].ended)


def stream(speaker: Speaker) -> TextStream:
    """An empty text."""
    return TextStream(speaker.tokenizer.token_bytes, speaker.tokenizer.end_of_text, speaker.request.stop)


def write_scores(speaker: Speaker, texts: list[Text]) -> None:
    """A line of JSON for each new token: its log-probability (nats, before any filter) and those of the likeliest."""
    streams = [stream(speaker) for _ in texts]
    for drawn in growing(speaker, texts, streams):
        for text, token, logits in drawn:
            streams[text].add(token)
            scores = logits.float().log_softmax(dim=-1)
            likeliest = scores.topk(speaker.request.logprobs or 0).indices.tolist()
            line = {"prompt": texts[text].prompt, "sample": texts[text].sample, **scored(speaker, token, scores)}
            print(json.dumps({**line, "top": [scored(speaker, other, scores) for other in likeliest]}), flush=True)


def scored(speaker: Speaker, token: int, scores: Tensor) -> dict:
    """A token, what it stands for, and its score."""
    content = speaker.tokenizer.token_bytes(token)
    text = content.decode("utf-8", errors="replace")
    return {"token": token, "text": text, "bytes": [*content], "logprob": float(scores[token])}


def converse(speaker: Speaker) -> None:
    """Go on from what is typed, line by line, until Ctrl-D; Ctrl-C stops the text, not the conversation.

    All that was said is read again each time; when it outgrows the context the oldest turns are forgotten.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.stdin.reconfigure(errors="replace")
    with suppress(ImportError):  # Windows has none
        import readline  # noqa: F401 - from here on lines can be edited and called back
    warn_of_window(speaker)
    turns = speaker.prompts if any(speaker.request.prompts) else []
    number = 0
    while (line := ask()) is not None:
        try:
            turns = [*turns, *typed(speaker, line, begins=not turns)]
        except UserError as error:
            note(f"error: {one_line(error)}")
            continue
        turns = recent(turns, speaker.context)
        turns.append(reply(speaker, [token for turn in turns for token in turn], number))
        number += 1


def ask() -> str | None:
    """The next line that is typed, None at the end of all."""
    try:
        return input("> " if sys.stdin.isatty() and sys.stdout.isatty() else "")
    except EOFError:
        return None


def typed(speaker: Speaker, line: str, begins: bool) -> list[list[int]]:
    """What was typed as a turn, on a line of its own unless it begins the text; none for an empty line."""
    tokenizer = speaker.tokenizer
    knows_lines = any(tokenizer.token_bytes(token) == b"\n" for token in range(tokenizer.vocab_size))
    text = f"\n{line}" if line and knows_lines and not begins else line
    return [read(text, tokenizer, speaker.context)] if text or begins else []


def recent(turns: list[list[int]], context: int) -> list[list[int]]:
    """The newest turns that fit into the context together, and the last one in any case."""
    kept = list(turns)
    while len(kept) > 1 and sum(map(len, kept)) > context:
        kept.pop(0)
    if len(kept) < len(turns):
        note(f"beyond the context of {context} tokens: of {len(turns)} turns the last {len(kept)} are remembered")
    return kept


def reply(speaker: Speaker, tokens: list[int], number: int) -> list[int]:
    """Show what the network says next; the tokens of it, up to where it was stopped."""
    said, text = [], stream(speaker)
    try:
        for ((_, token, _),) in growing(speaker, [Text(0, number, tokens)], [text]):
            show(text.add(token))
            if not text.ended:
                said.append(token)
        show(text.close())
    except KeyboardInterrupt:
        pass
    show("\n")
    return said


def show(text: str) -> None:
    """Text on stdout, at once."""
    print(visible(text) if sys.stdout.isatty() else text, end="", flush=True)


def note(message: str) -> None:
    """A line on stderr: stdout is for text alone."""
    print(one_line(message), file=sys.stderr, flush=True)

"""Generate text: tokenize the prompts, sample them in batches, and print each text as it grows.

Text goes to stdout, everything else to stderr. On a terminal, control characters are shown as U+FFFD; a file or a pipe
gets the text unchanged.
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

ROWS = 16  # texts per batch


class Speaker(NamedTuple):
    """A network ready to sample from, and what was requested of it."""

    reader: Reader
    tokenizer: Tokenizer
    request: Request
    sampling: Sampling
    prompts: list[list[int]]
    """their tokens, cropped to the context"""

    @property
    def context(self) -> int:
        """The network's context length, in tokens."""
        return self.reader.config.context_length


class Text(NamedTuple):
    """One of the texts to generate."""

    prompt: int
    """index of its prompt"""
    sample: int
    """index among its prompt's samples; this and the seed alone seed its generator, so no text depends on the others"""
    tokens: list[int]
    """the prompt's tokens"""


def speaker(restored: Restored, request: Request) -> Speaker:
    """The network in the requested precision, with the prompts tokenized. Empties `restored.model.blocks`.

    Raises UserError for bfloat16 with int8 weights, and for a prompt with characters that the tokenizer lacks.
    """
    model, tokenizer = restored.model, restored.tokenizer
    assert isinstance(model, GPT) and tokenizer is not None
    if restored.checkpoint.state.quantized and request.dtype == "bfloat16":
        raise UserError(f"--dtype bfloat16: {restored.folder} already has int8 weights; omit --dtype")
    if request.quantize == "int8" and not restored.checkpoint.state.quantized:
        quantize(model)
    if request.dtype == "bfloat16":
        model.bfloat16()
    sampling = Sampling(**{name: getattr(request, name) for name in Sampling._fields})
    prompts = [read(prompt, tokenizer, model.config.context_length) for prompt in request.prompts]
    reader = Reader(model)
    model.blocks = nn.ModuleList()  # the reader has copied the weights, and there may not be memory for both
    return Speaker(reader, tokenizer, request, sampling, prompts)


def write_texts(speaker: Speaker) -> None:
    """Generate and print every sample of every prompt."""
    request = speaker.request
    warn_of_window(speaker)
    texts = [Text(p, s, tokens) for p, tokens in enumerate(speaker.prompts) for s in range(request.samples)]
    write = write_in_order if request.logprobs is None else write_scores
    for first in range(0, len(texts), ROWS):
        write(speaker, texts[first : first + ROWS])


def read(prompt: str, tokenizer: Tokenizer, context: int) -> list[int]:
    """The tokens of a prompt, cropped to the context; a very long prompt is cropped before it is tokenized."""
    longest = max(len(tokenizer.token_bytes(token)) for token in range(tokenizer.vocab_size))
    end = prompt[-context * longest :]  # at least `context` tokens: no token has more characters than bytes
    tokens = tokenizer.encode(end).tolist() or [first_token(tokenizer)]
    view = tokens[window_start(len(tokens), context) :]
    if len(view) < len(tokens) or len(end) < len(prompt):
        seen = len(decode(tokenizer, view))
        note(f"prompt longer than the context: using the last {seen:,} of {len(prompt):,} characters")
    return view


def warn_of_window(speaker: Speaker) -> None:
    """Warn, before sampling, that texts may outgrow the context."""
    T = speaker.context
    if max(map(len, speaker.prompts)) + speaker.request.max_tokens > T:
        note(f"texts longer than the {T}-token context continue from their most recent {T - T // 2 + 1} to {T} tokens")


def write_in_order(speaker: Speaker, texts: list[Text]) -> None:
    """Print the texts of a batch in order, the first unfinished one as it grows."""
    streams, waiting, shown = [new_stream(speaker) for _ in texts], [""] * len(texts), 0
    print_prompt(speaker, texts[0])
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
                print_prompt(speaker, texts[shown])


def print_prompt(speaker: Speaker, text: Text) -> None:
    """Print a text's prompt, and if there are several texts, a heading with its numbers."""
    request = speaker.request
    counts = (("prompt", text.prompt, len(request.prompts)), ("sample", text.sample, request.samples))
    if names := ", ".join(f"{name} {number + 1} of {count}" for name, number, count in counts if count > 1):
        note(f"--- {names}")
    show(request.prompts[text.prompt])


def pieces(speaker: Speaker, texts: list[Text], streams: list[TextStream]) -> Iterator[tuple[int, str]]:
    """Pieces of text, each with the index of its text, as the streams release them."""
    for batch in sample_tokens(speaker, texts, streams):
        for text, token, _ in batch:
            yield text, streams[text].add(token)
    for text, rest in enumerate(streams):
        if not rest.ended:
            yield text, rest.close()


def sample_tokens(speaker: Speaker, texts: list[Text], streams: list[TextStream]) -> Iterator[list[Drawn]]:
    """Sample the next token of every text, batch by batch, until its stream has ended."""
    request = speaker.request
    generators = [torch.Generator().manual_seed(seed_for(request.seed, text.sample)) for text in texts]
    tokens = [text.tokens for text in texts]
    sampling, ended = speaker.sampling, lambda text, _: streams[text].ended
    return grow(speaker.reader, tokens, request.max_tokens, sampling, generators, ended)


def new_stream(speaker: Speaker) -> TextStream:
    """An empty stream with the request's stop strings."""
    return TextStream(speaker.tokenizer.token_bytes, speaker.tokenizer.end_of_text, speaker.request.stop)


def write_scores(speaker: Speaker, texts: list[Text]) -> None:
    """Print a line of JSON per token: its log-probability (nats, before any filter) and those of the top K."""
    streams = [new_stream(speaker) for _ in texts]
    for batch in sample_tokens(speaker, texts, streams):
        for text, token, logits in batch:
            streams[text].add(token)
            scores = logits.float().log_softmax(dim=-1)
            top = scores.topk(speaker.request.logprobs or 0).indices.tolist()
            line = {"prompt": texts[text].prompt, "sample": texts[text].sample, **token_fields(speaker, token, scores)}
            print(json.dumps({**line, "top": [token_fields(speaker, other, scores) for other in top]}), flush=True)


def token_fields(speaker: Speaker, token: int, scores: Tensor) -> dict:
    """The JSON fields of a token: number, text, bytes and log-probability."""
    content = speaker.tokenizer.token_bytes(token)
    text = content.decode("utf-8", errors="replace")
    return {"token": token, "text": text, "bytes": [*content], "logprob": float(scores[token])}


def converse(speaker: Speaker) -> None:
    """Chat: continue each line typed, until Ctrl-D; Ctrl-C ends the reply, not the chat.

    Each reply continues the whole conversation; once that outgrows the context, the oldest turns are dropped.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.stdin.reconfigure(errors="replace")
    with suppress(ImportError):  # Windows has no readline
        import readline  # noqa: F401 - importing it gives input() editing and history
    warn_of_window(speaker)
    turns = speaker.prompts if any(speaker.request.prompts) else []
    number = 0
    while (line := read_line()) is not None:
        try:
            turns = [*turns, *to_turns(speaker, line, first=not turns)]
        except UserError as error:
            note(f"error: {one_line(error)}")
            continue
        turns = recent(turns, speaker.context)
        turns.append(reply(speaker, [token for turn in turns for token in turn], number))
        number += 1


def read_line() -> str | None:
    """The next line typed; None at the end of input."""
    try:
        return input("> " if sys.stdin.isatty() and sys.stdout.isatty() else "")
    except EOFError:
        return None


def to_turns(speaker: Speaker, line: str, first: bool) -> list[list[int]]:
    """The line as a list of one turn, preceded by a newline unless it is the first; an empty line is no turn."""
    tokenizer = speaker.tokenizer
    has_newline = any(tokenizer.token_bytes(token) == b"\n" for token in range(tokenizer.vocab_size))
    text = f"\n{line}" if line and has_newline and not first else line
    return [read(text, tokenizer, speaker.context)] if text or first else []


def recent(turns: list[list[int]], context: int) -> list[list[int]]:
    """The newest turns that fit in the context together, and always the last."""
    kept = list(turns)
    while len(kept) > 1 and sum(map(len, kept)) > context:
        kept.pop(0)
    if len(kept) < len(turns):
        note(
            f"conversation longer than the {context}-token context: keeping the last {len(kept)} of {len(turns)} turns"
        )
    return kept


def reply(speaker: Speaker, tokens: list[int], number: int) -> list[int]:
    """Print a reply to `tokens` as it grows; its tokens, without a stop. Ctrl-C cuts it short."""
    replied, text = [], new_stream(speaker)
    try:
        for ((_, token, _),) in sample_tokens(speaker, [Text(0, number, tokens)], [text]):
            show(text.add(token))
            if not text.ended:
                replied.append(token)
        show(text.close())
    except KeyboardInterrupt:
        pass
    show("\n")
    return replied


def show(text: str) -> None:
    """Print to stdout without a newline, and flush."""
    print(visible(text) if sys.stdout.isatty() else text, end="", flush=True)


def note(message: str) -> None:
    """Print a line to stderr, because stdout is only for generated text."""
    print(one_line(message), file=sys.stderr, flush=True)

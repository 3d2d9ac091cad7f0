"""From scores to text: rule out the unlikely, turn scores into probabilities, draw one token, append, repeat.

Each filter is a function of a vector of scores; what it rules out gets -inf. The order is fixed, and that of Hugging
Face's `generate`: the repetition penalty acts on the scores as the network gave them; the temperature comes next, for
what top-p and min-p keep depends on it; then top-k, top-p, min-p, each among those the one before has left. The one
division by the temperature is in `Unembedding.probabilities`, which every filter that needs probabilities asks.

All of this happens on the CPU, on one copy of the scores for each step: a seed then means the same text on every
device, and sums can be float64, which Apple's GPU lacks.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from model.cache import KVCache, Reader, next_logits
from model.gpt import GPT, Unembedding

NUCLEUS = 1024  # likeliest tokens that mostly are enough for top-p; sorting all 50,257 takes 30 times as long


class Sampling(NamedTuple):
    """How the next token is chosen; the defaults leave the network's own distribution as it is."""

    temperature: float = 1.0
    """0: always the likeliest"""
    top_k: int | None = None
    """draw among the k likeliest alone"""
    top_p: float = 1.0
    """draw among the fewest likeliest that have this probability together"""
    min_p: float = 0.0
    """draw among those with at least this share of the likeliest one's probability"""
    repetition_penalty: float = 1.0
    """above 1: what the text already contains becomes less likely"""


def repetition_penalty(
    logits: Float[Tensor, "... V"], seen: Bool[Tensor, "... V"], penalty: float
) -> Float[Tensor, "... V"]:
    """Positive scores of seen tokens divided by the penalty, negative ones multiplied (Keskar et al. 2019, CTRL).

    Of all filters this one alone depends on where the scores' zero is. Raises ValueError unless 0 < penalty < inf.
    """
    if not 0 < penalty < float("inf"):
        raise ValueError(f"repetition_penalty must be a number above 0, got {penalty}")
    return torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def top_k(logits: Float[Tensor, "... V"], k: int) -> Float[Tensor, "... V"]:
    """The k largest scores as they are, -inf for the rest; among equals the lower token is kept.

    Raises ValueError unless 1 <= k <= V.
    """
    if not 1 <= k <= logits.size(-1):
        raise ValueError(f"top_k must be between 1 and the vocabulary's {logits.size(-1)}, got {k}")
    least = logits.topk(k).values[..., -1:]
    return torch.where(largest(logits, least, k), logits, -torch.inf)


def largest(values: Float[Tensor, "... V"], least: Tensor, count: int | Tensor) -> Bool[Tensor, "... V"]:
    """Where the `count` largest values are, of which `least` is the last; of equals the first are taken."""
    enough = values >= least
    if (enough.sum(dim=-1, keepdim=True) == count).all():
        return enough
    above, equal = values > least, values == least
    return above | (equal & (equal.cumsum(dim=-1) <= count - above.sum(dim=-1, keepdim=True)))


def top_p(logits: Float[Tensor, "... V"], p: float, temperature: float = 1.0) -> Float[Tensor, "... V"]:
    """The fewest scores whose tokens have probability p together, -inf for the rest (Holtzman et al. 2020, nucleus).

    Among equals the lower token is kept. Raises ValueError unless 0 < p <= 1.
    """
    if not 0 < p <= 1:
        raise ValueError(f"top_p must be above 0 and at most 1, got {p}")
    if p == 1:
        return logits
    probabilities = Unembedding.probabilities(logits, temperature)
    some, order = logits.topk(min(NUCLEUS, logits.size(-1)))
    if (probabilities.gather(-1, order).sum(dim=-1, dtype=torch.float64) < p).any():
        some, order = logits.sort(dim=-1, descending=True)
    likeliest = probabilities.gather(-1, order)
    before = likeliest.cumsum(dim=-1, dtype=torch.float64) - likeliest
    count = (before < p).sum(dim=-1, keepdim=True)
    return torch.where(largest(logits, some.gather(-1, count - 1), count), logits, -torch.inf)


def min_p(logits: Float[Tensor, "... V"], share: float, temperature: float = 1.0) -> Float[Tensor, "... V"]:
    """The scores of tokens with at least this share of the largest probability, -inf for the rest (Nguyen et al. 2024).

    Raises ValueError unless 0 <= share <= 1.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"min_p must be between 0 and 1, got {share}")
    if share == 0:
        return logits
    probabilities = Unembedding.probabilities(logits, temperature)
    return torch.where(probabilities >= share * probabilities.amax(dim=-1, keepdim=True), logits, -torch.inf)


def distribution(
    logits: Float[Tensor, "... V"], sampling: Sampling, seen: Bool[Tensor, "... V"] | None = None
) -> Float[Tensor, "... V"]:
    """What the next token is drawn from; `seen` marks the tokens that the text contains. Raises as the filters do."""
    logits, temperature = logits.float(), sampling.temperature
    if seen is not None:
        logits = repetition_penalty(logits, seen, sampling.repetition_penalty)
    if sampling.top_k is not None:
        logits = top_k(logits, sampling.top_k)
    logits = top_p(logits, sampling.top_p, temperature)
    logits = min_p(logits, sampling.min_p, temperature)
    return Unembedding.probabilities(logits, temperature)


def draw(probabilities: Float[Tensor, "V"], generator: torch.Generator | None = None) -> int:
    """One token, as often as it is likely: the first at which the sum of the probabilities exceeds a random number.

    The probabilities are on the CPU. (torch.multinomial would draw V random numbers.)
    """
    total = probabilities.cumsum(dim=-1, dtype=torch.float64)
    luck = torch.rand(1, generator=generator, dtype=torch.float64) * total[-1]
    return int(torch.searchsorted(total[:-1], luck, right=True))


def window_start(length: int, context_length: int) -> int:
    """The first token in view of a text of `length` tokens.

    0 while all of it fits; after that the window jumps on by half a context at a time, the least that fits.
    """
    half = max(1, context_length // 2)
    return max(0, -(-(length - context_length) // half) * half)


class Drawn(NamedTuple):
    """A token that a text has grown by."""

    text: int
    """which of the texts"""
    token: int
    logits: Tensor
    """the network's scores of all V tokens, before any filter; float32, on the CPU"""


def never(text: int, token: int) -> bool:
    """No text ends before its time."""
    return False


def grow(
    model: GPT | Reader,
    prompts: list[list[int]],
    max_tokens: int,
    sampling: Sampling = Sampling(),  # noqa: B008 - it is immutable
    generators: list[torch.Generator] | None = None,
    ended: Callable[[int, int], bool] = never,
) -> Iterator[list[Drawn]]:
    """Let texts grow side by side, a token each at a time, every one by its own luck and as if it were alone.

    `ended(text, token)` says, after a token has been handed out, whether it was that text's last. The model is put
    into eval mode. Raises ValueError for an empty prompt or a value of `sampling` that a filter refuses.
    """
    if not all(prompts):
        raise ValueError("a text needs at least one token to start from")
    reader = model if isinstance(model, Reader) else Reader(model)
    context, texts, alive = reader.config.context_length, [list(prompt) for prompt in prompts], [*range(len(prompts))]
    cache = KVCache(reader, len(texts), min(context, max(map(len, texts)) + max_tokens))
    for _ in range(max_tokens):
        rows = [texts[text] for text in alive]
        logits = next_logits(reader, rows, [window_start(len(row), context) for row in rows], cache).cpu().float()
        seen = None if sampling.repetition_penalty == 1 else tokens_in(rows, logits)
        chances = distribution(logits, sampling, seen)
        luck = [generators[text] for text in alive] if generators else [None] * len(alive)
        drawn = [Drawn(t, draw(p, g), scores) for t, p, g, scores in zip(alive, chances, luck, logits, strict=True)]
        for text, token, _ in drawn:
            texts[text].append(token)
        yield drawn
        going = [row for row, (text, token, _) in enumerate(drawn) if not ended(text, token)]
        if len(going) < len(alive):
            alive = [alive[row] for row in going]
            cache.keep(going)
        if not alive:
            return


def tokens_in(texts: list[list[int]], logits: Float[Tensor, "B V"]) -> Bool[Tensor, "B V"]:
    """Which tokens each text contains."""
    seen = torch.zeros_like(logits, dtype=torch.bool)
    for row, text in zip(seen, texts, strict=True):
        row[text] = True
    return seen


def stream(
    model: GPT | Reader,
    tokens: list[int],
    max_tokens: int,
    sampling: Sampling = Sampling(),  # noqa: B008
    generator: torch.Generator | None = None,
    end: int | None = None,
) -> Iterator[int]:
    """Yield up to `max_tokens` new tokens one by one, each drawn given the prompt and all before it.

    The text is over before the token `end`, such as a tokenizer's `end_of_text`. Raises as `grow` does.
    """
    generators = None if generator is None else [generator]
    for ((_, token, _),) in grow(model, [tokens], max_tokens, sampling, generators, lambda _, token: token == end):
        if token != end:
            yield token


def generate(
    model: GPT | Reader,
    tokens: list[int],
    max_tokens: int,
    sampling: Sampling = Sampling(),  # noqa: B008
    generator: torch.Generator | None = None,
    end: int | None = None,
) -> list[int]:
    """All new tokens at once; what they mean is said at `stream`."""
    return list(stream(model, tokens, max_tokens, sampling, generator, end))

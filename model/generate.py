"""From logits to text: filter the logits, turn them into probabilities, sample one token, append, repeat.

Each filter is a function of a vector of logits that sets what it rules out to -inf. The order is that of Hugging Face's
`generate`: the repetition penalty acts on the network's own logits; the temperature comes next, because top-p and min-p
depend on it; then top-k, top-p and min-p, each on what the one before has kept. The only division by the temperature is
in `Unembedding.probabilities`, which every filter that needs probabilities calls.

All of this runs on the CPU, on one copy of the logits per step: a seed then gives the same text on every device, and
sums can be float64, which Apple's GPU lacks.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from model.cache import KVCache, Reader, next_logits
from model.gpt import GPT, Unembedding

NUCLEUS = 1024  # top tokens that usually suffice for top-p; sorting all 50,257 takes 30 times as long


class Sampling(NamedTuple):
    """How the next token is sampled; the defaults keep the network's own distribution."""

    temperature: float = 1.0
    """0 is greedy: always the most likely token"""
    top_k: int | None = None
    """sample from the k most likely tokens"""
    top_p: float = 1.0
    """nucleus: sample from the smallest set of top tokens with this total probability"""
    min_p: float = 0.0
    """drop tokens below this share of the most likely token's probability"""
    repetition_penalty: float = 1.0
    """above 1, tokens that the text already contains become less likely"""


def repetition_penalty(
    logits: Float[Tensor, "... V"], seen: Bool[Tensor, "... V"], penalty: float
) -> Float[Tensor, "... V"]:
    """Divide positive logits of seen tokens by the penalty, multiply negative ones (Keskar et al. 2019, CTRL).

    Unlike the other filters, it depends on where the zero of the logits is. Raises ValueError unless 0 < penalty < inf.
    """
    if not 0 < penalty < float("inf"):
        raise ValueError(f"repetition_penalty must be finite and > 0, got {penalty}")
    return torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def top_k(logits: Float[Tensor, "... V"], k: int) -> Float[Tensor, "... V"]:
    """Keep the k largest logits, -inf for the rest; ties go to the lower token.

    Raises ValueError unless 1 <= k <= V.
    """
    if not 1 <= k <= logits.size(-1):
        raise ValueError(f"top_k must be between 1 and the vocabulary size, {logits.size(-1)}; got {k}")
    least = logits.topk(k).values[..., -1:]
    return torch.where(largest(logits, least, k), logits, -torch.inf)


def largest(values: Float[Tensor, "... V"], least: Tensor, count: int | Tensor) -> Bool[Tensor, "... V"]:
    """Mask of the `count` largest values, given the smallest of them, `least`; ties go to the first."""
    enough = values >= least
    if (enough.sum(dim=-1, keepdim=True) == count).all():
        return enough
    above, equal = values > least, values == least
    return above | (equal & (equal.cumsum(dim=-1) <= count - above.sum(dim=-1, keepdim=True)))


def top_p(logits: Float[Tensor, "... V"], p: float, temperature: float = 1.0) -> Float[Tensor, "... V"]:
    """Keep the fewest logits with total probability p, -inf for the rest (Holtzman et al. 2020, nucleus sampling).

    Ties go to the lower token. Raises ValueError unless 0 < p <= 1.
    """
    if not 0 < p <= 1:
        raise ValueError(f"top_p must be in (0, 1], got {p}")
    if p == 1:
        return logits
    probabilities = Unembedding.probabilities(logits, temperature)
    some, order = logits.topk(min(NUCLEUS, logits.size(-1)))
    if (probabilities.gather(-1, order).sum(dim=-1, dtype=torch.float64) < p).any():
        some, order = logits.sort(dim=-1, descending=True)
    sorted_probabilities = probabilities.gather(-1, order)
    before = sorted_probabilities.cumsum(dim=-1, dtype=torch.float64) - sorted_probabilities
    count = (before < p).sum(dim=-1, keepdim=True)
    return torch.where(largest(logits, some.gather(-1, count - 1), count), logits, -torch.inf)


def min_p(logits: Float[Tensor, "... V"], share: float, temperature: float = 1.0) -> Float[Tensor, "... V"]:
    """Keep logits with at least this share of the largest probability, -inf for the rest (Nguyen et al. 2024).

    Raises ValueError unless 0 <= share <= 1.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"min_p must be in [0, 1], got {share}")
    if share == 0:
        return logits
    probabilities = Unembedding.probabilities(logits, temperature)
    return torch.where(probabilities >= share * probabilities.amax(dim=-1, keepdim=True), logits, -torch.inf)


def distribution(
    logits: Float[Tensor, "... V"], sampling: Sampling, seen: Bool[Tensor, "... V"] | None = None
) -> Float[Tensor, "... V"]:
    """Probabilities of the next token after all filters; `seen` marks tokens in the text. Raises as the filters do."""
    logits, temperature = logits.float(), sampling.temperature
    if seen is not None:
        logits = repetition_penalty(logits, seen, sampling.repetition_penalty)
    if sampling.top_k is not None:
        logits = top_k(logits, sampling.top_k)
    logits = top_p(logits, sampling.top_p, temperature)
    logits = min_p(logits, sampling.min_p, temperature)
    return Unembedding.probabilities(logits, temperature)


def draw(probabilities: Float[Tensor, "V"], generator: torch.Generator | None = None) -> int:
    """Sample one token: the first at which the cumulative probability exceeds a random number.

    The probabilities must be on the CPU. (torch.multinomial would draw V random numbers.)
    """
    total = probabilities.cumsum(dim=-1, dtype=torch.float64)
    threshold = torch.rand(1, generator=generator, dtype=torch.float64) * total[-1]
    return int(torch.searchsorted(total[:-1], threshold, right=True))


def window_start(length: int, context_length: int) -> int:
    """Index of the first token in the context window of a text of `length` tokens.

    0 while the text fits; then the smallest multiple of half a context that makes it fit. With context 64:
    64 -> 0, 65 -> 32, 96 -> 32, 97 -> 64.
    """
    half = max(1, context_length // 2)
    return max(0, -(-(length - context_length) // half) * half)


class Drawn(NamedTuple):
    """A sampled token."""

    text: int
    """index of its text"""
    token: int
    logits: Tensor
    """the network's logits (V), before any filter; float32, on the CPU"""


def never(text: int, token: int) -> bool:
    """The default `ended`: every text gets `max_tokens` tokens."""
    return False


def grow(
    model: GPT | Reader,
    prompts: list[list[int]],
    max_tokens: int,
    sampling: Sampling = Sampling(),  # noqa: B008 - it is immutable
    generators: list[torch.Generator] | None = None,
    ended: Callable[[int, int], bool] = never,
) -> Iterator[list[Drawn]]:
    """Extend several texts in a batch, one token each per step; each has its own random generator and is independent.

    After a token is yielded, `ended(text, token)` says whether it was that text's last. The model is put into eval
    mode. Raises ValueError for an empty prompt or a value of `sampling` that a filter rejects.
    """
    if not all(prompts):
        raise ValueError("a prompt needs at least one token")
    reader = model if isinstance(model, Reader) else Reader(model)
    context, texts, alive = reader.config.context_length, [list(prompt) for prompt in prompts], [*range(len(prompts))]
    cache = KVCache(reader, len(texts), min(context, max(map(len, texts)) + max_tokens))
    for _ in range(max_tokens):
        rows = [texts[text] for text in alive]
        logits = next_logits(reader, rows, [window_start(len(row), context) for row in rows], cache).cpu().float()
        seen = None if sampling.repetition_penalty == 1 else tokens_in(rows, logits)
        probabilities = distribution(logits, sampling, seen)
        own = [generators[text] for text in alive] if generators else [None] * len(alive)
        columns = zip(alive, probabilities, own, logits, strict=True)
        sampled = [Drawn(text, draw(p, generator), scores) for text, p, generator, scores in columns]
        for text, token, _ in sampled:
            texts[text].append(token)
        yield sampled
        remaining = [row for row, (text, token, _) in enumerate(sampled) if not ended(text, token)]
        if len(remaining) < len(alive):
            alive = [alive[row] for row in remaining]
            cache.keep(remaining)
        if not alive:
            return


def tokens_in(texts: list[list[int]], logits: Float[Tensor, "B V"]) -> Bool[Tensor, "B V"]:
    """Mask of the tokens that each text contains."""
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
    """Yield up to `max_tokens` new tokens one by one, each sampled given the prompt and all before it.

    Stops before the token `end`, such as a tokenizer's `end_of_text`. Raises as `grow` does.
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
    """All new tokens as a list; the arguments are those of `stream`."""
    return list(stream(model, tokens, max_tokens, sampling, generator, end))

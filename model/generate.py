"""From scores to text: keep the likely tokens, turn scores into probabilities, draw one, append, repeat.

The order is fixed: temperature and top-k first, then softmax, then the draw.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from model.gpt import GPT, Unembedding


def top_k(logits: Float[Tensor, "... V"], k: int) -> Float[Tensor, "... V"]:
    """The k largest scores as they are, -inf for the rest; among equals the lower token is kept.

    Raises ValueError unless 1 <= k <= V.
    """
    if not 1 <= k <= logits.size(-1):
        raise ValueError(f"top_k must be between 1 and the vocabulary's {logits.size(-1)}, got {k}")
    kept = logits.sort(dim=-1, descending=True, stable=True).indices[..., :k]
    return torch.full_like(logits, -torch.inf).scatter(-1, kept, logits.gather(-1, kept))


def window_start(length: int, context_length: int) -> int:
    """The first token in view of a text of `length` tokens.

    0 while all of it fits; after that the window jumps on by half a context at a time, the least that fits.
    """
    half = max(1, context_length // 2)
    return max(0, -(-(length - context_length) // half) * half)


@torch.inference_mode()
def generate(
    model: GPT,
    tokens: list[int],
    max_tokens: int,
    temperature: float = 1.0,
    k: int | None = None,
    generator: torch.Generator | None = None,
) -> Iterator[int]:
    """Yield `max_tokens` new tokens one by one, each drawn given the prompt and all before it.

    `temperature` 0 takes the likeliest token; `k` draws among the k likeliest alone. The model is put into
    eval mode. Raises ValueError for an empty prompt, a bad temperature or a bad k.
    """
    if not tokens:
        raise ValueError("a text needs at least one token to start from")
    model.eval()
    device = next(model.parameters()).device
    text = list(tokens)
    for _ in range(max_tokens):
        view = torch.tensor([text[window_start(len(text), model.config.context_length) :]], device=device)
        probabilities = next_probabilities(model, view, temperature, k)
        # The draw is made on the CPU, so that a seed means the same text on every device.
        token = int(torch.multinomial(probabilities.float().cpu(), 1, generator=generator))
        text.append(token)
        yield token


def next_probabilities(model: GPT, view: Int[Tensor, "B T"], temperature: float, k: int | None) -> Float[Tensor, "V"]:
    """The distribution that the next token is drawn from."""
    logits = model.next_logits(view)[0]
    if k is not None:
        logits = top_k(logits, k)
    return Unembedding.probabilities(logits, temperature)

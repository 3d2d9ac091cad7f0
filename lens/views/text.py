"""Views of a GPT on one text: attention, logit lens, surprise."""

import os
import sys
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from configs.errors import UserError
from data.text import open_text
from data.tokenizer import Tokenizer
from lens.capture import STAGES, Attention, attention, capture
from lens.logits import logit_lens, surprise
from lens.request import Request
from lens.seen import Seen, labels, table
from model import GPT
from model.generate import window_start
from training.restore import Restored, restore


class Speaking(NamedTuple):
    """A GPT with its tokenizer and display name."""

    model: GPT
    tokenizer: Tokenizer
    name: str

    @property
    def context(self) -> int:
        return self.model.config.context_length


def speaking(request: Request) -> tuple[Speaking, Restored]:
    """Load the run's network. Raises UserError if it cannot be loaded."""
    restored = restore(str(request.target), request.checkpoint)
    assert isinstance(restored.model, GPT) and restored.tokenizer is not None
    name = f"{restored.folder.name}, step {restored.checkpoint.state.step:,}"
    return Speaking(restored.model, restored.tokenizer, name), restored


def tokens_of(request: Request, network: Speaking, restored: Restored, default: int) -> list[int]:
    """The prompt's tokens; without a prompt, the first `default` tokens of the validation text.

    Raises UserError for a prompt of fewer than two tokens, or if the text is unavailable.
    """
    if request.prompt is None:
        return corpus(network, restored, default)
    tokens = network.tokenizer.encode(request.prompt).tolist()
    if len(tokens) < 2:
        raise UserError(f"--prompt must be at least two tokens, got {len(tokens)}")
    return tokens


def corpus(network: Speaking, restored: Restored, count: int) -> list[int]:
    """The first tokens of the validation split (training split if it is empty). Raises UserError if unavailable."""
    config = restored.record.resolved
    try:
        data = open_text(config.data, network.context, config.train.seed, network.tokenizer)
    except UserError as error:
        raise UserError(
            f"the run's training text is not available ({error}); pass --prompt or --prompt-file"
        ) from error
    split = "val" if data.count("val") else "train"
    return [int(token) for token in data.tokens[split][:count]]


def in_view(tokens: list[int], context: int) -> list[int]:
    """The tokens that fit the context: the last ones of a longer text, with a note on stderr."""
    view = tokens[window_start(len(tokens), context) :]
    if len(view) < len(tokens):
        print(f"showing the last {len(view):,} of {len(tokens):,} tokens", file=sys.stderr)
    return view


COLUMNS = 14  # most positions in a logit lens
MOST = 256  # most tokens in an attention view: each head's grid grows with their square


def attention_view(request: Request) -> Seen:
    """The requested heads: one stage, or all four for a single head."""
    network, restored = speaking(request)
    tokens = in_view(tokens_of(request, network, restored, min(24, network.context)), min(network.context, MOST))
    names = labels(network.tokenizer, tokens)
    found = attend(network.model, tokens)
    heads = [
        (layer, head)
        for layer in chosen(request.layer, len(found))
        for head in chosen(request.head, network.model.config.n_head)
    ]
    one = len(heads) == 1
    stages = (request.stage,) if request.stage else STAGES if one else ("pattern",)
    oriented = (lambda grid: grid.mT) if request.layout == "lesson" else (lambda grid: grid)
    grids = {
        (layer, head, stage): oriented(getattr(found[layer], stage)[0, head]).numpy()
        for layer, head in heads
        for stage in stages
    }
    text = f"{network.name}\n\n" + (one_head(found, *heads[0], names) if one else strongest(found, heads, names))
    sums = "columns sum to 1, as in the lesson" if request.layout == "lesson" else "rows sum to 1, as in papers"
    sentence = (
        f"Each query scores every key, and softmax turns the scores into weights ({sums}); later tokens are masked "
        'with -inf (lesson: "Attention, step by step").'
    )

    def draw():
        from lens.figures import text as figures

        return figures.attention(grids, names, request.layout, network.name, sentence)

    return Seen(text, sentence, draw)


def attend(model: GPT, tokens: list[int]) -> list[Attention]:
    """The attention of all layers on one text."""
    layers = capture(model, torch.tensor([tokens])).layers
    return [attention(block.attention, layer.attention_in) for block, layer in zip(model.blocks, layers, strict=True)]


def chosen(one: int | None, count: int) -> range:
    return range(count) if one is None else range(one, one + 1)


def strongest(found: list[Attention], heads: list[tuple[int, int]], names: list[str]) -> str:
    """A table of heads: mean distance, weight on the first token, and strongest link to any other earlier token."""
    rows = []
    for layer, head in heads:
        pattern = found[layer].pattern[0, head]
        T = len(pattern)
        back = (pattern * (torch.arange(T).unsqueeze(1) - torch.arange(T))).sum(dim=-1).mean()
        links = pattern.tril(-1)[:, 1:]  # without the first token, where idle heads put their attention
        query, key = divmod(int(links.argmax()), T - 1)
        link = f"{names[query]} <- {names[key + 1]}" if links.max() > 0 else "none"
        rows.append((layer, head, f"{back:.1f}", f"{pattern[1:, 0].mean():.2f}", f"{links.max():.2f}", link))
    head = ("layer", "head", "mean distance", "on first token", "strongest", "link")
    return table(head, rows, left=0)


def one_head(found: list[Attention], layer: int, head: int, names: list[str]) -> str:
    """A table of each query's three strongest keys with score, weight and weighted value norm."""
    stages = [stage[0, head] for stage in found[layer]]
    scores, _, pattern, weighted = stages
    rows = []
    for query, name in enumerate(names):
        for key in pattern[query].topk(min(3, query + 1)).indices.tolist():
            values = (f"{grid[query, key]:.3f}" for grid in (scores, pattern, weighted))
            rows.append((query, name, names[key], *values))
    title = f"layer {layer}, head {head}: each query's strongest keys\n"
    return title + table(("position", "query", "<- key", "score", "weight", "weight x |value|"), rows, left=3)


def logit_lens_view(request: Request) -> Seen:
    """The prediction after every layer, at each of the last few positions."""
    network, restored = speaking(request)
    tokens = in_view(tokens_of(request, network, restored, min(COLUMNS, network.context)), network.context)
    seen = logit_lens(network.model, capture(network.model, torch.tensor([tokens])))
    shown = slice(max(0, len(tokens) - COLUMNS), len(tokens))
    title = f"{network.name}, the last {COLUMNS} of {len(tokens)} tokens" if shown.start else network.name
    names = labels(network.tokenizer, tokens)[shown]
    guesses = [labels(network.tokenizer, row[shown]) for row in seen.tokens.tolist()]
    shares = seen.probabilities[:, shown].numpy()
    depths = ["embedding", *(f"layer {n}" for n in range(len(guesses) - 1))]
    rows = [
        (depth, *(f"{guess} {share:.0%}" for guess, share in zip(*row, strict=True)))
        for depth, *row in zip(depths, guesses, shares.tolist(), strict=True)
    ]
    text = f"{title}\n\n" + table(("input token", *names), rows, left=len(names) + 1)
    sentence = (
        "Each row decodes the residual stream after one layer as if it were the last: the most likely next token and "
        "its probability; the last row is the network's actual prediction, and the picture adds the actual next token "
        '(lesson: "What is a GPT?").'
    )

    def draw():
        from lens.figures import text as figures

        return figures.logit_lens(guesses, shares, depths, names, title, sentence)

    return Seen(text, sentence, draw)


def surprise_view(request: Request) -> Seen:
    """The text with the surprisal of each token, in bits."""
    network, restored = speaking(request)
    tokens = tokens_of(request, network, restored, 400)
    bits = surprise(network.model, tokens)
    names = labels(network.tokenizer, tokens)
    known = bits[1:]
    length = sum(len(network.tokenizer.token_bytes(token)) for token in tokens[1:])
    text = f"{network.name}: {len(known):,} tokens, {known.mean():.2f} bits each on average"
    text += f", {known.sum() / length:.3f} per byte\n\n" if length else "\n\n"
    if sys.stdout.isatty() and not os.environ.get("NO_COLOR"):
        text += coloured(names, bits) + "\n\n"
    worst = bits.nan_to_num(-1).topk(min(request.top, len(known))).indices.tolist()
    rows = [
        (
            at,
            "".join(names[max(0, at - 20) : at])[-30:],
            names[at],
            f"{bits[at]:.2f}",
            f"{0.5 ** bits[at]:.4f}",
        )
        for at in worst
    ]
    text += "most surprising tokens\n" + table(("position", "after", "token", "bits", "probability"), rows, left=3)
    sentence = (
        "Darker tokens are more surprising: -log2 of the probability that the network gave to the token, the loss that "
        'training minimises (lesson: "What is a GPT?").'
    )

    def draw():
        from lens.figures import text as figures

        return figures.surprise(names, bits.numpy(), network.name, sentence)

    return Seen(text, sentence, draw)


def coloured(names: list[str], bits: Tensor) -> str:
    """The text with ANSI colours, the background redder the higher a token's surprisal."""
    steps = (231, 224, 217, 210, 203, 196)  # 256-colour codes from white to red
    pieces = []
    for name, cost in zip(names, bits.nan_to_num(0).tolist(), strict=True):
        color = steps[min(int(cost / 2), len(steps) - 1)]
        pieces.append(f"\x1b[48;5;{color}m\x1b[38;5;16m{name}\x1b[0m" + "\n" * (name == "↵"))
    return "".join(pieces)


VIEWS: dict[str, Callable[[Request], Seen]] = {
    "attention": attention_view,
    "logit-lens": logit_lens_view,
    "surprise": surprise_view,
}

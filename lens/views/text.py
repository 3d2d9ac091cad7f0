"""What a text network does with one text, in words: attention, logit lens, surprise."""

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
    """A text network, come back to life."""

    model: GPT
    tokenizer: Tokenizer
    name: str

    @property
    def context(self) -> int:
        """Tokens it can look at, at most."""
        return self.model.config.context_length


def speaking(request: Request) -> tuple[Speaking, Restored]:
    """The run's network. Raises UserError if it can't be restored."""
    restored = restore(str(request.target), request.checkpoint)
    assert isinstance(restored.model, GPT) and restored.tokenizer is not None
    name = f"{restored.folder.name}, step {restored.checkpoint.state.step:,}"
    return Speaking(restored.model, restored.tokenizer, name), restored


def tokens_of(request: Request, network: Speaking, restored: Restored, default: int) -> list[int]:
    """The prompt's tokens, or else the first few of the text that the run is judged by.

    Raises UserError if there are fewer than two, or no prompt and no text at hand.
    """
    if request.prompt is None:
        return corpus(network, restored, default)
    tokens = network.tokenizer.encode(request.prompt).tolist()
    if len(tokens) < 2:
        raise UserError(f"--prompt: {len(tokens)} tokens are too few to look at; two at least")
    return tokens


def corpus(network: Speaking, restored: Restored, count: int) -> list[int]:
    """The first tokens of the run's validation split, or of the other if it has none. Raises UserError without one."""
    config = restored.record.resolved
    try:
        data = open_text(config.data, network.context, config.train.seed, network.tokenizer)
    except UserError as error:
        raise UserError(f"the run's text is not at hand ({error}); give one with --prompt or --prompt-file") from error
    split = "val" if data.count("val") else "train"
    return [int(token) for token in data.tokens[split][:count]]


def in_view(tokens: list[int], context: int) -> list[int]:
    """The end of a text that is longer than the context; stderr says so."""
    view = tokens[window_start(len(tokens), context) :]
    if len(view) < len(tokens):
        print(f"of {len(tokens):,} tokens the last {len(view):,} are in view", file=sys.stderr)
    return view


COLUMNS = 14  # places that a logit lens shows
MOST = 256  # tokens in a picture of attention: all heads' grids grow with their square


def attention_view(request: Request) -> Seen:
    """Every head that is asked for, at one stage or, for a single head, at all four."""
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
    turn = (lambda grid: grid.mT) if request.layout == "lesson" else (lambda grid: grid)
    grids = {
        (layer, head, stage): turn(getattr(found[layer], stage)[0, head]).numpy()
        for layer, head in heads
        for stage in stages
    }
    text = f"{network.name}\n\n" + (one_head(found, *heads[0], names) if one else strongest(found, heads, names))
    sums = (
        "columns sum to 1, as the lesson draws it" if request.layout == "lesson" else "rows sum to 1, as papers have it"
    )
    sentence = (
        f"Each query's word asks, each key's word answers, and softmax makes shares of the answers ({sums}); what "
        'comes later is hidden by -inf before softmax (lesson: "Attention, step by step").'
    )

    def draw():
        from lens.figures import text as figures

        return figures.attention(grids, names, request.layout, network.name, sentence)

    return Seen(text, sentence, draw)


def attend(model: GPT, tokens: list[int]) -> list[Attention]:
    """All heads of all layers on one text."""
    layers = capture(model, torch.tensor([tokens])).layers
    return [attention(block.attention, layer.attention_in) for block, layer in zip(model.blocks, layers, strict=True)]


def chosen(one: int | None, count: int) -> range:
    """The one that is asked for, or all."""
    return range(count) if one is None else range(one, one + 1)


def strongest(found: list[Attention], heads: list[tuple[int, int]], names: list[str]) -> str:
    """For each head where it looks most, beyond the first token and the token itself, and how far back on average."""
    rows = []
    for layer, head in heads:
        pattern = found[layer].pattern[0, head]
        T = len(pattern)
        back = (pattern * (torch.arange(T).unsqueeze(1) - torch.arange(T))).sum(dim=-1).mean()
        links = pattern.tril(-1)[:, 1:]  # the first token is where heads look that have nothing to find
        query, key = divmod(int(links.argmax()), T - 1)
        link = f"{names[query]} <- {names[key + 1]}" if links.max() > 0 else "none"
        rows.append((layer, head, f"{back:.1f}", f"{pattern[1:, 0].mean():.2f}", f"{links.max():.2f}", link))
    head = ("layer", "head", "tokens back", "on the first", "strongest", "link")
    return table(head, rows, left=0)


def one_head(found: list[Attention], layer: int, head: int, names: list[str]) -> str:
    """Each query's three strongest keys, and what there is to weigh them."""
    stages = [stage[0, head] for stage in found[layer]]
    scores, _, pattern, weighted = stages
    rows = []
    for query, name in enumerate(names):
        for key in pattern[query].topk(min(3, query + 1)).indices.tolist():
            values = (f"{grid[query, key]:.3f}" for grid in (scores, pattern, weighted))
            rows.append((query, name, names[key], *values))
    title = f"layer {layer}, head {head}: each query's strongest keys\n"
    return title + table(("place", "query", "<- key", "score", "share", "share x |value|"), rows, left=3)


def logit_lens_view(request: Request) -> Seen:
    """The guess after every layer, at each of the last few positions."""
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
    text = f"{title}\n\n" + table(("after reading", *names), rows, left=len(names) + 1)
    sentence = (
        "Each row reads the vectors after one more layer as if it were the last: the likeliest next token and its "
        "probability; the last row is the network's own answer, and below it stands what came "
        '(lesson: "What is a GPT?").'
    )

    def draw():
        from lens.figures import text as figures

        return figures.logit_lens(guesses, shares, depths, names, title, sentence)

    return Seen(text, sentence, draw)


def surprise_view(request: Request) -> Seen:
    """A text with the bits that each of its tokens cost."""
    network, restored = speaking(request)
    tokens = tokens_of(request, network, restored, 400)
    bits = surprise(network.model, tokens)
    names = labels(network.tokenizer, tokens)
    known = bits[1:]
    length = sum(len(network.tokenizer.token_bytes(token)) for token in tokens[1:])
    text = f"{network.name}: {len(known):,} tokens, {known.mean():.2f} bits each on average"
    text += f", {known.sum() / length:.3f} a byte\n\n" if length else "\n\n"
    if sys.stdout.isatty() and not os.environ.get("NO_COLOR"):
        text += coloured(names, bits) + "\n\n"
    worst = bits.nan_to_num(-1).topk(min(request.top, len(known))).indices.tolist()
    rows = [
        (
            place,
            "".join(names[max(0, place - 20) : place])[-30:],
            names[place],
            f"{bits[place]:.2f}",
            f"{0.5 ** bits[place]:.4f}",
        )
        for place in worst
    ]
    text += "the greatest surprises\n" + table(("place", "after", "came", "bits", "probability"), rows, left=3)
    sentence = (
        "Each token is as dark as it was surprising: -log2 of the probability that the network gave to it, the cost "
        'that training lowers (lesson: "What is a GPT?").'
    )

    def draw():
        from lens.figures import text as figures

        return figures.surprise(names, bits.numpy(), network.name, sentence)

    return Seen(text, sentence, draw)


def coloured(names: list[str], bits: Tensor) -> str:
    """The text for a terminal, the background redder with every bit."""
    steps = (231, 224, 217, 210, 203, 196)  # of the 256 colours, from white to red
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

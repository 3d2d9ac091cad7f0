"""Views of the parts of a GPT: embedding, heads, neurons."""

from collections.abc import Callable

import torch
from torch import Tensor

from configs.errors import UserError
from data.tokenizer import Tokenizer
from lens import circuits
from lens import embedding as space
from lens.capture import matrix
from lens.request import Request
from lens.seen import Seen, label, labels, table
from lens.views.text import Speaking, corpus, speaking

Bars = list[tuple[str, float]]


def embedding_view(request: Request) -> Seen:
    """PCA of the embedding, and the requested neighbours, analogy and direction."""
    network, _ = speaking(request)
    names = labels(network.tokenizer, range(network.tokenizer.vocab_size))
    rows = matrix(network.model.embedding.token)
    tokens = readable_tokens(network.tokenizer)
    plane = space.principal_components(rows[tokens])
    share = plane.explained.tolist()
    text = f"{network.name}\n\nfirst two principal components: {sum(share):.1%} of the variance of {len(tokens)} tokens"
    panels: dict[str, Bars] = {}
    for word in request.token or ([] if request.analogy or request.direction else [default_token(network.tokenizer)]):
        token = one_token(network.tokenizer, word, "--token")
        for title, measure in (("dot product", space.dot_products), ("cosine", space.cosines)):
            near = space.nearest(measure(rows, rows[token]), request.top)
            panels[f"{names[token]}: {title}"] = [(names[other], score) for other, score in near]
    if request.analogy:
        panels |= analogy(request, network.tokenizer, rows, names)
    if request.direction:
        panels |= direction(request, network.tokenizer, rows, names)
    text += "".join("\n\n" + beside({title: panels[title] for title in pair}) for pair in batched(panels))
    sentence = (
        "Tokens are points in a space; tokens used in similar ways are close, by dot product (long vectors score "
        "higher) or cosine. The nearest to a - b + c is usually an input, so it is listed with and without the inputs "
        '(lesson: "What is a GPT?").'
    )

    def draw():
        from lens.figures import circuits as figures

        points = [(names[token], *point) for token, point in zip(tokens, plane.points.tolist(), strict=True)]
        return figures.embedding(points, share, panels, network.name, sentence)

    return Seen(text, sentence, draw)


def batched(panels: dict[str, Bars]) -> list[list[str]]:
    """The titles in pairs."""
    titles = list(panels)
    return [titles[first : first + 2] for first in range(0, len(titles), 2)]


def beside(panels: dict[str, Bars]) -> str:
    """A table of ranked lists side by side."""
    columns = []
    for bars in panels.values():
        width = max(len(name) for name, _ in bars)
        columns.append([f"{name:<{width}}  {value:8.3f}" for name, value in bars])
    return table(["rank", *panels], [(n, *row) for n, row in enumerate(zip(*columns, strict=True), 1)], left=9)


def analogy(request: Request, tokenizer: Tokenizer, rows: Tensor, names: list[str]) -> dict[str, Bars]:
    """The tokens nearest to a - b + c, with and without the inputs."""
    a, b, c = (one_token(tokenizer, word, "--analogy") for word in request.analogy or [])
    found = space.analogy(rows, a, b, c)
    title = f"{names[a]} - {names[b]} + {names[c]}"
    both = {"with the inputs": True, "without the inputs": False}
    return {
        f"{title}, {how}": [(names[token], score) for token, score in found.nearest(request.top, with_inputs)]
        for how, with_inputs in both.items()
    }


def direction(request: Request, tokenizer: Tokenizer, rows: Tensor, names: list[str]) -> dict[str, Bars]:
    """The tokens nearest either end of a direction. Raises UserError if both ends have the same vector."""
    start, end = (one_token(tokenizer, word, "--direction") for word in request.direction or [])
    try:
        along = space.projections(rows, start, end)
    except ValueError as error:
        raise UserError(f"--direction: {error}") from error
    title = f"{names[start]} (0) → {names[end]} (1)"
    return {
        f"{title}: nearest the end": [(names[token], value) for token, value in space.nearest(along, request.top)],
        f"{title}: nearest the start": [(names[token], -value) for token, value in space.nearest(-along, request.top)],
    }


def one_token(tokenizer: Tokenizer, word: str, option: str) -> int:
    """The token of a word. Raises UserError unless it is exactly one token."""
    tokens = tokenizer.encode(word).tolist()
    if len(tokens) != 1:
        parts = " ".join(repr(tokenizer.token_bytes(token).decode(errors="replace")) for token in tokens[:10])
        raise UserError(f"{option}: {word!r} must be one token, but is {len(tokens)} tokens ({parts})")
    return tokens[0]


def readable_tokens(tokenizer: Tokenizer, most: int = 120) -> list[int]:
    """Up to `most` readable tokens in vocabulary order; those over 2 bytes only, if there are enough."""
    tokens = [token for token in range(tokenizer.vocab_size) if is_visible(tokenizer.token_bytes(token))]
    words = [token for token in tokens if len(tokenizer.token_bytes(token)) > 2]
    return (words if len(words) >= most else tokens)[:most]


def is_visible(content: bytes) -> bool:
    """Whether it is printable text other than spaces."""
    try:
        return content.decode().isprintable() and bool(content.strip())
    except UnicodeDecodeError:
        return False


def default_token(tokenizer: Tokenizer) -> str:
    """The token whose neighbours are shown by default: "e", or the first readable token."""
    known = [tokenizer.token_bytes(token).decode() for token in readable_tokens(tokenizer)]
    return "e" if "e" in known else known[0]


def heads_view(request: Request) -> Seen:
    """Every head's scores and effective ranks, and which heads read the output of earlier ones."""
    network, _ = speaking(request)
    model, config = network.model, network.model.config
    tokens = circuits.repeated(config.vocab_size, min(config.context_length // 2, 64), 8, request.seed)
    patterns = circuits.patterns(model, tokens)
    heads, between = [circuits.heads(block) for block in model.blocks], circuits.token_to_token(model)
    scores = {
        "previous token": circuits.previous_token(patterns),
        "duplicate token": circuits.duplicate_token(patterns),
        "induction": circuits.induction(patterns),
        "copying": each(heads, lambda head: torch.tensor(circuits.copying(head, between))),
    }
    values = {"QK": each(heads, circuits.qk_singular_values), "OV": each(heads, circuits.ov_singular_values)}
    ranks = {f"rank of {name}": circuits.effective_rank(found) for name, found in values.items()}
    compositions = circuits.compositions(heads)
    D, C = config.n_embd // config.n_head, config.n_embd
    columns = {
        **{name: (grid, "{:.2f}") for name, grid in scores.items()},
        **{n: (g, "{:.1f}") for n, g in ranks.items()},
    }
    rows = [
        (layer, head, *(form.format(grid[layer, head]) for grid, form in columns.values()))
        for layer in range(config.n_layer)
        for head in range(config.n_head)
    ]
    even = ", ".join(f"{score:.2f}" for score in circuits.chance(tokens.size(1)))
    text = (
        f"{network.name}, {tokens.size(1)} random tokens, the second half repeating the first\n\n"
        + table(("layer", "head", *columns), rows, left=0)
        + f"\n\nchance level (uniform attention): {even}; copying ranges from -1 to 1.\n"
        + f"ranks are effective ranks: exp of the singular values' entropy, at most {D} of {C}"
        + strongest(compositions, config.n_head, request.top)
    )
    where = "where it attends" + " (nearby positions only)" * (config.position == "rotary")
    pairs = ". The last grids show which heads read the output of earlier ones" * (config.n_layer > 1)
    sentence = (
        "A head is characterised by scores on a repeated random sequence and by two maps of rank at most "
        f"{D}: QK decides {where}, OV what it adds (norm gains folded in, biases ignored){pairs} "
        '(lesson: "Attention, step by step").'
    )

    def draw():
        from lens.figures import circuits as figures

        grids = {name: grid.numpy() for name, grid in scores.items()}
        curves = {name: found.numpy() for name, found in values.items()}
        shared = {name: grid.numpy() for name, grid in compositions._asdict().items()}
        return figures.heads(grids, curves, shared, C, network.name, sentence)

    return Seen(text, sentence, draw)


def each(heads: list[list[circuits.Head]], measure: Callable[[circuits.Head], Tensor]) -> Tensor:
    """The measure of every head: (L, H, ...)."""
    return torch.stack([torch.stack([measure(head) for head in row]) for row in heads])


def strongest(compositions: circuits.Composition, n_head: int, top: int) -> str:
    """A table of the strongest pairs of composing heads; empty for a single layer."""
    kinds = {}
    for kind, grid in compositions._asdict().items():
        pairs = grid.nan_to_num(-1).flatten().topk(min(top, int(grid.isfinite().sum())))
        heads = [divmod(index, grid.size(1)) for index in pairs.indices.tolist()]
        kinds[kind] = [
            f"{reader // n_head}.{reader % n_head} ← {writer // n_head}.{writer % n_head} {share:+.3f}"
            for (writer, reader), share in zip(heads, pairs.values.tolist(), strict=True)
        ]
    if not any(kinds.values()):
        return ""
    return "\n\nstrongest composition, later head ← earlier head (layer.head), above chance level\n\n" + table(
        kinds, zip(*kinds.values(), strict=True), left=3
    )


TOKENS = 4096  # of the run's text, searched for each neuron's highest activations


def neurons_view(request: Request) -> Seen:
    """The text that activates a layer's neurons most, and the tokens whose logits they raise or lower."""
    network, restored = speaking(request)
    layer = request.layer if request.layer is not None else network.model.config.n_layer - 1
    tokens = windows(request, network, restored)
    active = circuits.neuron_activations(network.model, tokens, layer)
    chosen = [request.neuron] if request.neuron is not None else circuits.most_selective(active, 6)
    shown, text = [], f"{network.name}, layer {layer}, {tokens.numel():,} tokens of text"
    for neuron in chosen:
        positions = circuits.most_exciting(active[..., neuron], min(request.top, 5))
        snippets = [snippet(network.tokenizer, tokens[row], active[row, :, neuron], at) for row, at in positions]
        added = circuits.writes(network.model, layer, neuron)
        up, down = (added.topk(min(8, len(added)), largest=largest) for largest in (True, False))
        adds = [(label(network.tokenizer, int(t)), float(v)) for t, v in zip(up.indices, up.values, strict=True)]
        takes = [(label(network.tokenizer, int(t)), float(v)) for t, v in zip(down.indices, down.values, strict=True)]
        shown.append((neuron, snippets, adds, takes))
        text += f"\n\nneuron {neuron}\n" + table(
            ("activation", "text"),
            [
                (f"{max(values):.2f}", "".join(n if i != at else f"[{n}]" for i, n in enumerate(names)))
                for names, values, at in snippets
            ],
            left=2,
        )
        text += (
            "\nraises  "
            + "  ".join(f"{n} {v:+.2f}" for n, v in adds)
            + "\nlowers  "
            + "  ".join(f"{n} {v:+.2f}" for n, v in takes)
        )
    sentence = (
        "A neuron is active where the vector matches its row of W-up, and then adds its column of W-down. Shown: the "
        "text that activates it most, and the logits that it changes most per unit of activation "
        '(lesson: "How LLMs store facts").'
    )

    def draw():
        from lens.figures import circuits as figures

        return figures.neurons(shown, layer, network.name, sentence)

    return Seen(text, sentence, draw)


def windows(request: Request, network: Speaking, restored) -> Tensor:
    """Context windows (B, T) of the prompt, or of the run's own text."""
    T = network.context
    if request.prompt is None:
        tokens = torch.tensor(corpus(network, restored, max(1, TOKENS // T) * T))
        return tokens[: len(tokens) // T * T].view(-1, T)
    tokens = torch.from_numpy(network.tokenizer.encode(request.prompt))
    if not len(tokens):
        raise UserError("--prompt is empty")
    return tokens[: len(tokens) // T * T].view(-1, T) if len(tokens) >= T else tokens.unsqueeze(0)


BEFORE, AFTER = 40, 14  # characters shown around a position


def snippet(tokenizer: Tokenizer, tokens: Tensor, values: Tensor, position: int) -> tuple[list[str], list[float], int]:
    """The tokens around a position, their activations, and the index of that position among them."""
    names = labels(tokenizer, tokens.tolist())
    first, end = position, position + 1
    while first > 0 and position - first < 24 and sum(map(len, names[first - 1 : position])) <= BEFORE:
        first -= 1
    while end < len(names) and end - position < 7 and sum(map(len, names[position + 1 : end + 1])) <= AFTER:
        end += 1
    return names[first:end], values[first:end].tolist(), position - first


VIEWS: dict[str, Callable[[Request], Seen]] = {
    "embedding": embedding_view,
    "heads": heads_view,
    "neurons": neurons_view,
}

"""What stands beside the numbers of a text network, in pictures and in tables: the right word, layer, head and unit."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle
from torch import Tensor

from configs.schema import Config, DataConfig, TrainConfig
from data.tokenizer import CharTokenizer
from lens import circuits
from lens import embedding as space
from lens.capture import STAGES, attention, capture
from lens.paint import BLUE, RED
from lens.views import text as text_views
from model import GPT, GPTConfig
from tests.lens.pictures import bars, cells, panels, rows, seen, ticks, title, words
from tests.lessons.helpers_b import drawn
from training.checkpoint import Checkpoint, State
from training.restore import Restored
from training.run import Record

L, H, D, C = 3, 2, 8, 16
KNOWN = CharTokenizer("abcdefghijklmnopABC123")
PROMPT = "hgfedc"  # every token once, so that a word names its place
T, V = len(PROMPT), KNOWN.vocab_size


@pytest.fixture
def model(monkeypatch) -> GPT:
    """A network of three layers of two heads whose patterns are far from even; explore.py finds it in every run."""
    config = GPTConfig(n_layer=L, n_head=H, n_embd=C, vocab_size=V, context_length=12)
    return restored(monkeypatch, drawn(GPT(config)).float(), KNOWN)


def restored(monkeypatch, model: GPT, known: CharTokenizer) -> GPT:
    """Make explore.py find this network in every run."""
    config = Config(model=model.config, data=DataConfig(path="none"), train=TrainConfig(steps=7))
    record = Record(asked={}, origins={}, resolved=config, data_sha256="", machine={})
    checkpoint = Checkpoint(Path("runs/net/checkpoints/step-000007"), State(step=7, log_bytes=0), None)
    found = Restored(Path("runs/net"), record, checkpoint, model, known)
    monkeypatch.setattr(text_views, "restore", lambda name, which: found)
    return model


def stages_of(model: GPT) -> list[dict[str, Tensor]]:
    """For each layer every stage of attention on the prompt: (head, query, key)."""
    layers = capture(model, torch.from_numpy(KNOWN.encode(PROMPT))[None]).layers
    pairs = zip(model.blocks, layers, strict=True)
    return [{n: grid[0] for n, grid in attention(b.attention, x.attention_in)._asdict().items()} for b, x in pairs]


IN_TITLES = {"scores": "scores", "masked": "masked", "pattern": "softmax", "weighted": "value"}
UNITS = {"scores": "score", "masked": "score", "pattern": "weight", "weighted": "|W_O v|"}


def is_of(found: np.ndarray, wanted: Tensor, layout: str) -> None:
    """A grid holds the weight of each key for each query, a column a query in the lessons' layout, else a row."""
    for query, key in product(range(T), repeat=2):
        cell = found[key, query] if layout == "lesson" else found[query, key]
        value = float(wanted[query, key])
        assert cell == pytest.approx(value, abs=1e-6) if np.isfinite(value) else np.isnan(cell)


@pytest.mark.parametrize("layout", ["lesson", "paper"])
@pytest.mark.parametrize(("layer", "head"), [(0, 1), (2, 0)])
def test_one_heads_grids_have_the_words_of_the_queries_and_keys_along_the_axes_that_say_so(model, layout, layer, head):
    figure = seen("attention", prompt=PROMPT, layer=layer, head=head, layout=layout).draw()
    assert figure.get_suptitle() == f"Layer {layer}, head {head} (net, step 7)"
    across, down = ("query", "key") if layout == "lesson" else ("key", "query")
    assert len(panels(figure)) == len(STAGES)
    for axes, stage in zip(panels(figure), STAGES, strict=True):
        assert axes.get_xlabel().startswith(across) and axes.get_ylabel().startswith(down)
        assert ("query position" in axes.get_xlabel()) is (layout == "lesson") is ("key position" in axes.get_ylabel())
        assert ticks(axes, "x") == ticks(axes, "y") == dict(enumerate(PROMPT))
        is_of(cells(axes), stages_of(model)[layer][stage][head], layout)
        image = axes.images[0]
        assert IN_TITLES[stage] in title(axes) and UNITS[stage] in image.colorbar.ax.get_ylabel()
        top, bottom = image.norm.vmax, image.norm.vmin
        assert bottom == (-top if stage in ("scores", "masked") else 0)
        assert image.colorbar.norm is image.norm and top == pytest.approx(np.nanmax(np.abs(cells(axes))))
        red, _, blue, _ = image.to_rgba(top)
        assert blue > red  # what is positive is blue


@pytest.mark.parametrize("layout", ["lesson", "paper"])
@pytest.mark.parametrize(
    ("chosen", "layers", "heads"),
    [
        ({}, [0, 1, 2], [0, 1]),
        ({"layer": 1, "stage": "scores"}, [1], [0, 1]),
        ({"head": 1, "stage": "weighted"}, [0, 1, 2], [1]),
    ],
    ids=str,
)
def test_a_grid_of_heads_names_layers_down_and_heads_across(model, layout, chosen, layers, heads):
    figure = seen("attention", prompt=PROMPT, layout=layout, **chosen).draw()
    shown, found = chosen.get("stage", "pattern"), stages_of(model)
    assert IN_TITLES[shown] in figure.get_suptitle()
    grid = iter(panels(figure))
    for layer, head in product(layers, heads):
        axes = next(grid)
        is_of(cells(axes), found[layer][shown][head], layout)
        assert title(axes) == (f"head {head}" if layer == layers[0] else "")
        assert axes.get_ylabel() == (f"layer {layer}" if head == heads[0] else "")
    limits = {(axes.images[0].norm.vmin, axes.images[0].norm.vmax) for axes in panels(figure)}
    assert len(limits) == 1  # all heads on one scale
    bar = axes.images[0].colorbar
    assert UNITS[shown] in bar.ax.get_ylabel() and (bar.norm.vmin, bar.norm.vmax) in limits
    with pytest.raises(StopIteration):
        next(grid)


def test_the_table_of_one_head_names_each_query_its_strongest_keys_and_their_numbers(model):
    text = seen("attention", prompt=PROMPT, layer=1, head=0).text
    assert text.startswith("net, step 7\n\nlayer 1, head 0:")
    table, grids = rows(text, "position query <- key"), stages_of(model)[1]
    for query in range(T):
        mine = [row for row in table if row[0] == str(query)]
        pattern = grids["pattern"][0, query]
        keys = sorted(range(query + 1), key=lambda key: -float(pattern[key]))[:3]
        assert [row[1:3] for row in mine] == [[PROMPT[query], PROMPT[key]] for key in keys]
        for row, key in zip(mine, keys, strict=True):
            numbers = [float(grids[stage][0, query, key]) for stage in ("scores", "pattern", "weighted")]
            assert [float(cell) for cell in row[3:]] == pytest.approx(numbers, abs=6e-4)
    assert text.split("\n")[3].split() == [
        "position",
        "query",
        "<-",
        "key",
        "score",
        "weight",
        "weight",
        "x",
        "|value|",
    ]


def test_the_table_of_all_heads_says_how_far_back_each_looks_and_its_strongest_link(model):
    text = seen("attention", prompt=PROMPT).text
    table = rows(text, "layer head mean distance on first token strongest link")
    assert [row[:2] for row in table] == [[str(layer), str(head)] for layer, head in product(range(L), range(H))]
    for row, (layer, head) in zip(table, product(range(L), range(H)), strict=True):
        pattern = stages_of(model)[layer]["pattern"][head].tolist()
        back = sum(pattern[q][k] * (q - k) for q in range(T) for k in range(q + 1)) / T
        first = sum(pattern[q][0] for q in range(1, T)) / (T - 1)
        weight, query, key = max((pattern[q][k], q, k) for q in range(T) for k in range(1, q))
        assert [float(cell) for cell in row[2:5]] == pytest.approx([back, first, weight], abs=0.051)
        assert [f"{back:.1f}", f"{first:.2f}", f"{weight:.2f}"] == row[2:5]
        assert row[5:] == [PROMPT[query], "<-", PROMPT[key]]


def guesses(model: GPT) -> tuple[list[str], np.ndarray]:
    """What the network cut off at each depth would say next at each position, and with which probability."""
    tokens, blocks, words_, shares = torch.from_numpy(KNOWN.encode(PROMPT))[None], list(model.blocks), [], []
    for depth in range(L + 1):
        model.blocks = torch.nn.ModuleList(blocks[:depth])
        best = model(tokens)[0].softmax(dim=-1).max(dim=-1)
        words_.append("".join(KNOWN.characters[i] for i in best.indices.tolist()))
        shares.append(best.values.tolist())
    model.blocks = torch.nn.ModuleList(blocks)
    return words_, np.array(shares)


def test_the_logit_lens_has_a_row_a_depth_a_column_a_token_and_below_it_what_came_next(model):
    figure, (said, shares) = seen("logit-lens", prompt=PROMPT).draw(), guesses(model)
    (axes,) = panels(figure)
    assert ticks(axes, "y") == {0: "embedding", 1: "layer 0", 2: "layer 1", 3: "layer 2"}
    assert ticks(axes, "x") == dict(enumerate(PROMPT)) and title(axes) == "input token"
    (below,) = axes.child_axes
    assert below.get_xlabel() == "actual next token"
    assert ticks(below, "x") == dict(enumerate(PROMPT[1:] + "?"))
    np.testing.assert_allclose(cells(axes), shares, atol=1e-5)
    written = words(axes)
    for row, column in product(range(L + 1), range(T)):
        mine = [text for (x, y), text in written.items() if x == column and abs(y - row) < 0.5]
        assert sorted(mine) == sorted([said[row][column], f"{shares[row, column]:.0%}"])
    bar = axes.images[0].colorbar
    assert bar.ax.get_ylabel() == "probability" and (bar.norm.vmin, bar.norm.vmax) == (0, 1)


def test_the_table_of_the_logit_lens_has_the_same_rows(model):
    text, (said, shares) = seen("logit-lens", prompt=PROMPT).text, guesses(model)
    lines = [line.split() for line in text.split("\n")[2:]]
    assert lines[0] == ["input", "token", *PROMPT]
    for depth, line in enumerate(lines[1:]):
        cells_ = [cell for pair in zip(said[depth], shares[depth], strict=True) for cell in (pair[0], f"{pair[1]:.0%}")]
        assert line == [*(["layer", str(depth - 1)] if depth else ["embedding"]), *cells_]
    assert len(lines) == 1 + L + 1


def test_of_a_long_text_the_logit_lens_shows_the_last_places_with_their_own_words(model, monkeypatch):
    monkeypatch.setattr(text_views, "COLUMNS", 4)
    found, (_, shares) = seen("logit-lens", prompt=PROMPT), guesses(model)
    figure = found.draw()
    (axes,) = panels(figure)
    assert ticks(axes, "x") == dict(enumerate(PROMPT[-4:]))
    np.testing.assert_allclose(cells(axes), shares[:, -4:], atol=1e-5)
    assert "the last 4 of 6 tokens" in found.text and "the last 4 of 6 tokens" in figure.get_suptitle()


@torch.no_grad()
def bits_of(model: GPT, text: str) -> list[float]:
    """-log2 of the probability of each token after the first."""
    tokens = KNOWN.encode(text).tolist()
    chances = [model.next_logits(torch.tensor([tokens[:n]]))[0].softmax(-1)[tokens[n]] for n in range(1, len(tokens))]
    return [-float(chance.log2()) for chance in chances]


def test_a_text_is_as_dark_as_it_was_surprising_token_by_token(model):
    figure, bits = seen("surprise", prompt=PROMPT).draw(), bits_of(model, PROMPT)
    (axes,) = panels(figure)
    letters = sorted((x, text) for (x, _), text in words(axes).items())
    assert "".join(text for _, text in letters) == PROMPT
    image = axes.images[0]
    assert image.colorbar.ax.get_ylabel() == "bits"
    assert (image.norm.vmin, image.norm.vmax) == (0, pytest.approx(max(8, *bits)))
    grounds = {patch.get_x(): patch for patch in axes.patches if isinstance(patch, Rectangle)}
    for place, cost in enumerate([float("nan"), *bits]):
        wanted = "#eeeeee" if place == 0 else to_hex(image.to_rgba(cost))
        assert to_hex(grounds[place].get_facecolor()) == wanted and letters[place][0] == place + 0.5


def test_the_table_of_surprises_counts_bits_and_their_probability(model):
    text, bits = seen("surprise", prompt=PROMPT, top=3).text, bits_of(model, PROMPT)
    mean = sum(bits) / len(bits)
    assert f"net, step 7: 5 tokens, {mean:.2f} bits each on average, {mean:.3f} per byte" in text
    order = sorted(range(5), key=lambda n: -bits[n])[:3]
    assert rows(text, "position after token bits probability") == [
        [str(n + 1), PROMPT[: n + 1], PROMPT[n + 1], f"{bits[n]:.2f}", f"{2 ** -bits[n]:.4f}"] for n in order
    ]


def test_of_characters_of_several_bytes_a_byte_costs_less_than_a_token(model, monkeypatch):
    known = CharTokenizer("é中abc")
    config = model.config.model_copy(update={"vocab_size": known.vocab_size})
    restored(monkeypatch, drawn(GPT(config)).float(), known)
    text = seen("surprise", prompt="a中éb").text
    mean, byte = (float(text.split(mark)[0].split()[-1]) for mark in (" bits each", " per byte"))
    assert byte == pytest.approx(mean * 3 / (3 + 2 + 1), abs=0.01)


def test_the_embedding_is_drawn_with_each_tokens_name_at_its_point_and_its_kind_in_the_legend(model):
    figure = seen("embedding").draw()
    axes, *_ = panels(figure)
    table = model.embedding.token.weight.detach()
    plane = space.principal_components(table)
    named = {text.get_text(): tuple(text.xy) for text in axes.texts}
    assert named.keys() == set(KNOWN.characters)
    for token, name in enumerate(KNOWN.characters):
        assert named[name] == pytest.approx(plane.points[token].tolist(), abs=1e-5)
    first, second = (f"{share:.1%}" for share in plane.explained.tolist())
    assert axes.get_xlabel().startswith("first") and first in axes.get_xlabel()
    assert axes.get_ylabel().startswith("second") and second in axes.get_ylabel()
    kinds = {"lower case": str.islower, "upper case": str.isupper, "digits": str.isdecimal}
    legend = axes.get_legend()
    assert [text.get_text() for text in legend.get_texts()] == list(kinds)
    for handle, points in zip(legend.legend_handles, axes.collections, strict=True):
        assert to_hex(handle.get_facecolor()[0]) == to_hex(points.get_facecolor()[0])
    for points, is_kind in zip(axes.collections, kinds.values(), strict=True):
        mine = [named[name] for name in KNOWN.characters if is_kind(name)]
        np.testing.assert_allclose(points.get_offsets(), mine)
    text = seen("embedding").text
    assert f"{sum(plane.explained.tolist()):.1%} of the variance of {V} tokens" in text


def measured(model: GPT) -> dict[str, dict[str, float]]:
    """By the title of a list: every token's number."""
    table = model.embedding.token.weight.detach().double()
    a, b, c = (table[KNOWN.characters.index(name)] for name in "abc")
    unit = table / table.norm(dim=1, keepdim=True)
    way = b - a
    towards = (table - a) @ way / (way @ way)
    answer = a - b + c
    numbers = {
        "a: dot product": table @ a,
        "a: cosine": unit @ (a / a.norm()),
        "a - b + c, with the inputs": unit @ (answer / answer.norm()),
        "a → b: nearest the end": towards,
        "a → b: nearest the start": towards,
    }
    return {title: dict(zip(KNOWN.characters, values.tolist(), strict=True)) for title, values in numbers.items()}


def test_lists_of_tokens_have_the_name_and_the_number_that_belong_together_the_best_first(model):
    found = seen("embedding", token=["a"], analogy=["a", "b", "c"], direction=["a", "b"], top=4)
    wanted = measured(model)
    wanted["a - b + c, without the inputs"] = {
        name: value for name, value in wanted["a - b + c, with the inputs"].items() if name not in "abc"
    }
    lists = panels(found.draw())[1:]
    assert len(lists) == 6
    for axes in lists:
        heading = " ".join(title(axes).split()).replace(" (0)", "").replace(" (1)", "")
        numbers = wanted[heading]
        best = sorted(numbers, key=lambda name: numbers[name], reverse=not heading.endswith("start"))[:4]
        assert ticks(axes, "y") == dict(enumerate(best)) and axes.yaxis_inverted()
        for place, name in enumerate(best):
            length, color = bars(axes)[place]
            assert length == pytest.approx(numbers[name], abs=1e-4)
            assert color == (BLUE if length >= 0 else RED).lower()
        for rank, name in enumerate(best, 1):
            line = f"{name}  {numbers[name]:8.3f}"
            assert any(row.startswith(f"{rank} ") and line in row for row in found.text.splitlines())
    assert "a (0) → b (1): nearest the end" in found.text


@pytest.fixture
def measures(model) -> dict[str, Tensor]:
    """The numbers of every head, (layer, head), as other tests know them."""
    tokens = circuits.repeated(V, 6, 8, 0)
    patterns = circuits.patterns(model, tokens)
    between = circuits.token_to_token(model)
    heads = [circuits.heads(block) for block in model.blocks]
    copying = torch.tensor([[circuits.copying(head, between) for head in row] for row in heads])
    return {
        "previous token": circuits.previous_token(patterns),
        "duplicate token": circuits.duplicate_token(patterns),
        "induction": circuits.induction(patterns),
        "copying": copying,
        "QK": torch.stack([torch.stack([circuits.qk_singular_values(head) for head in row]) for row in heads]),
        "OV": torch.stack([torch.stack([circuits.ov_singular_values(head) for head in row]) for row in heads]),
    }


SCORES = ("previous token", "duplicate token", "induction", "copying")


def test_scores_of_heads_are_drawn_layer_by_layer_down_and_head_by_head_across(model, measures):
    drawn_ = panels(seen("heads").draw())[:4]
    assert [title(axes) for axes in drawn_] == list(SCORES)
    for axes in drawn_:
        wanted = measures[title(axes)].numpy()
        assert axes.get_xlabel() == "head" and drawn_[0].get_ylabel() == "layer"
        np.testing.assert_allclose(cells(axes), wanted, atol=1e-5)
        assert set(ticks(axes, "x")) == {0, 1} and set(ticks(axes, "y")) == {0, 1, 2}
        written = words(axes)
        for (layer, head), score in np.ndenumerate(wanted):
            assert written[head, layer] == f"{score:.2f}"
        assert axes.images[0].norm.vmax == 1 and axes.images[0].norm.vmin == (-1 if axes is drawn_[-1] else 0)


def test_singular_values_are_drawn_under_the_map_and_the_layer_they_belong_to(model, measures):
    qk, ov = panels(seen("heads").draw())[4:6]
    legend = ov.get_legend()
    pairs = zip(legend.get_texts(), legend.legend_handles, strict=True)
    colors = {text.get_text(): to_hex(line.get_color()) for text, line in pairs}
    assert list(colors) == [f"layer {layer}" for layer in range(L)] and len(set(colors.values())) == L
    for axes, name in ((qk, "QK"), (ov, "OV")):
        assert title(axes) == f"singular values of {name}" and "16" in axes.get_xlabel()
        bound = [line for line in axes.lines if len(set(line.get_xdata())) == 1]
        assert [line.get_xdata()[0] for line in bound] == [D] and f"rank at most {D}" in axes.texts[0].get_text()
        curves = [line for line in axes.lines if line not in bound]
        for line, (layer, head) in zip(curves, product(range(L), range(H)), strict=True):
            assert to_hex(line.get_color()) == colors[f"layer {layer}"]
            values = measures[name][layer, head].tolist()
            assert list(line.get_xdata()) == [*range(1, D + 2)]
            assert list(line.get_ydata()) == pytest.approx([*values, 0], abs=1e-4)


def shares_of(model: GPT) -> dict[str, Tensor]:
    """For each kind of composition: (writing head, reading head), heads counted layer after layer."""
    found = circuits.compositions([circuits.heads(block) for block in model.blocks])
    return found._asdict()


def test_composition_is_drawn_with_the_writing_layers_down_and_the_reading_ones_across(model):
    kinds = shares_of(model)
    found = panels(seen("heads").draw())
    assert len(found) == 4 + 2 + 3 and found[6].get_ylabel() == "layer of writing head"
    for axes in found[6:]:
        wanted = kinds[title(axes).removeprefix("composition in the ")].numpy()
        assert axes.get_xlabel() == "layer of reading head"
        assert axes.get_ylabel() in ("", "layer of writing head")
        down, across = ({name: place for place, name in ticks(axes, along).items()} for along in "yx")
        assert list(down) == ["0", "1"] and list(across) == ["1", "2"]
        grid = cells(axes)
        for writer, reader in product(down, across):
            for a, b in product(range(H), repeat=2):  # the tick is in the middle of the layer's heads
                row, column = (round(at - (H - 1) / 2) for at in (down[writer] + a, across[reader] + b))
                value = wanted[int(writer) * H + a, int(reader) * H + b]
                assert grid[row, column] == pytest.approx(value, nan_ok=True)


def test_the_table_of_heads_has_each_heads_scores_and_effective_ranks_and_the_pairs_that_share_most(model, measures):
    text = seen("heads", top=3).text
    table = rows(text, "layer head previous token duplicate token induction copying rank of QK rank of OV")
    for row, (layer, head) in zip(table, product(range(L), range(H)), strict=True):
        scores = [f"{measures[name][layer, head]:.2f}" for name in SCORES]
        ranks = [f"{circuits.effective_rank(measures[name])[layer, head]:.1f}" for name in ("QK", "OV")]
        assert row == [str(layer), str(head), *scores, *ranks]
    pairs = text.split("query")[-1].split("\n")
    assert text.split("\n")[-4].split() == ["query", "key", "value"] and len(pairs) == 4
    for column, (_, grid) in enumerate(shares_of(model).items()):
        finite = [(float(grid[w, r]), w, r) for w, r in product(range(L * H), repeat=2) if grid[w, r].isfinite()]
        for line, (share, writer, reader) in zip(text.split("\n")[-3:], sorted(finite, reverse=True), strict=False):
            cells_ = line.split()
            assert cells_[4 * column : 4 * column + 4] == [
                f"{reader // H}.{reader % H}", "←", f"{writer // H}.{writer % H}", f"{share:+.3f}"
            ]  # fmt: skip


def neuron_numbers(model: GPT, layer: int, neuron: int) -> tuple[list[float], dict[str, float]]:
    """Its activation at each place of the prompt, and what a unit of it adds to each token's logit."""
    found = capture(model, torch.from_numpy(KNOWN.encode(PROMPT))[None]).layers[layer]
    added = circuits.writes(model, layer, neuron).tolist()
    return found.neurons[0, :, neuron].tolist(), dict(zip(KNOWN.characters, added, strict=True))


@pytest.mark.parametrize(("layer", "neuron"), [(0, 5), (2, 11)])
def test_a_neurons_picture_outlines_where_it_peaks_and_names_what_it_adds(model, layer, neuron):
    figure = seen("neurons", prompt=PROMPT, layer=layer, neuron=neuron).draw()
    active, adds = neuron_numbers(model, layer, neuron)
    assert figure.get_suptitle() == f"Neurons of layer {layer} (net, step 7)"
    left, right = panels(figure)
    assert title(left).startswith(f"neuron {neuron}: max {max(active):.1f};")
    assert "".join(text for _, text in sorted((x, text) for (x, _), text in words(left).items())) == PROMPT
    grounds = {patch.get_x(): patch for patch in left.patches}
    painted = left.images[0]
    for place, value in enumerate(active):
        assert to_hex(grounds[place].get_facecolor()) == to_hex(painted.to_rgba(value))
        assert (grounds[place].get_linewidth() > 0) is (value == max(active))
    best = sorted(adds, key=lambda name: -adds[name])
    shown = [*best[:6], *best[-6:]]
    assert ticks(right, "x") == dict(enumerate(shown)) and "change of logits" in title(right)
    for place, name in enumerate(shown):
        height, color = bars(right)[place]
        assert height == pytest.approx(adds[name], abs=1e-4) and color == (BLUE if height >= 0 else RED).lower()


def test_a_neurons_table_marks_where_it_peaks_and_lists_what_it_adds_and_takes(model):
    text, (active, adds) = seen("neurons", prompt=PROMPT, layer=1, neuron=3).text, neuron_numbers(model, 1, 3)
    peak = active.index(max(active))
    assert text.startswith(f"net, step 7, layer 1, {T} tokens of text\n\nneuron 3\n")
    assert rows(text, "activation text")[0] == [
        f"{max(active):.2f}",
        f"{PROMPT[:peak]}[{PROMPT[peak]}]{PROMPT[peak + 1 :]}",
    ]
    best = sorted(adds, key=lambda name: -adds[name])
    for word, names in (("raises", best[:8]), ("lowers", best[::-1][:8])):
        line = next(line for line in text.split("\n") if line.startswith(word))
        assert line.split()[1:] == [cell for name in names for cell in (name, f"{adds[name]:+.2f}")]


def test_without_a_layer_neurons_are_those_of_the_last(model):
    found = seen("neurons", prompt=PROMPT)
    figure = found.draw()
    assert f"layer {L - 1}" in found.text and f"layer {L - 1}" in figure.get_suptitle()
    assert len(panels(figure)) == 2 * 6

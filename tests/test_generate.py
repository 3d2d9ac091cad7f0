"""Sampling: which tokens may come, how likely each is, what the network sees, and how text grows."""

import math
from itertools import islice, pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from model import GPT, GPTConfig
from model.cache import KVCache, Reader, next_logits
from model.generate import (
    Sampling,
    distribution,
    draw,
    generate,
    grow,
    min_p,
    repetition_penalty,
    stream,
    top_k,
    top_p,
    window_start,
)
from model.gpt import Unembedding

thorough = settings(deadline=None, max_examples=100)
scores = st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=12)
wholes = st.lists(st.integers(-10, 10), min_size=1, max_size=12)  # many of them equal
temperatures = st.floats(0, allow_infinity=False)


def reader(context_length: int = 4, **settings) -> GPT:
    """A small GPT whose opinion depends strongly on what it sees."""
    torch.manual_seed(0)
    sizes = {"n_layer": 1, "n_head": 2, "n_embd": 8, "vocab_size": 11, "context_length": context_length}
    return GPT(GPTConfig(**{"tied": False, "init": "normal", **sizes, **settings})).eval()


def stubborn(logits: list[float]) -> GPT:
    """A GPT with these logits, whatever it reads: its last layer norm lets nothing through but a constant."""
    model = reader(vocab_size=len(logits))
    with torch.no_grad():
        model.norm.weight.zero_()
        model.norm.bias.zero_()[0] = 1
        model.unembedding.weight[:, 0] = torch.tensor(logits)
    return model


class OnAppleGPU(Tensor):
    """A tensor that says it is on Apple's GPU: it refuses float64, and counts the copies that are made of it.

    Its values are in `values`, on the CPU.
    """

    values: Tensor
    copies = 0

    @staticmethod
    def __new__(cls, values: Tensor) -> "OnAppleGPU":
        made = Tensor._make_wrapper_subclass(cls, values.shape, dtype=values.dtype, device="mps")
        made.values = values
        return made

    @classmethod
    def __torch_dispatch__(cls, function, types, arguments=(), named=None):
        named = dict(named or {})
        to = named.pop("device", None)
        leaves = function is torch.ops.aten._to_copy.default and to == torch.device("cpu")
        result = function(*tree_map_only(cls, lambda tensor: tensor.values, arguments), **named)
        if leaves:
            cls.copies += 1
            return result
        if any(tensor.dtype == torch.float64 for tensor in tree_leaves(result)):
            raise TypeError("the MPS framework doesn't support float64")
        return tree_map_only(Tensor, cls, result)


def seeded(seed: int = 0) -> torch.Generator:
    """A source of luck."""
    return torch.Generator().manual_seed(seed)


@thorough
@given(wholes.map(lambda values: [float(v) for v in values]) | scores, st.data())
def test_top_k_keeps_the_k_largest_as_they_are_and_of_equals_the_first(values, draw):
    k = draw.draw(st.integers(1, len(values)))
    logits = torch.tensor(values)
    kept = sorted(range(len(values)), key=lambda i: (-values[i], i))[:k]
    wanted = [logits[i].item() if i in kept else -math.inf for i in range(len(values))]
    assert top_k(logits, k).tolist() == wanted
    assert (Unembedding.probabilities(top_k(logits, k)) > 0).sum() <= k


@thorough
@given(wholes, st.integers(-1000, 1000), st.data())
def test_adding_the_same_to_every_score_changes_nothing(values, shift, draw):
    k = draw.draw(st.integers(1, len(values)))
    before, after = (
        Unembedding.probabilities(top_k(torch.tensor(values).double() + c, k), 0.7) for c in (0, shift)
    )  # fmt: skip
    torch.testing.assert_close(before, after, rtol=0, atol=1e-12)


SETTINGS = st.builds(
    Sampling,
    temperature=st.floats(0.05, 20),
    top_k=st.none() | st.integers(1, 12),
    top_p=st.floats(0.01, 1),
    min_p=st.floats(0, 1),
    repetition_penalty=st.just(1.0),
)


def fitting(sampling: Sampling, values: list) -> Sampling:
    """The same with a k that is no larger than the vocabulary."""
    return sampling._replace(top_k=sampling.top_k and min(sampling.top_k, len(values)))


@thorough
@given(wholes | scores, st.floats(0.01, 1), st.floats(0.05, 20))
def test_top_p_keeps_the_fewest_likeliest_that_reach_p(values, p, temperature):
    chances = Unembedding.probabilities(torch.tensor(values).double(), temperature)
    kept = top_p(torch.tensor(values).double(), p, temperature).isfinite()
    mass = math.fsum(chances[kept].tolist())
    assert mass >= p - 1e-12
    order = sorted(range(len(values)), key=lambda i: (-values[i], i))
    assert sorted(order[: int(kept.sum())]) == kept.nonzero().flatten().tolist(), "of equals the first"
    assert p == 1 or mass - float(chances[kept].min()) < p + 1e-12, "one fewer would not do"


@pytest.mark.parametrize("size", [1000, 1025, 5000])
def test_top_p_is_the_same_however_many_tokens_it_takes(size):
    logits = torch.randn(3, size, generator=seeded()).double() * torch.tensor([[0.01], [1.0], [8.0]])
    for p in (0.5, 0.99):
        ordered, order = logits.softmax(-1).sort(descending=True)
        fewest = (ordered.cumsum(-1) < p).sum(-1) + 1
        for row, count in enumerate(fewest):
            kept = top_p(logits, p)[row].isfinite().nonzero().flatten()
            assert kept.tolist() == order[row, :count].sort().values.tolist()


@thorough
@given(wholes | scores, st.floats(0, 1), st.floats(0.05, 20))
def test_min_p_keeps_what_is_at_least_that_share_as_likely_as_the_likeliest(values, share, temperature):
    logits = torch.tensor(values).double()
    chances = Unembedding.probabilities(logits, temperature)
    assert min_p(logits, share, temperature).isfinite().equal(chances >= share * chances.max())


@thorough
@given(scores, st.floats(0.01, 10), st.data())
def test_the_repetition_penalty_moves_seen_scores_away_from_or_towards_minus_infinity(values, penalty, draw):
    seen = torch.tensor(draw.draw(st.lists(st.booleans(), min_size=len(values), max_size=len(values))))
    after = repetition_penalty(torch.tensor(values), seen, penalty).tolist()
    for value, now, was_seen in zip(values, after, seen.tolist(), strict=True):
        moved = value / penalty if value > 0 else value * penalty
        assert now == pytest.approx(moved if was_seen else value, rel=1e-6)


@thorough
@given(wholes | scores, SETTINGS)
def test_all_filters_together_leave_a_distribution_in_the_same_order(values, sampling):
    sampling = fitting(sampling, values)
    p = distribution(torch.tensor(values).float(), sampling).tolist()
    assert min(p) >= 0 and math.fsum(p) == pytest.approx(1, abs=1e-5)
    assert sum(q > 0 for q in p) <= (sampling.top_k or len(values))
    order = sorted(range(len(values)), key=lambda i: (-values[i], i))
    assert all(p[a] >= p[b] for a, b in pairwise(order))


@thorough
@given(wholes, SETTINGS, st.integers(-1000, 1000))
def test_no_filter_but_the_penalty_knows_where_zero_is(values, sampling, shift):
    logits = torch.tensor(values, dtype=torch.float32)  # whole numbers, so that shifting them is exact
    sampling = fitting(sampling, values)
    assert distribution(logits + shift, sampling).equal(distribution(logits, sampling))


@thorough
@given(wholes | scores, SETTINGS)
def test_each_filter_acts_on_what_the_one_before_has_left(values, sampling):
    s = fitting(sampling, values)
    logits = torch.tensor(values, dtype=torch.float32)
    for step in (
        lambda x: x if s.top_k is None else top_k(x, s.top_k),
        lambda x: top_p(x, s.top_p, s.temperature),
        lambda x: min_p(x, s.min_p, s.temperature),
    ):
        logits = step(logits)
    assert distribution(torch.tensor(values).float(), s).equal(Unembedding.probabilities(logits, s.temperature))


FILTERS = {
    "top_k": lambda logits: top_k(logits, 3),
    "top_p": lambda logits: top_p(logits, 0.6),
    "min_p": lambda logits: min_p(logits, 0.3),
    "repetition_penalty": lambda logits: repetition_penalty(logits, logits > 0.3, 1.4),
}


@pytest.mark.parametrize("name", FILTERS)
def test_a_filter_works_row_by_row_and_leaves_its_argument_alone(name):
    logits = torch.randn(2, 3, 7, generator=seeded())
    before = logits.clone()
    rows = [FILTERS[name](row) for row in logits.view(6, 7)]
    assert FILTERS[name](logits).view(6, 7).equal(torch.stack(rows))
    assert logits.equal(before)


@pytest.mark.parametrize("keep", [lambda rows: top_k(rows, 3), lambda rows: top_p(rows, 0.5)], ids=["top_k", "top_p"])
def test_equal_scores_are_told_apart_in_each_row_by_itself(keep):
    rows = torch.tensor([[0.0, 0, 0, 0, 0], [5, 0, 0, 0, 0], [1, 1, 0, 0, 1], [0, 2, 2, 0, 2]])
    assert keep(rows).tolist() == [keep(row).tolist() for row in rows]


def test_a_p_that_is_reached_exactly_takes_no_further_token():
    assert top_p(torch.zeros(4), 0.5).tolist() == [0, 0, -math.inf, -math.inf]


@pytest.mark.parametrize("keep", [lambda logits: top_p(logits, 0.7), lambda logits: min_p(logits, 0.3)])
def test_a_filter_that_is_told_no_temperature_takes_the_probabilities_at_1(keep):
    logits = torch.tensor([0.6, 0.25, 0.15]).log()  # at temperature 2 the third is kept as well
    assert keep(logits).isfinite().tolist() == [True, True, False]


def test_a_share_of_one_leaves_the_likeliest_alone():
    assert min_p(torch.tensor([1.0, 3, 2, 3]), 1).tolist() == [-math.inf, 3, -math.inf, 3]


def test_a_p_of_one_rules_out_nothing_however_unlikely():
    logits = torch.tensor([0.0, -1000, -17, -17])
    assert top_p(logits, 1).tolist() == logits.tolist()


@pytest.mark.parametrize("shape", [(1500,), (2, 1500)], ids=str)
def test_a_nucleus_may_be_larger_than_what_is_mostly_enough(shape):
    kept = top_p(torch.zeros(shape), 0.8).isfinite().sum(dim=-1)
    assert (abs(kept - 1200) <= 1).all()  # 1 / 1500 is rounded


@pytest.mark.parametrize("k", [-1, 0, 4])
def test_a_k_outside_the_vocabulary_is_refused(k):
    with pytest.raises(ValueError, match=f"between 1 and the vocabulary size, 3; got {k}"):
        top_k(torch.zeros(3), k)


@thorough
@given(scores, temperatures, st.data())
def test_probabilities_are_none_negative_and_sum_to_one_at_any_temperature(values, temperature, draw):
    k = draw.draw(st.integers(1, len(values)))
    p = Unembedding.probabilities(top_k(torch.tensor(values), k), temperature)
    assert (p >= 0).all() and float(p.sum()) == pytest.approx(1, abs=1e-5)


@thorough
@given(scores, st.floats(0.01, 100))
def test_a_higher_score_never_gets_a_lower_probability(values, temperature):
    p = Unembedding.probabilities(torch.tensor(values), temperature).tolist()
    order = sorted(range(len(values)), key=lambda i: values[i])
    assert all(p[a] <= p[b] for a, b in pairwise(order))


@thorough
@given(st.lists(st.floats(-20, 20, width=32), min_size=1, max_size=12), st.floats(0.1, 100))
def test_a_probability_is_e_to_the_score_over_t_over_the_sum_of_all(values, temperature):
    powers = [math.exp(v / temperature) for v in values]
    p = Unembedding.probabilities(torch.tensor(values).double(), temperature)
    torch.testing.assert_close(p, torch.tensor([q / sum(powers) for q in powers]).double())


@thorough
@given(wholes)
def test_temperature_0_is_the_largest_score_the_first_of_equals(values):
    p = Unembedding.probabilities(torch.tensor(values).float(), 0)
    assert p.tolist() == [float(i == values.index(max(values))) for i in range(len(values))]


@pytest.mark.parametrize("temperature", [-0.1, math.inf, math.nan])
def test_a_temperature_that_is_none_is_refused(temperature):
    with pytest.raises(ValueError, match="temperature must be finite and >= 0"):
        Unembedding.probabilities(torch.zeros(3), temperature)


@thorough
@given(length=st.integers(0, 10_000), context=st.integers(2, 600))
def test_the_window_always_fits_and_jumps_by_half_a_context(length, context):
    start, half = window_start(length, context), context // 2
    assert length - start <= context
    assert start % half == 0
    assert start == 0 or length - (start - half) > context, "it never jumps further than it must"
    assert window_start(length + 1, context) - start in (0, half)


@pytest.mark.parametrize(
    ("context", "starts"), [(4, [0, 0, 0, 0, 0, 2, 2, 4, 4, 6]), (5, [0, 0, 0, 0, 0, 0, 2, 2, 4, 4])]
)
def test_the_first_token_in_view_by_length(context, starts):
    assert [window_start(length, context) for length in range(10)] == starts


def plain_text(model: GPT, prompt: list[int], count: int, temperature: float, k: int | None, seed: int) -> list[int]:
    """What the network writes, by the definition: a loop over the window, without cache, and luck read off a ruler."""
    text, luck, context = list(prompt), seeded(seed), model.config.context_length
    for _ in range(count):
        start = 0
        while len(text) - start > context:
            start += context // 2
        with torch.no_grad():
            logits = model(torch.tensor([text[start:]]))[0, -1]
        if k:
            logits[logits < logits.topk(k).values[-1]] = -math.inf
        chances = (logits / temperature).softmax(dim=0).tolist() if temperature else []
        mark = torch.rand(1, generator=luck, dtype=torch.float64).item()
        ends = [math.fsum(chances[: i + 1]) for i in range(len(chances))]
        text.append(next(i for i, end in enumerate(ends) if end > mark) if temperature else int(logits.argmax()))
    return text[len(prompt) :]


@pytest.mark.parametrize("context", [2, 4, 5, 16])
@pytest.mark.parametrize(("temperature", "k"), [(0.0, None), (1.0, None), (0.7, 3), (2.0, 1)])
def test_text_grows_as_in_a_plain_loop_over_the_window(context, temperature, k):
    model = reader(context)
    written = generate(model, [3, 1, 4], 12, Sampling(temperature, k), seeded(5))
    assert written == plain_text(model, [3, 1, 4], 12, temperature, k, 5)


KINDS = {
    "as GPT-2": {},
    "sinusoidal": {"position": "sinusoidal"},
    "rotary": {"position": "rotary"},
    "post-norm": {"norm": "post"},
    "tied": {"tied": True},
    "without bias": {"bias": False},
    "relu, one head": {"activation": "relu", "n_head": 1},
    "post-norm, sinusoidal, tied, no bias": {"norm": "post", "position": "sinusoidal", "tied": True, "bias": False},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lengths", [[1], [8], [19], [1, 8, 3, 19, 7]], ids=str)
def test_with_a_cache_scores_and_tokens_are_those_of_reading_everything_anew(kind, lengths):
    model = reader(8, **{"n_layer": 2, "n_embd": 16, **KINDS[kind]})
    texts = [torch.randint(11, (length,), generator=seeded(length)).tolist() for length in lengths]
    for drawn in grow(model, texts, 20, Sampling(temperature=0)):
        for text, token, logits in drawn:
            view = texts[text][window_start(len(texts[text]), 8) :]
            torch.testing.assert_close(logits, model.next_logits(torch.tensor([view]))[0], rtol=1e-4, atol=1e-4)
            assert token == logits.argmax()
            texts[text].append(token)
    assert [len(text) for text in texts] == [length + 20 for length in lengths]


def test_what_the_cache_does_not_hold_is_read():
    model, cache = reader(8), KVCache(Reader(reader(8)), 1, 8)
    for text in ([1, 2, 3], [1, 2, 3, 4], [1, 2], [5], [5, 6, 7, 8, 9], [5, 6, 7, 8, 9, 1]):
        found = next_logits(Reader(model), [text], [0], cache)
        torch.testing.assert_close(found, model.next_logits(torch.tensor([text])), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(0.7, 4, 0.9, 0.02, 1.3)], ids=["plain", "filtered"])
def test_a_text_does_not_depend_on_its_neighbours(sampling):
    model, prompts = reader(8), [[1], [2, 3, 4, 5, 6], [7, 8, 9], [1] * 30]
    together: list[list[int]] = [[] for _ in prompts]
    for drawn in grow(model, prompts, 25, sampling, [seeded(n) for n in range(4)]):
        for text, token, _ in drawn:
            together[text].append(token)
    assert together == [generate(model, prompt, 25, sampling, seeded(n)) for n, prompt in enumerate(prompts)]


def test_a_text_that_has_ended_leaves_the_others_to_themselves():
    model, prompts = reader(8), [[1], [2, 3], [4, 5, 6]]
    lengths, luck = [4, 17, 1], [seeded(n) for n in range(3)]
    grown: list[list[int]] = [[], [], []]
    for drawn in grow(model, prompts, 40, Sampling(), luck, lambda text, _: len(grown[text]) == lengths[text]):
        for text, token, _ in drawn:
            grown[text].append(token)
    for text, prompt in enumerate(prompts):
        assert grown[text] == generate(model, prompt, lengths[text], Sampling(), seeded(text))


def test_a_seen_token_can_be_forbidden_by_its_penalty():
    model = stubborn([5.0, 4.9, 4.8, 4.7])
    assert generate(model, [0], 3, Sampling(temperature=0, repetition_penalty=1e6)) == [1, 2, 3]


def test_greedy_text_needs_no_luck():
    texts = [generate(reader(), [1, 2], 12, Sampling(0), seeded(seed)) for seed in range(3)]
    greedy = generate(reader(), [1, 2], 12, Sampling(1.0, top_k=1), seeded(9))
    assert texts[0] == texts[1] == texts[2] == greedy


def test_a_seed_reproduces_the_text_and_another_gives_another():
    texts = [generate(reader(), [1], 30, Sampling(1.5), seeded(seed)) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_with_a_generator_of_its_own_the_text_leaves_torchs_random_state_alone():
    before = torch.get_rng_state()
    model = reader(dropout=0.5)
    torch.set_rng_state(before)
    generate(model, [1], 5, generator=seeded())
    assert torch.get_rng_state().equal(before)


def test_dropout_is_off_while_text_is_written():
    model = reader(dropout=0.5).train()
    assert generate(model, [1], 20, Sampling(0)) == generate(reader(), [1], 20, Sampling(0))


def test_the_weights_that_are_read_are_those_of_the_moment():
    model = reader()
    before = generate(model, [1], 20, Sampling(0))
    with torch.no_grad():
        model.blocks[0].attention.value.weight.normal_(generator=seeded(3))
    assert generate(model, [1], 20, Sampling(0)) != before


@pytest.mark.parametrize("count", [0, 1, 7])
def test_as_many_tokens_come_as_were_asked_for(count):
    prompt = [1, 2, 3]
    assert len(generate(reader(), prompt, count)) == count
    assert prompt == [1, 2, 3]


def test_tokens_come_one_by_one():
    assert len(list(islice(stream(reader(), [1], 10**12), 3))) == 3


def test_the_end_ends_the_text_and_is_no_part_of_it():
    model = stubborn([2.0, 1.0, 0.0, -1.0])
    whole = generate(model, [0], 50, generator=seeded())
    assert generate(model, [0], 50, generator=seeded(), end=2) == whole[: whole.index(2)]


def test_a_prompt_longer_than_the_context_is_read_from_its_end():
    model, prompt = reader(context_length=4), [5, 5, 5, 5, 6, 7, 8]
    with torch.no_grad():
        seen = model(torch.tensor([prompt[4:]]))[0, -1]  # seven tokens: the window jumps to 2, then to 4
    assert generate(model, prompt, 1, Sampling(0)) == [int(seen.argmax())]


@pytest.mark.parametrize(("temperature", "k"), [(3.0, None), (1.0, 2)])
def test_tokens_are_drawn_as_often_as_they_are_likely(temperature, k):
    logits = [2.0, 1.0, 0.0, -1.0]
    powers = [math.exp(v / temperature) * (k is None or i < k) for i, v in enumerate(logits)]
    p = torch.tensor([q / sum(powers) for q in powers])
    drawn = torch.tensor(generate(stubborn(logits), [0], 200, Sampling(temperature, k), seeded()))
    share = drawn.bincount(minlength=4) / 200
    assert ((share - p).abs() <= 4 * (p * (1 - p) / 200).sqrt()).all()  # four standard deviations


@thorough
@given(st.lists(st.sampled_from([0.0, 1e-30, 0.1, 1.0]), min_size=1, max_size=9).filter(any), st.integers(0, 2**32))
def test_what_has_no_probability_is_never_drawn(weights, seed):
    p = torch.tensor(weights) / sum(weights)
    assert p[draw(p, seeded(seed))] > 0


def test_not_even_a_luck_of_exactly_zero_draws_what_has_no_probability(monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda *_, **__: torch.zeros(1, dtype=torch.float64))
    assert draw(torch.tensor([0.0, 0.0, 0.5, 0.5])) == 2


@pytest.mark.parametrize(("dtype", "penalty"), [(torch.float32, 1.0), (torch.bfloat16, 1.2)], ids=str)
def test_a_device_without_float64_gives_the_text_of_a_cpu_after_one_copy_for_each_step(monkeypatch, dtype, penalty):
    model, prompts, steps = reader(vocab_size=500, context_length=8).to(dtype), [[1, 2, 3], [4], [5, 6]], 12
    sampling = Sampling(1.3, top_k=400, top_p=0.9, min_p=1e-4, repetition_penalty=penalty)

    def texts() -> list[list[int]]:
        luck = [seeded(row) for row in range(3)]
        drawn = grow(model, prompts, steps, sampling, luck, lambda row, token: token % 7 == 0)
        return [[token for _, token, scores in step if scores.device.type == "cpu"] for step in drawn]

    on_cpu = texts()
    monkeypatch.setattr("model.generate.next_logits", lambda *given: OnAppleGPU(next_logits(*given)))
    OnAppleGPU.copies = 0
    assert texts() == on_cpu and OnAppleGPU.copies == len(on_cpu) > 3
    with pytest.raises(TypeError, match="float64"):
        top_p(OnAppleGPU(torch.zeros(3)), 0.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tokens": []}, "at least one token"),
        ({"sampling": Sampling(temperature=-1.0)}, "temperature"),
        ({"sampling": Sampling(temperature=math.nan)}, "temperature"),
        ({"sampling": Sampling(top_k=0)}, "top_k"),
        ({"sampling": Sampling(top_k=12)}, "top_k"),
        ({"sampling": Sampling(top_p=0.0)}, "top_p"),
        ({"sampling": Sampling(top_p=1.1)}, "top_p"),
        ({"sampling": Sampling(top_p=math.nan)}, "top_p"),
        ({"sampling": Sampling(min_p=-0.1)}, "min_p"),
        ({"sampling": Sampling(min_p=1.1)}, "min_p"),
        ({"sampling": Sampling(repetition_penalty=0.0)}, "repetition_penalty"),
        ({"sampling": Sampling(repetition_penalty=math.inf)}, "repetition_penalty"),
    ],
)
def test_what_can_not_be_drawn_from_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        generate(reader(), **({"tokens": [1], "max_tokens": 1} | arguments))

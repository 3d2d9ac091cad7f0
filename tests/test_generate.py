"""Sampling: which tokens may come, how likely each is, what the network sees, and how text grows."""

import math
from itertools import islice, pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model import GPT, GPTConfig
from model.generate import generate, top_k, window_start
from model.gpt import Unembedding

thorough = settings(deadline=None, max_examples=150)
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


def test_top_k_works_row_by_row():
    logits = torch.randn(2, 3, 7, generator=seeded())
    rows = [top_k(row, 3) for row in logits.view(6, 7)]
    assert top_k(logits, 3).view(6, 7).equal(torch.stack(rows))


def test_top_k_leaves_its_argument_alone():
    logits = torch.tensor([1.0, 2.0, 3.0])
    top_k(logits, 1)
    assert logits.tolist() == [1, 2, 3]


@pytest.mark.parametrize("k", [-1, 0, 4])
def test_a_k_outside_the_vocabulary_is_refused(k):
    with pytest.raises(ValueError, match=f"between 1 and the vocabulary's 3, got {k}"):
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
    with pytest.raises(ValueError, match="temperature must be a number from 0 up"):
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


@pytest.mark.parametrize("context", [2, 4, 5, 16])
@pytest.mark.parametrize(("temperature", "k"), [(0.0, None), (1.0, None), (0.7, 3), (2.0, 1)])
def test_text_grows_as_in_a_plain_loop_over_the_window(context, temperature, k):
    model, text, draw = reader(context), [3, 1, 4], seeded(5)
    for _ in range(12):
        start = 0
        while len(text) - start > context:
            start += context // 2
        with torch.no_grad():
            logits = model(torch.tensor([text[start:]]))[0, -1]
        if temperature == 0:
            text.append(int(logits.argmax()))
            continue
        if k:
            logits[logits < logits.topk(k).values[-1]] = -math.inf
        text.append(int(torch.multinomial((logits / temperature).softmax(dim=0), 1, generator=draw)))
    assert list(generate(model, [3, 1, 4], 12, temperature, k, seeded(5))) == text[3:]


def test_greedy_text_needs_no_luck():
    texts = [list(generate(reader(), [1, 2], 12, 0.0, None, seeded(seed))) for seed in range(3)]
    greedy = list(generate(reader(), [1, 2], 12, 1.0, 1, seeded(9)))
    assert texts[0] == texts[1] == texts[2] == greedy


def test_a_seed_reproduces_the_text_and_another_gives_another():
    texts = [list(generate(reader(), [1], 30, 1.5, None, seeded(seed))) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_with_a_generator_of_its_own_the_text_leaves_torchs_random_state_alone():
    before = torch.get_rng_state()
    model = reader(dropout=0.5)
    torch.set_rng_state(before)
    list(generate(model, [1], 5, generator=seeded()))
    assert torch.get_rng_state().equal(before)


def test_dropout_is_off_while_text_is_written():
    model = reader(dropout=0.5).train()
    assert list(generate(model, [1], 20, 0.0)) == list(generate(reader(), [1], 20, 0.0))


@pytest.mark.parametrize("count", [0, 1, 7])
def test_as_many_tokens_come_as_were_asked_for(count):
    prompt = [1, 2, 3]
    assert len(list(generate(reader(), prompt, count))) == count
    assert prompt == [1, 2, 3]


def test_tokens_come_one_by_one():
    assert len(list(islice(generate(reader(), [1], 10**12), 3))) == 3


def test_a_prompt_longer_than_the_context_is_read_from_its_end():
    model, prompt = reader(context_length=4), [5, 5, 5, 5, 6, 7, 8]
    with torch.no_grad():
        seen = model(torch.tensor([prompt[4:]]))[0, -1]  # seven tokens: the window jumps to 2, then to 4
    assert next(generate(model, prompt, 1, 0.0)) == int(seen.argmax())


@pytest.mark.parametrize(("temperature", "k"), [(3.0, None), (1.0, 2)])
def test_tokens_are_drawn_as_often_as_they_are_likely(temperature, k):
    logits = [2.0, 1.0, 0.0, -1.0]
    powers = [math.exp(v / temperature) * (k is None or i < k) for i, v in enumerate(logits)]
    p = torch.tensor([q / sum(powers) for q in powers])
    drawn = torch.tensor(list(generate(stubborn(logits), [0], 200, temperature, k, seeded())))
    share = drawn.bincount(minlength=4) / 200
    assert ((share - p).abs() <= 4 * (p * (1 - p) / 200).sqrt()).all()  # four standard deviations


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tokens": []}, "at least one token"),
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": math.nan}, "temperature"),
        ({"k": 0}, "top_k"),
        ({"k": 12}, "top_k"),
    ],
)
def test_what_can_not_be_drawn_from_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        next(generate(reader(), **({"tokens": [1], "max_tokens": 1} | arguments)))

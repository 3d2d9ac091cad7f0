"""Attention, step by step: queries, keys and values, the mask, and heads side by side."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from model import attention as module
from model.attention import CausalSelfAttention, attend, attention_pattern, attention_scores
from model.gpt import Block
from tests.lessons.helpers_b import Head, drawn, heads_of, pattern_by_hand, small, small_gpt, vectors


def small_attention(**settings: Any) -> CausalSelfAttention:
    """Three heads of width 4 on vectors of 12 numbers, drawn."""
    return drawn(CausalSelfAttention(small(**settings)))


WAYS = {  # a type, whether gradients are wanted, the most positions whose pattern is stored, whether this is one
    "the fused kernel": (torch.float64, True, module.SHORT, False),
    "the fused kernel, without gradients": (torch.bfloat16, False, module.SHORT, False),
    "the fused kernel, as for long texts": (torch.bfloat16, True, 5, False),
    "a stored pattern": (torch.bfloat16, True, 6, True),
}


@contextmanager
def taking(way: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.dtype]:
    """What is computed inside in numbers of the given type takes this way through `attend`, or the test fails."""
    (dtype, gradients, short, stored), ways = WAYS[way], set()

    def noted(name: bool, function: Callable) -> Callable:
        return lambda *args, **named: ways.add(name) or function(*args, **named)

    with monkeypatch.context() as patch, torch.set_grad_enabled(gradients):
        patch.setattr(module, "SHORT", short)
        patch.setattr(module, "attention_pattern", noted(True, attention_pattern))
        patch.setattr(F, "scaled_dot_product_attention", noted(False, F.scaled_dot_product_attention))
        yield dtype
    assert ways == {stored}


def found_by(head: Head, x: torch.Tensor) -> torch.Tensor:
    """What a head takes from the words in view: the weighted sum of their values, D numbers for each word."""
    return pattern_by_hand(head, x) @ (x @ head.value_down.T)


def test_L48_without_a_mask_every_word_sees_every_other():
    """Attention, step by step: without a mask every word attends to all words, each with a weight above zero."""
    pattern = attention_pattern(vectors(6, 4), vectors(6, 4, seed=2), causal=False)
    assert (pattern > 0).all()
    torch.testing.assert_close(pattern.sum(dim=1), torch.ones(6).double())


def test_L63_one_head_is_the_whole_of_attention():
    """Attention, step by step: a single head is softmax(QKᵀ / √D) V on the whole width, then projected."""
    attention, x = small_attention(n_head=1), vectors(5, 12)
    scores = attention.query(x) @ attention.key(x).T / math.sqrt(12)
    scores[torch.ones(5, 5).triu(1) == 1] = -math.inf
    expected = attention.out(scores.softmax(dim=1) @ attention.value(x))
    torch.testing.assert_close(attention(x[None])[0], expected)


def test_L64_a_query_is_a_short_vector_for_every_word_and_head():
    """Attention, step by step: q = W_Q E, with far fewer dimensions than the embedding."""
    attention, x = small_attention(), vectors(1, 5, 12)
    queries = attention.split(attention.query(x))
    assert queries.shape == (1, 3, 5, 4)
    for h, head in enumerate(heads_of(attention)):
        bias = attention.query.bias[4 * h : 4 * h + 4]
        torch.testing.assert_close(queries[0, h, 2], head.query @ x[0, 2] + bias)


def test_L64_a_zero_query_attends_equally_to_all():
    """Attention, step by step: the query decides what a word attends to; a zero query attends equally to all."""
    attention, x = small_attention(), vectors(1, 5, 12)
    for parameter in attention.query.parameters():
        torch.nn.init.zeros_(parameter)
    values = attention.value(x[0])
    for place in range(5):
        torch.testing.assert_close(attention(x)[0, place], attention.out(values[: place + 1].mean(dim=0)))


def test_L65_a_key_that_answers_a_query_draws_its_attention():
    """Attention, step by step: if a key aligns with a query, the query's word attends to the key's word."""
    q, k = vectors(6, 4), vectors(6, 4, seed=2)
    k[1] = 100 * q[3] / q[3].norm()
    k[5] = 200 * q[3] / q[3].norm()  # answers better still, but stands later
    pattern = attention_pattern(q, k)
    assert pattern[3, 1] > 0.99 and pattern[3, 5] == 0


def test_L66_a_value_says_what_is_added_and_not_to_whom():
    """Attention, step by step: doubling the values doubles what is added and leaves the attention pattern unchanged."""
    attention, x = small_attention(), vectors(1, 5, 12)
    torch.nn.init.zeros_(attention.out.bias)
    before = attention(x)
    for parameter in attention.value.parameters():
        parameter.data *= 2
    torch.testing.assert_close(attention(x), 2 * before)


def test_L67_each_head_has_its_slice_of_the_output_matrix():
    """Attention, step by step: what the lesson calls Value-up is one head's slice of the output matrix."""
    attention, x = small_attention(bias=False), vectors(5, 12)
    for h, head in enumerate(heads_of(attention)):
        alone = small_attention(bias=False)
        others = [column for column in range(12) if column // 4 != h]
        alone.out.weight.data[:, others] = 0
        torch.testing.assert_close(alone(x[None])[0], found_by(head, x) @ head.value_up.T)


def test_L68_every_query_meets_every_key_in_a_dot_product():
    """Attention, step by step: the grid of scores has one dot product per query and key, including future keys."""
    q, k = vectors(6, 4), vectors(6, 4, seed=2)
    scores = attention_scores(q, k)
    for i in range(6):
        for j in range(6):
            expected = sum(float(a) * float(b) for a, b in zip(q[i], k[j], strict=True)) / 2
            assert scores[i, j].item() == pytest.approx(expected)


def test_L69_separate_queries_and_keys_let_a_word_attend_elsewhere():
    """Attention, step by step: without separate queries and keys a word scores highest with itself."""
    attention = small_attention(n_head=1, bias=False)
    x = F.normalize(vectors(6, 12), dim=1)
    x[4] = x[1]
    alike = attention_scores(x, x) * math.sqrt(12)  # W_Q = W_K = I
    torch.testing.assert_close(alike, alike.T)
    assert alike[4, 1].item() == pytest.approx(1) and (alike <= 1 + 1e-9).all()
    learned = attention_scores(attention.query(x), attention.key(x))
    assert (learned - learned.T).abs().max() > 0.1
    assert learned[4].argmax() not in (1, 4)


def test_L70_the_formula_is_scaled_dot_product_attention():
    """Attention, step by step: softmax(QKᵀ / √d) V is the formula of the paper and of PyTorch's fused kernel."""
    q, k, v = (vectors(2, 3, 6, 4, seed=seed) for seed in range(3))
    expected = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    torch.testing.assert_close(attention_pattern(q, k) @ v, expected)


@pytest.mark.parametrize("way", WAYS)
def test_L70_whichever_way_it_is_computed_attention_is_the_formula(way, monkeypatch):
    """Attention, step by step: the values are weighted by softmax(QKᵀ / √d), whichever kernel computes it."""
    q, k, v = (vectors(2, 3, 6, 4, seed=seed) for seed in range(3))
    by_hand = torch.zeros(2, 3, 6, 4).double()
    for place in range(6):
        weights = ((q[:, :, place, None] * k[:, :, : place + 1]).sum(dim=-1) / 2).exp()
        by_hand[:, :, place] = (weights.unsqueeze(-1) * v[:, :, : place + 1]).sum(dim=-2) / weights.sum(-1, True)
    with taking(way, monkeypatch) as dtype:
        found = attend(*(x.to(dtype) for x in (q, k, v))).double()
    near = 1e-10 if dtype == torch.float64 else 0.03  # bfloat16 has three digits
    torch.testing.assert_close(found, by_hand, rtol=0, atol=near)


def test_L70_scores_spread_as_far_in_wide_heads_as_in_narrow_ones():
    """Attention, step by step: dividing by √d keeps the scores of random vectors at standard deviation 1."""
    for width in (4, 64, 1024):
        scores = attention_scores(vectors(400, width), vectors(400, width, seed=2))
        assert scores.std().item() == pytest.approx(1, abs=0.05)


def test_L71_the_weights_of_each_word_are_a_distribution():
    """Attention, step by step: softmax turns a row of scores into weights, none negative, that sum to 1."""
    q, k = vectors(2, 3, 6, 4), vectors(2, 3, 6, 4, seed=2)
    pattern = attention_pattern(q, k)
    assert (pattern >= 0).all()
    torch.testing.assert_close(pattern.sum(dim=-1), torch.ones(2, 3, 6).double())
    odds = pattern[..., 5, 4] / pattern[..., 5, 2]  # e to the power of the difference of the scores
    torch.testing.assert_close(odds.log(), (q[..., 5, :] * (k[..., 4, :] - k[..., 2, :])).sum(-1) / 2)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("settings", [{}, {"norm": "post"}, {"n_head": 2, "position": "rotary"}], ids=str)
def test_L72_no_position_sees_the_future(way, settings, monkeypatch):
    """Attention, step by step: a position can't see what comes after it."""
    model = small_gpt(**settings)
    text, other = torch.tensor([[1, 2, 3, 4, 5, 6], [1, 2, 3, 9, 5, 6]])
    with taking(way, monkeypatch) as dtype:
        before, after = (model.to(dtype)(tokens[None])[0] for tokens in (text, other))
    assert torch.equal(before[:3], after[:3])
    assert ((before[3:] - after[3:]).abs().max(dim=1).values > 0.01).all()


def test_L72_later_words_have_weight_zero_and_the_first_sees_itself():
    """Attention, step by step: -∞ before softmax becomes a weight of exactly 0."""
    pattern = attention_pattern(vectors(6, 4), vectors(6, 4, seed=2))
    assert torch.equal(pattern.triu(1), torch.zeros(6, 6).double())
    assert pattern[0, 0] == 1


def test_L72_zeros_before_or_after_softmax_would_not_do():
    """Attention, step by step: a 0 before softmax lets the future in, a 0 after it breaks the sums; -∞ does neither."""
    q, k = vectors(6, 4), vectors(6, 4, seed=2)
    scores = attention_scores(q, k)
    leaking, short, masked = scores.tril().softmax(dim=1), scores.softmax(dim=1).tril(), attention_pattern(q, k)
    assert leaking.triu(1).sum() > 1 and short.sum(dim=1).min() < 0.5
    torch.testing.assert_close(masked, short / short.sum(dim=1, keepdim=True))


def test_L72_the_mask_hides_later_words_and_not_irrelevant_ones():
    """Attention, step by step: even an irrelevant word gets a weight above 0; only later words are hidden."""
    q, k = vectors(6, 4), vectors(6, 4, seed=2)
    k[2] = -20 * q[4]
    pattern = attention_pattern(q, k)
    assert 0 < pattern[4, 2] < 1e-6
    assert torch.equal(pattern > 0, torch.ones(6, 6).tril() == 1)


def test_L72_the_newest_word_sees_the_whole_past():
    """Attention, step by step: the pattern of only the newest words is the last rows of the full pattern."""
    q, k = vectors(6, 4), vectors(6, 4, seed=2)
    torch.testing.assert_close(attention_pattern(q[-2:], k), attention_pattern(q, k)[-2:])


def test_L73_twice_the_context_is_four_times_the_pattern():
    """Attention, step by step: every head's pattern has one weight per pair of words, context² in total."""
    sizes = {n: attention_pattern(vectors(3, n, 4), vectors(3, n, 4)).numel() for n in (8, 16, 32)}
    assert sizes == {n: 3 * n**2 for n in sizes}


def test_L74_the_weighted_values_are_added_to_the_embedding():
    """Attention, step by step: ΔE is the weighted sum of the values, and E' = E + ΔE."""
    block = drawn(Block(small(n_head=1, bias=False)))
    torch.nn.init.zeros_(block.mlp.get_parameter("layers.1.weight"))
    x = vectors(5, 12)
    seen, [head] = block.norm_1(x), heads_of(block.attention)
    pattern = pattern_by_hand(head, seen)
    for i, refined in enumerate(block(x[None])[0]):
        change = sum(pattern[i, j] * (head.value_up @ head.value_down @ seen[j]) for j in range(i + 1))
        torch.testing.assert_close(refined, x[i] + change)


def test_L75_value_is_a_low_rank_map_of_the_embedding_space_to_itself():
    """Attention, step by step: Value-up times Value-down is a map of the full space through few dimensions."""
    attention, x = small_attention(bias=False), vectors(5, 12)
    change = torch.zeros(5, 12).double()
    for head in heads_of(attention):
        low_rank = head.value_up @ head.value_down
        assert low_rank.shape == (12, 12) and torch.linalg.matrix_rank(low_rank) == 4
        change += pattern_by_hand(head, x) @ x @ low_rank.T
    torch.testing.assert_close(attention(x[None])[0], change)


def test_L76_many_heads_are_concatenated_and_projected_which_is_a_sum():
    """Attention, step by step: the output matrix on the concatenated heads is the sum of each head's Value-up."""
    attention, x = small_attention(bias=False), vectors(5, 12)
    heads = heads_of(attention)
    in_a_row = torch.cat([found_by(head, x) for head in heads], dim=1) @ attention.out.weight.T
    in_sum = sum((found_by(head, x) @ head.value_up.T for head in heads), torch.zeros(5, 12).double())
    torch.testing.assert_close(in_a_row, in_sum)
    torch.testing.assert_close(attention(x[None])[0], in_a_row)


def test_L76_heads_work_side_by_side():
    """Attention, step by step: changing one head's query changes nothing in the other heads."""
    attention, x = small_attention(), vectors(1, 5, 12)
    attention.out.weight.data[:, 4:8] = 0  # the second head's findings are thrown away
    before = attention(x)
    attention.query.weight.data[4:8] *= 3
    assert torch.equal(attention(x), before)


def test_L77_keys_and_values_may_come_from_another_text():
    """Attention, step by step: in cross-attention queries come from one text, keys from another, without a mask."""
    q, k, v = vectors(3, 4), vectors(5, 4, seed=2), vectors(5, 4, seed=3)
    pattern = attention_pattern(q, k, causal=False)
    assert pattern.shape == (3, 5)
    torch.testing.assert_close(pattern @ v, F.scaled_dot_product_attention(q[None], k[None], v[None])[0])

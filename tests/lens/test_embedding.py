"""The embedding as a space, against loops, numpy and scikit-learn."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA

from lens import embedding as space


def table(rows: int = 30, width: int = 8, seed: int = 0) -> torch.Tensor:
    """Random vectors of random lengths."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, width, generator=generator) * torch.rand(rows, 1, generator=generator)


def test_both_measures_are_what_a_loop_says():
    rows, vector = table(), table(seed=1)[0]
    for token, row in enumerate(rows.tolist()):
        dot = sum(a * b for a, b in zip(row, vector.tolist(), strict=True))
        cosine = dot / math.hypot(*row) / math.hypot(*vector.tolist())
        assert float(space.dot_products(rows, vector)[token]) == pytest.approx(dot, abs=1e-5)
        assert float(space.cosines(rows, vector)[token]) == pytest.approx(cosine, abs=1e-5)


def test_a_long_vector_is_near_by_dot_product_and_not_by_cosine():
    rows = torch.tensor([[1.0, 0.0], [5.0, 5.0], [2.0, 0.1]])
    assert space.nearest(space.dot_products(rows, rows[0]), 1)[0][0] == 1
    assert [token for token, _ in space.nearest(space.cosines(rows, rows[0]), 3)] == [0, 2, 1]


def test_nothing_is_near_a_vector_of_zeros():
    assert not space.cosines(table(), torch.zeros(8)).any()


def test_the_nearest_come_in_order_and_without_those_that_are_left_out():
    scores = torch.tensor([3.0, 9.0, 1.0, 9.0])
    assert space.nearest(scores, 3) == [(1, 9.0), (3, 9.0), (0, 3.0)]
    assert space.nearest(scores, 9, without=(1, 0)) == [(3, 9.0), (2, 1.0)]


def test_L57_a_minus_b_plus_c_is_found_where_it_was_put():
    """What is a GPT?: directions carry meaning, so a - b + c should lie near the word that is to c as a is to b."""
    rows = table()
    rows[7] = 2 * (rows[1] - rows[2] + rows[3])
    found = space.analogy(rows, 1, 2, 3)
    assert found.nearest(1, with_inputs=True)[0][0] == 7 and found.rank(7, with_inputs=True) == 1


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 1000))
def test_L57_ranks_count_the_nearer_ones_with_and_without_the_inputs(seed):
    """What is a GPT?: the quality of an analogy is a rank, among all words and among all but its inputs."""
    found = space.analogy(table(seed=seed), 4, 5, 6)
    order = found.scores.argsort(descending=True).tolist()
    others = [token for token in order if token not in (4, 5, 6)]
    for token in others:
        assert found.rank(token, with_inputs=True) == order.index(token) + 1
        assert found.rank(token, with_inputs=False) == others.index(token) + 1
    assert [token for token, _ in found.nearest(5, with_inputs=False)] == others[:5]


def test_the_nearest_to_an_analogy_is_an_input_where_the_difference_is_small():
    rows = table(rows=200, width=50)
    rows[2] = rows[1] + 0.1 * rows[2]
    assert space.analogy(rows, 1, 2, 3).nearest(1, with_inputs=True)[0][0] == 3


def test_a_direction_is_0_at_its_start_1_at_its_end_and_a_half_between():
    rows = table()
    rows[2] = (rows[0] + rows[1]) / 2
    along = space.projections(rows, 0, 1)
    assert along[:3].tolist() == pytest.approx([0, 1, 0.5], abs=1e-5)
    aside = rows[0] + torch.linalg.qr(torch.stack([rows[1] - rows[0], rows[5]]).mT).Q[:, 1]
    assert float(space.projections(torch.stack([rows[0], rows[1], aside]), 0, 1)[2]) == pytest.approx(0, abs=1e-5)
    with pytest.raises(ValueError):
        space.projections(rows, 3, 3)


@pytest.mark.parametrize("shape", [(30, 8), (5, 20)])
def test_L58_components_are_scikit_learns_up_to_their_sign(shape):
    """What is a GPT?: the picture of the space is a plane through it, the one of greatest variance."""
    rows = table(*shape)
    expected = PCA(2).fit(rows.double().numpy())
    points = expected.transform(rows.double().numpy())
    found = space.principal_components(rows)
    np.testing.assert_allclose(found.explained.numpy(), expected.explained_variance_ratio_, atol=1e-5)
    for ours, theirs in zip(found.points.mT.numpy(), points.T, strict=True):
        np.testing.assert_allclose(ours * np.sign(ours @ theirs), theirs, atol=1e-4)
    again = space.principal_components(rows.flip(0))
    torch.testing.assert_close(again.points.flip(0), found.points, atol=1e-4, rtol=1e-4)

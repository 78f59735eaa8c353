"""Who of a set answers, at the edges and by definition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from coe.optimizer.shortlist import gate, top_k, top_p

# a share of the smallest number of all is that number again
some = st.sampled_from([0.0, 1.0]) | st.floats(0, 10, allow_subnormal=False)
weights = arrays(float, st.integers(0, 6), elements=some)


def test_the_heaviest_come_first_and_equals_in_order():
    assert top_k(np.array([0.2, 0.5, 0.2, 0.1]), 3).tolist() == [1, 0, 2]


def test_no_more_than_there_are_and_none_without_weight():
    assert top_k(np.array([0.0, 1.0]), 5).tolist() == [1]


@pytest.mark.parametrize(
    ("p", "expected"), [(0, [1]), (0.49, [1]), (0.5, [1, 0]), (0.75, [1, 0, 2]), (1, [1, 0, 2])]
)
def test_the_fewest_that_make_up_more_than_p(p, expected):
    assert top_p(np.array([0.25, 0.5, 0.25]), p).tolist() == expected


@given(weights, st.floats(0, 0.999))
def test_top_p_is_the_smallest_prefix_of_enough_mass(found, p):
    chosen = top_p(found, p)
    order = top_k(found, max(found.size, 1))
    assert chosen.tolist() == order[: chosen.size].tolist()
    if found.sum() > 0:
        assert found[chosen].sum() > p * found.sum() * (1 - 1e-9)
        assert found[chosen[:-1]].sum() <= p * found.sum() * (1 + 1e-9)
    else:
        assert chosen.size == 0


@given(arrays(float, st.integers(1, 6), elements=st.sampled_from([0.0, 0.5, 1.0])))
def test_a_gate_is_a_distribution_that_follows_quality(quality):
    found = gate(quality)
    assert found.sum() == pytest.approx(1)
    order = np.argsort(quality, kind="stable")
    assert np.all(np.diff(found[order]) >= 0)


def test_a_gate_is_the_softmax_of_logits():
    quality = np.array([0.2, 0.5, 0.9])
    odds = quality / (1 - quality)
    np.testing.assert_allclose(gate(quality), odds / odds.sum())

"""Paired bootstrap: one draw of prompts for all columns."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coe.routers.bootstrap import interval, resampled_means


def means_of(values, n_resamples=400, seed=0):
    return resampled_means(np.asarray(values, float), n_resamples, np.random.default_rng(seed))


@pytest.fixture
def marks():
    """(60, 1) right or wrong, two thirds right."""
    return np.resize([1.0, 1.0, 0.0], (60, 1))


@pytest.mark.parametrize("n_resamples", [1, 199, 200, 201, 450])
def test_there_are_as_many_resamples_as_asked_for(marks, n_resamples):
    found = means_of(np.hstack([marks, 1 - marks]), n_resamples)
    assert found.shape == (n_resamples, 2)
    # each resample draws as many prompts as there are
    np.testing.assert_allclose(found.sum(axis=1), 1.0)


def test_the_seed_decides_the_draws(marks):
    np.testing.assert_array_equal(means_of(marks, seed=3), means_of(marks, seed=3))
    assert (means_of(marks, seed=3) != means_of(marks, seed=4)).any()


def test_identical_columns_never_differ(marks):
    found = means_of(np.repeat(marks, 17, axis=1))
    np.testing.assert_array_equal(interval(found - found[:, [-1]]), np.zeros((17, 2)))


def test_the_difference_of_columns_is_surer_than_unpaired_draws_would_be(marks):
    worse = marks.copy()
    worse[:3] = 0.0
    found = means_of(np.hstack([marks, worse]))
    (paired,) = interval(found[:, [0]] - found[:, [1]])
    (unpaired,) = interval(found[:, [0]] - means_of(worse, seed=1))
    assert np.ptp(paired) < np.ptp(unpaired)
    # nowhere is the second better, so it is in no resample either
    assert paired[0] >= 0


def test_the_interval_of_plain_data_holds_the_mean_and_shrinks_with_more_prompts(marks):
    ((low, high),) = interval(means_of(marks))
    assert low < marks.mean() < high
    assert np.ptp(interval(means_of(np.tile(marks, (25, 1))))) < (high - low) / 3


@pytest.mark.parametrize("values", [[[0.25]], [[0.5]] * 8])
def test_where_nothing_varies_the_interval_is_a_point(values):
    np.testing.assert_array_equal(interval(means_of(values)), [[values[0][0]] * 2])


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=12))
def test_resampled_means_stay_within_the_data(column):
    found = means_of(np.array(column)[:, None], n_resamples=20)
    assert found.min() >= min(column) - 1e-12
    assert found.max() <= max(column) + 1e-12


def test_the_interval_holds_the_central_95_percent():
    means = np.arange(2001.0)[:, None]
    ((low, high),) = interval(np.hstack([means, -means]))[:1]
    inside = ((means >= low) & (means <= high)).mean()
    assert inside == pytest.approx(0.95, abs=0.002)
    assert low - means.min() == pytest.approx(means.max() - high)

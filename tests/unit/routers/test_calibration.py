"""Whether an expected score of 0.7 comes out as 0.7."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from coe.routers.calibration import reliability

NAN = np.nan
shares = arrays(np.float64, (5, 3), elements=st.floats(0, 1))
scores = arrays(np.float64, (5, 3), elements=st.just(NAN) | st.floats(0, 1))


def test_forecasts_that_come_true_have_no_error():
    quality = np.linspace(0, 1, 41)
    assert reliability(quality, quality).error == 0.0
    # true on average is enough: of prompts expected to score 0.25 every fourth scores 1
    assert reliability(np.full(8, 0.25), np.tile([1.0, 0.0, 0.0, 0.0], 2)).error == 0.0


@pytest.mark.parametrize(("forecast", "scored"), [(0.7, 0.4), (0.2, 1.0), (1.0, 0.0), (0.5, 0.5)])
def test_a_constant_forecast_errs_by_its_mean_gap(forecast, scored):
    observed = np.tile([scored, scored - 0.1 * (0 < scored < 1), scored], 4)
    found = reliability(np.full(12, forecast), observed)
    assert found.error == pytest.approx(abs(forecast - observed.mean()))
    assert found.n.sum() == found.n.max() == 12


def test_bins_hold_means_of_what_was_expected_and_observed():
    found = reliability(np.array([0.1, 0.2, 0.9, 1.0]), np.array([0.0, 1.0, 1.0, 1.0]), n_bins=2)
    np.testing.assert_array_equal(found.n, [2, 2])
    np.testing.assert_allclose(found.expected, [0.15, 0.95])
    np.testing.assert_allclose(found.observed, [0.5, 1.0])
    # gaps of 0.35 and 0.05
    assert found.error == pytest.approx(0.2)


def test_errors_of_either_sign_do_not_cancel_between_bins():
    assert reliability(np.array([0.0, 1.0]), np.array([0.5, 0.5])).error == 0.5


def test_unknown_scores_are_left_out():
    quality, observed = np.array([[0.5, 0.9], [0.5, 0.1]]), np.array([[0.5, NAN], [0.5, NAN]])
    found = reliability(quality, observed)
    assert (found.error, found.n.sum()) == (0.0, 2)


@pytest.mark.parametrize("scores", [np.empty((0, 3)), np.full((4, 3), NAN)])
def test_without_a_known_score_there_is_no_error(scores):
    found = reliability(np.full(scores.shape, 0.5), scores)
    assert found.error == 0.0
    assert found.n.tolist() == [0] * 10
    assert np.isnan(found.expected).all()
    assert np.isnan(found.observed).all()


@given(shares, scores, st.integers(1, 12))
def test_the_error_is_a_share_that_neither_order_nor_shape_changes(quality, scores, n_bins):
    found = reliability(quality, scores, n_bins)
    assert 0.0 <= found.error <= 1.0
    assert found.n.shape == found.expected.shape == found.observed.shape == (n_bins,)
    assert found.n.sum() == np.sum(~np.isnan(scores))
    turned = reliability(quality.T[::-1].ravel(), scores.T[::-1].ravel(), n_bins)
    np.testing.assert_array_equal(turned.n, found.n)
    assert turned.error == pytest.approx(found.error)


@given(shares, scores)
def test_no_binning_shows_less_than_the_mean_gap(quality, scores):
    known = ~np.isnan(scores)
    if known.any():
        gap = abs(quality[known].mean() - scores[known].mean())
        assert reliability(quality, scores).error >= gap - 1e-9

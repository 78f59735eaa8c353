"""Ridge regression with held-out predictions, against scikit-learn's, refitted for every fold."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from coe.routers.ridge import FoldedRidge

N_FOLDS = 4


@pytest.fixture(scope="module")
def data():
    """Embeddings, two targets of which some are unknown, and folds."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(80, 6)).astype(np.float32)
    Y = X[:, :2] @ rng.normal(size=(2, 2)) + 0.3 + 0.1 * rng.normal(size=(80, 2))
    Y[rng.random(Y.shape) < 0.2] = np.nan
    return X, Y, rng.integers(N_FOLDS, size=80)


def slow_fit(X, Y, penalty):
    """Coefficients (n_targets, dim + 1) by scikit-learn, the last of a constant 1."""
    rows = np.hstack([X, np.ones((len(X), 1))]).astype(np.float64)
    return Ridge(alpha=penalty, fit_intercept=False).fit(rows, np.nan_to_num(Y)).coef_


def predict(coef, X):
    return X @ coef[:, :-1].T + coef[:, -1]


@pytest.mark.parametrize("penalty", [1.0, 30.0, 1000.0])
def test_the_fit_is_that_of_a_ridge_regression(data, penalty):
    X, Y, fold = data
    found = FoldedRidge.of(X, fold).fit(Y, penalty)
    assert found.shape == (2, 7)
    np.testing.assert_allclose(found, slow_fit(X, Y, penalty), atol=1e-4)


@pytest.mark.parametrize("penalty", [1.0, 30.0, 1000.0])
def test_held_out_is_what_a_fit_without_the_fold_predicts(data, penalty):
    X, Y, fold = data
    found = FoldedRidge.of(X, fold).held_out(Y, penalty)
    for k in range(N_FOLDS):
        mine = fold == k
        coef = slow_fit(X[~mine], Y[~mine], penalty)
        np.testing.assert_allclose(found[mine], predict(coef, X[mine]), atol=1e-4)


def test_no_prompt_learns_from_its_own_fold(data):
    X, Y, fold = data
    ridge, other = FoldedRidge.of(X, fold), np.where((fold == 1)[:, None], 100.0, Y)
    mine = fold == 1
    before, after = ridge.held_out(Y, 10.0), ridge.held_out(other, 10.0)
    np.testing.assert_allclose(after[mine], before[mine], atol=1e-4)
    assert not np.allclose(after[~mine], before[~mine], atol=1.0)


def test_unknown_targets_count_as_0(data):
    X, Y, fold = data
    ridge, filled = FoldedRidge.of(X, fold), np.nan_to_num(Y)
    np.testing.assert_array_equal(ridge.fit(Y, 10.0), ridge.fit(filled, 10.0))
    np.testing.assert_array_equal(ridge.held_out(Y, 10.0), ridge.held_out(filled, 10.0))


def test_axes_are_orthonormal_and_lead(data):
    X, _, fold = data
    axes, spectrum = FoldedRidge.of(X, fold).axes(4)
    assert axes.shape == (4, 7)
    np.testing.assert_allclose(axes @ axes.T, np.eye(4), atol=1e-5)
    assert np.all(np.diff(spectrum) <= 0)
    rows = np.hstack([X, np.ones((len(X), 1))]).astype(np.float64)
    np.testing.assert_allclose(spectrum, ((rows @ axes.T) ** 2).sum(axis=0), rtol=1e-4)
    np.testing.assert_allclose(spectrum, np.linalg.svd(rows)[1][:4] ** 2, rtol=1e-4)


def test_an_axis_has_one_sign(data):
    X, _, fold = data
    axes, _ = FoldedRidge.of(X, fold).axes(7)
    largest = np.take_along_axis(axes, np.abs(axes).argmax(axis=1)[:, None], axis=1)
    assert np.all(largest > 0)


def test_there_are_no_more_axes_than_features_and_none_explains_less_than_nothing():
    # two distinct prompts: all but two eigenvalues are 0, or less by rounding
    X = np.repeat(np.eye(5, dtype=np.float32)[:2] / 3, 10, axis=0)
    axes, spectrum = FoldedRidge.of(X, np.arange(20) % 2).axes(64)
    assert (axes.shape, spectrum.shape) == ((6, 6), (6,))
    assert np.all(spectrum >= 0)
    np.testing.assert_allclose(spectrum[2:], 0.0, atol=1e-5)


def test_an_empty_fold_and_a_fold_of_everything_are_folds():
    X, Y = np.eye(3, dtype=np.float32), np.ones((3, 1))
    for fold in (np.array([2, 2, 0]), np.array([3, 3, 3])):
        ridge = FoldedRidge.of(X, fold)
        assert np.isfinite(ridge.fit(Y, 1.0)).all()
        found = ridge.held_out(Y, 1.0)
        assert np.isfinite(found).all()
    # nothing to learn from: nothing is expected
    np.testing.assert_allclose(found, 0.0, atol=1e-6)


def test_equal_targets_are_predicted_alike_and_a_heavy_penalty_predicts_nothing(data):
    X, Y, fold = data
    ridge = FoldedRidge.of(X, fold)
    twice = ridge.held_out(np.repeat(Y[:, :1], 2, axis=1), 10.0)
    np.testing.assert_allclose(twice[:, 0], twice[:, 1], atol=1e-6)
    np.testing.assert_allclose(ridge.held_out(Y, 1e9), 0.0, atol=1e-4)

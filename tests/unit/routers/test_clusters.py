"""Categories that need no labels: clusters, and the gates over them."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from coe.kernels.gating import softmax
from coe.routers.clusters import ClusterRouter, LeastSquaresRouter

both = pytest.mark.parametrize("make", [ClusterRouter, LeastSquaresRouter])


def clouds(n_clusters=4, n_each=15, dim=6, seed=0):
    """Prompts in so many clouds, and the cloud of each."""
    rng = np.random.default_rng(seed)
    codes = rng.permutation(np.repeat(np.arange(n_clusters), n_each))
    return np.eye(dim)[codes] + 0.1 * rng.normal(size=(codes.size, dim)), codes


@both
def test_clouds_are_found_and_named_by_number(make):
    X, codes = clouds()
    router = make(4).fit(X)
    for labels in (router.labels_, router.predict(X)):
        assert len(set(zip(labels.tolist(), codes.tolist(), strict=True))) == 4
    assert router.classes_.tolist() == [0, 1, 2, 3]
    assert router.head().classes_.tolist() == [f"cluster-{k:03d}" for k in range(4)]


@both
def test_names_are_no_help(make):
    X, codes = clouds()
    one, other = make(4).fit(X), make(4).fit(X, codes)
    np.testing.assert_array_equal(one.coef_, other.coef_)


@both
@pytest.mark.parametrize("n_distinct", [1, 2, 3])
def test_there_are_never_more_clusters_than_distinct_prompts(make, n_distinct):
    X = np.repeat(np.eye(4)[:n_distinct], 7, axis=0)
    router = make(5).fit(X)
    assert router.classes_.size == n_distinct
    np.testing.assert_array_equal(router.predict(X), router.labels_)
    np.testing.assert_allclose(router.predict_proba(X).sum(axis=1), 1.0)


@both
@pytest.mark.parametrize(
    "X",
    [
        [[1.0, 0.0], [1.0, -0.0], [0.0, 1.0]],
        [[1.0, 0.0], [1.0 + 1e-9, 0.0], [0.0, 1.0]],
        np.array([[1.0, 0.0], [1.0 + 1.2e-7, 0.0], [0.0, 1.0]], dtype=np.float32),
    ],
    ids=["signed zero", "double", "single"],
)
def test_prompts_that_differ_by_rounding_leave_no_cluster_empty(make, X):
    router = make(3).fit(X)
    assert set(router.labels_.tolist()) == set(router.classes_.tolist())
    assert router.labels_[0] != router.labels_[2]
    np.testing.assert_array_equal(router.predict(X)[1:], router.labels_[1:])


@both
def test_only_the_leading_features_make_clusters(make):
    X, _ = clouds(dim=6)
    noise = 100 * np.random.default_rng(3).normal(size=(len(X), 4))
    plain, joint = make(4).fit(X), make(4, distance_features=6).fit(np.hstack([X, noise]))
    np.testing.assert_array_equal(plain.labels_, joint.labels_)
    np.testing.assert_array_equal(plain.points_, joint.points_)


def test_the_likeliest_cluster_is_that_of_the_nearest_centre():
    X, _ = clouds()
    router = ClusterRouter(4, distance_features=5).fit(X)
    centres = np.array([X[router.labels_ == k, :5].mean(axis=0) for k in range(4)])
    probes = np.random.default_rng(1).normal(size=(50, 6))
    squares = ((probes[:, None, :5] - centres) ** 2).sum(axis=2)
    np.testing.assert_array_equal(router.predict(probes), squares.argmin(axis=1))
    np.testing.assert_allclose(
        router.predict_proba(probes), softmax(-router.sharpness * squares), atol=1e-9
    )
    np.testing.assert_array_equal(router.predict(X), router.labels_)


def test_sharper_is_surer():
    X, _ = clouds()
    soft, sharp = (ClusterRouter(4, sharpness=s).fit(X).assess(X).entropy for s in (1.0, 50.0))
    assert np.all(sharp < soft)


def test_the_least_squares_gate_is_a_ridge_regression_of_the_cluster():
    X, _ = clouds()
    router = LeastSquaresRouter(4, distance_features=3).fit(X)
    inputs = np.hstack([X, np.ones((len(X), 1))])
    slow = Ridge(alpha=1.0, fit_intercept=False).fit(inputs, np.eye(4)[router.labels_])
    np.testing.assert_allclose(router.coef_, router.sharpness * slow.coef_[:, :-1], atol=1e-9)
    np.testing.assert_allclose(router.intercept_, router.sharpness * slow.coef_[:, -1], atol=1e-9)


def test_the_least_squares_gate_sees_features_that_the_clusters_were_not_formed_on():
    X, codes = clouds(2, dim=2)
    telling = np.where(codes == codes[0], 1.0, -1.0)[:, None]
    joint = np.hstack([X, telling])
    # halfway between the clouds: only the third feature tells
    probes = np.array([[0.5, 0.5, 1.0], [0.5, 0.5, -1.0]])
    nearest, gated = (
        make(2, distance_features=2).fit(joint) for make in (ClusterRouter, LeastSquaresRouter)
    )
    found = nearest.predict_proba(probes)
    np.testing.assert_array_equal(found[0], found[1])
    first, other = gated.predict(probes)
    assert first == gated.labels_[0] != other


@both
def test_another_seed_may_find_others_and_the_same_seed_may_not(make):
    X = np.random.default_rng(0).normal(size=(60, 4))
    one, again = make(6, random_state=1).fit(X), make(6, random_state=1).fit(X)
    np.testing.assert_array_equal(one.labels_, again.labels_)
    assert any(
        not np.array_equal(one.labels_, make(6, random_state=s).fit(X).labels_) for s in range(5)
    )

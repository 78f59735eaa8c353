"""The category router: a scikit-learn classifier that knows when it does not know."""

import math

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError

from coe.routers.category import LogisticRouter

E1, E2, E3 = np.eye(3)


def fitted(**params):
    """A router between "code" along the first axis and "maths" along the second."""
    X = np.repeat([E1, E2], 5, axis=0)
    return LogisticRouter(C=1000.0, **params).fit(X, ["code"] * 5 + ["maths"] * 5)


def test_the_likeliest_category_is_the_nearest_direction():
    router = fitted()
    assert router.classes_.tolist() == ["code", "maths"]
    assert router.predict([E1, E2, 2 * E2 + E1]).tolist() == ["code", "maths", "maths"]


@pytest.mark.parametrize("n_classes", [1, 2, 3])
def test_arrays_have_a_row_for_each_category(n_classes):
    names = ["c", "a", "b"][:n_classes]
    router = LogisticRouter().fit(np.eye(3)[:n_classes], names)
    assert router.classes_.tolist() == sorted(names)
    assert router.coef_.shape == (n_classes, 3)
    assert router.intercept_.shape == (n_classes,)
    assert router.points_.shape == (n_classes, 3)
    probabilities = router.predict_proba(np.eye(3))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0)


def test_a_single_category_is_certain_everywhere():
    router = LogisticRouter().fit([E1, E1], ["code", "code"])
    found = router.assess([E1, -7 * E2, np.zeros(3)])
    np.testing.assert_array_equal(found.probabilities, np.ones((3, 1)))
    np.testing.assert_array_equal(found.entropy, np.zeros(3))
    assert router.predict([E2]).tolist() == ["code"]


def test_without_thresholds_nothing_is_uncertain():
    assert not fitted().assess([E1, E1 + E2, -E1, np.zeros(3)]).uncertain.any()


def test_probabilities_that_are_too_even_are_uncertain():
    found = fitted(entropy_threshold=0.5).assess([E1, E1 + E2, E2])
    assert found.uncertain.tolist() == [False, True, False]
    assert found.entropy[1] == pytest.approx(math.log(2), abs=1e-3)


def test_a_prompt_far_from_all_training_prompts_is_uncertain_however_sure_the_regression():
    far = 10 * E1 + 100 * E3
    found = fitted(entropy_threshold=0.5, distance_threshold=0.5).assess([E1, far])
    assert found.entropy[1] < 0.5
    assert found.uncertain.tolist() == [False, True]


def test_a_threshold_that_is_just_reached_is_not_exceeded():
    probe = fitted().assess([E1 + E2])
    at_the_edge = {
        "entropy_threshold": float(probe.entropy[0]),
        "distance_threshold": float(probe.distance[0]),
    }
    assert not fitted(**at_the_edge).assess([E1 + E2]).uncertain[0]


def test_distance_is_the_mean_to_the_nearest_neighbours():
    # five training prompts at distance 0, five at distance 1
    for n_neighbors, mean in [(1, 0.0), (5, 0.0), (10, 0.5), (99, 0.5)]:
        assert fitted(n_neighbors=n_neighbors).assess([E1]).distance[0] == mean


def test_distance_is_blind_to_length_and_reaches_two():
    found = fitted().assess([E1, 1000 * E1, E1 / 1000, -E1 - E2])
    np.testing.assert_allclose(found.distance[:3], 0.0, atol=1e-6)
    opposite = LogisticRouter().fit([E1, E1], ["code", "code"]).assess([-E1])
    assert opposite.distance[0] == 2.0


def test_distance_can_be_taken_on_the_leading_features_alone():
    router = fitted(distance_features=2)
    assert router.points_.shape == (10, 2)
    # the third feature is what sets this prompt apart
    assert router.assess([E1 + 9 * E3]).distance[0] == 0.0
    assert fitted().assess([E1 + 9 * E3]).distance[0] > 0.8


def test_a_zero_row_is_at_distance_one():
    router = fitted(distance_threshold=0.9)
    found = router.assess(np.zeros((1, 3)))
    assert (found.distance[0], bool(found.uncertain[0])) == (1.0, True)


def test_zero_training_rows_are_at_distance_one():
    router = LogisticRouter(n_neighbors=1).fit(np.zeros((2, 3)), ["code", "code"])
    np.testing.assert_array_equal(router.assess([E1, np.zeros(3)]).distance, [1.0, 1.0])


def test_a_row_is_assessed_as_if_alone():
    X = np.random.default_rng(0).normal(size=(20, 3))
    router = fitted(entropy_threshold=0.3)
    together = router.assess(X)
    for k, row in enumerate(X):
        alone = router.assess([row])
        np.testing.assert_allclose(alone.probabilities[0], together.probabilities[k])
        assert alone.distance[0] == pytest.approx(together.distance[k], abs=1e-6)


@pytest.mark.parametrize(
    ("X", "y"),
    [
        (np.empty((0, 3)), []),
        (np.eye(3), ["a", "b"]),
        ([[0.0, np.nan]], ["a"]),
        ([[0.0, np.inf]], ["a"]),
        ([1.0, 2.0], ["a", "b"]),
    ],
)
def test_training_data_that_make_no_sense_are_refused(X, y):
    with pytest.raises(ValueError, match=r"."):
        LogisticRouter().fit(X, y)


def test_a_router_that_is_not_fitted_says_so():
    with pytest.raises(NotFittedError):
        LogisticRouter().assess([E1])


def test_vectors_of_another_length_are_refused():
    with pytest.raises(ValueError, match="features"):
        fitted().assess([[1.0, 0.0]])

"""What serving keeps of a category router: the same answers from arrays alone."""

import numpy as np
import pytest

from coe.routers.category import LogisticRouter
from coe.routers.head import CategoryHead, unit_rows


@pytest.mark.parametrize("n_classes", [1, 2, 3])
def test_a_head_says_what_its_router_says(n_classes):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(30, 4)), rng.choice(["a", "b", "c"][:n_classes], size=30)
    router = LogisticRouter(
        entropy_threshold=0.5, distance_threshold=0.3, n_neighbors=3, distance_features=2
    ).fit(X, y)
    probe = np.vstack([rng.normal(size=(10, 4)), np.zeros((1, 4))])
    one, other = router.assess(probe), router.head().assess(probe)
    for name in ("probabilities", "entropy", "distance", "uncertain"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    np.testing.assert_array_equal(router.predict(probe), router.head().predict(probe))
    np.testing.assert_array_equal(router.predict_proba(probe), one.probabilities)


@pytest.mark.parametrize(
    "shapes",
    [
        {"coef_": (2,)},
        {"coef_": (3, 4)},
        {"intercept_": (3,)},
        {"intercept_": (2, 1)},
        {"points_": (5,)},
        {"points_": (5, 6)},
        {"points_": (0, 4)},
    ],
)
def test_arrays_that_do_not_fit_together_are_refused(shapes):
    right = {"classes_": (2,), "coef_": (2, 4), "intercept_": (2,), "points_": (5, 4)}
    with pytest.raises(ValueError, match=r"coef_|points_"):
        CategoryHead(**{name: np.zeros(shape) for name, shape in (right | shapes).items()})


@pytest.mark.parametrize("shape", [(4,), (6,), (5, 1), (0,)])
def test_votes_of_other_points_are_refused(shape):
    arrays = [np.array(["a", "b"]), np.zeros((2, 4)), np.zeros(2), np.zeros((5, 4))]
    with pytest.raises(ValueError, match="codes_ must hold the category of every one of points_"):
        CategoryHead(*arrays, codes_=np.zeros(shape, dtype=np.int64))


def voting(n_neighbors):
    """Two points of "a" along the first axis, three of "b" along the second."""
    points = np.repeat(np.eye(3, dtype=np.float32)[:2], (2, 3), axis=0)
    return CategoryHead(
        classes_=np.array(["a", "b", "never"]),
        coef_=np.full((3, 3), 9.0),
        intercept_=np.full(3, 9.0),
        points_=points,
        n_neighbors=n_neighbors,
        codes_=np.array([0, 0, 1, 1, 1]),
    )


def test_with_votes_probabilities_are_shares_of_the_neighbours_whatever_the_logits():
    for n_neighbors, near_a, near_b in [
        (1, [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]),
        (2, [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]),
        (99, [0.4, 0.6, 0.0], [0.4, 0.6, 0.0]),
    ]:
        found = voting(n_neighbors).predict_proba([[1.0, 0.1, 0.0], [0.1, 1.0, 0.0]])
        np.testing.assert_allclose(found, [near_a, near_b])


def test_votes_are_assessed_like_any_probabilities():
    found = voting(5).assess(np.vstack([np.eye(3), np.zeros((1, 3))]))
    np.testing.assert_array_equal(found.probabilities, voting(5).predict_proba(np.eye(4, 3)))
    np.testing.assert_allclose(found.entropy, -(0.4 * np.log(0.4) + 0.6 * np.log(0.6)))
    np.testing.assert_allclose(found.distance, [0.6, 0.4, 1.0, 1.0])
    assert voting(3).predict(np.eye(3)[:2]).tolist() == ["a", "b"]


def test_unit_rows_have_unit_length_or_none():
    found = unit_rows(np.array([[3.0, 4.0], [0.0, 0.0], [1e-100, 0.0]]))
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), [1.0, 0.0, 1.0])
    assert found.dtype == np.float32

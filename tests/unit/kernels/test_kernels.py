"""Kernels by hand, at the edges that they document."""

import math

import numpy as np
import pytest

from coe.kernels import gating, knn, reference

E1, E2, ZERO = [1.0, 0.0], [0.0, 1.0], [0.0, 0.0]

both_softmax = pytest.mark.parametrize("softmax", [gating.softmax, reference.softmax])
both_entropy = pytest.mark.parametrize("entropy", [gating.entropy, reference.entropy])


def mean_distance(nearest):
    """Mean distance to the neighbours that a kernel finds."""
    return lambda queries, points, k: nearest(queries, points, k)[1].mean(axis=1)


both_distance = pytest.mark.parametrize(
    "distance", [mean_distance(knn.nearest), mean_distance(reference.nearest)]
)


def rows(*vectors, dtype=np.float64):
    return np.array(vectors, dtype=dtype).reshape(len(vectors), -1 if vectors else 2)


@both_softmax
def test_softmax_is_proportional_to_the_exponential(softmax):
    logits = np.log([[1.0, 3.0], [5.0, 5.0]])
    np.testing.assert_allclose(softmax(logits), [[0.25, 0.75], [0.5, 0.5]])


@both_softmax
def test_softmax_of_large_logits_is_stable(softmax):
    np.testing.assert_array_equal(
        softmax(rows([1e300, 1e300], [-1e300, 1e300])), [[0.5, 0.5], [0.0, 1.0]]
    )


@both_softmax
def test_softmax_gives_minus_infinity_no_probability(softmax):
    np.testing.assert_array_equal(
        softmax(rows([-np.inf, 7.0], [-np.inf, -1e308])), [[0.0, 1.0], [0.0, 1.0]]
    )


@both_softmax
def test_softmax_of_nothing_but_minus_infinity_is_no_distribution(softmax):
    with np.errstate(invalid="ignore"):
        assert np.isnan(softmax(rows([-np.inf, -np.inf]))).all()


@both_softmax
def test_softmax_of_one_class_is_one(softmax):
    np.testing.assert_array_equal(softmax(rows([-3.0], [1e9])), [[1.0], [1.0]])


@both_softmax
def test_softmax_of_no_rows_is_no_rows(softmax):
    assert softmax(np.empty((0, 3))).shape == (0, 3)


@both_entropy
def test_entropy_is_in_nats_between_none_and_that_of_the_uniform_distribution(entropy):
    found = entropy(rows([1.0, 0.0, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0], [0.25] * 4))
    np.testing.assert_allclose(found, [0.0, math.log(2), math.log(4)])


@both_entropy
def test_entropy_of_certainty_is_not_negative(entropy):
    assert not np.signbit(np.abs(entropy(rows([1.0, 0.0]))))[0]
    assert entropy(rows([1.0])) == 0.0


@both_entropy
def test_entropy_of_no_rows_is_no_rows(entropy):
    assert entropy(np.empty((0, 3))).shape == (0,)


@both_distance
@pytest.mark.parametrize(("k", "mean"), [(1, 0.0), (2, 0.5), (3, 1.0), (4, 1.0), (99, 1.0)])
def test_distance_is_the_mean_to_the_k_nearest_or_to_all_there_are(distance, k, mean):
    points = rows(E2, [-1.0, 0.0], E1, dtype=np.float32)
    assert distance(rows(E1, dtype=np.float32), points, k) == mean


@both_distance
def test_a_zero_vector_is_at_distance_one_from_everything(distance):
    points = rows(E1, E2, [-1.0, 0.0], ZERO, dtype=np.float32)
    for k in (1, 2, 4):
        np.testing.assert_array_equal(distance(rows(ZERO, dtype=np.float32), points, k), [1.0])
    np.testing.assert_array_equal(distance(points, rows(ZERO, dtype=np.float32), 1), [1.0] * 4)


@both_distance
def test_distance_of_no_queries_is_no_distance(distance):
    none = np.empty((0, 2), dtype=np.float32)
    assert distance(none, rows(E1, dtype=np.float32), 3).shape == (0,)


@pytest.mark.parametrize("nearest", [knn.nearest, reference.nearest])
def test_neighbours_are_the_points_at_those_distances(nearest):
    points = rows(E2, [-1.0, 0.0], E1, dtype=np.float32)
    indices, distances = nearest(rows(E1, dtype=np.float32), points, 2)
    found = dict(zip(indices[0].tolist(), distances[0].tolist(), strict=True))
    assert found == {2: 0.0, 0: 1.0}


def test_distance_stays_in_its_range_though_single_precision_does_not():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(200, 48)).astype(np.float32)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    near = knn.nearest(points, points, 1)[1]
    far = knn.nearest(points, -points[:1], 1)[1]
    assert near.min() >= 0.0
    assert far.max() <= 2.0


def test_kernels_leave_their_arguments_alone():
    logits = np.log(rows([0.25, 0.75]))
    points = rows(E2, E1, dtype=np.float32)
    for array in (logits, points):
        array.flags.writeable = False
    gating.entropy(gating.softmax(logits))
    knn.nearest(points, points, 1)

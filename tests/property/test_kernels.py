"""Every kernel equals its slow twin in `coe.kernels.reference`."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from coe.kernels import gating, knn, reference

matrix_shapes = array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=6)
# a small range brings ties, a large one overflow
logit = st.sampled_from([-np.inf, 0.0, 1.0]) | st.floats(-1e3, 1e3)


@st.composite
def logits(draw):
    """Rows of logits, each with at least one that is finite."""
    found = draw(arrays(np.float64, draw(matrix_shapes), elements=logit))
    found[np.all(np.isneginf(found), axis=1), 0] = draw(st.floats(-1e3, 1e3))
    return found


@st.composite
def unit_rows(draw, dim):
    """Rows of unit length or zero, among them equal ones."""
    grid = st.integers(-2, 2).map(float) | st.floats(-1, 1, width=32)
    found = draw(arrays(np.float64, (draw(st.integers(1, 8)), dim), elements=grid))
    norms = np.linalg.norm(found, axis=1, keepdims=True)
    return (found / np.where(norms > 1e-6, norms, np.inf)).astype(np.float32)


queries_and_points = st.integers(1, 5).flatmap(
    lambda dim: st.tuples(unit_rows(dim), unit_rows(dim))
)


@given(logits())
def test_softmax_equals_its_twin(rows):
    np.testing.assert_allclose(gating.softmax(rows), reference.softmax(rows), atol=1e-15)


@given(logits())
def test_softmax_rows_are_distributions_blind_to_a_shift(rows):
    found = gating.softmax(rows)
    assert np.all((found >= 0) & (found <= 1))
    np.testing.assert_allclose(found.sum(axis=1), 1.0)
    np.testing.assert_allclose(gating.softmax(rows + 64.0), found, atol=1e-12)


@given(logits())
def test_entropy_equals_its_twin_and_keeps_to_its_range(rows):
    probabilities = gating.softmax(rows)
    found = gating.entropy(probabilities)
    np.testing.assert_allclose(found, reference.entropy(probabilities), atol=1e-12)
    assert np.all(found >= 0)
    assert np.all(found <= np.log(rows.shape[1]) + 1e-12)


@given(queries_and_points, st.integers(1, 10))
def test_nearest_equals_its_twin_and_keeps_to_its_range(both, k):
    queries, points = both
    indices, found = knn.nearest(queries, points, k)
    _, twin = reference.nearest(queries, points, k)
    np.testing.assert_allclose(np.sort(found, axis=1), twin, atol=1e-5)
    true = np.array([1.0 - points[i] @ q for i, q in zip(indices, queries, strict=True)])
    np.testing.assert_allclose(found, true.reshape(found.shape), atol=1e-5)
    assert np.all((found >= 0) & (found <= 2))


@given(queries_and_points, st.integers(1, 10), st.randoms(use_true_random=False))
def test_the_order_of_the_points_does_not_matter(both, k, random):
    queries, points = both
    order = random.sample(range(len(points)), len(points))
    np.testing.assert_allclose(
        np.sort(knn.nearest(queries, points[order], k)[1], axis=1),
        np.sort(knn.nearest(queries, points, k)[1], axis=1),
        atol=1e-6,
    )

"""Least squares with coefficients that are not negative."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from coe.kernels.nonnegative import nonnegative_least_squares

numbers = st.integers(-20, 20).map(float)
problems = st.integers(1, 4).flatmap(
    lambda n_columns: st.integers(1, 8).flatmap(
        lambda n_rows: st.tuples(
            arrays(float, (n_rows, n_columns), elements=numbers),
            arrays(float, n_rows, elements=numbers),
        )
    )
)


@given(problems)
def test_no_direction_that_keeps_the_bound_is_an_improvement(problem):
    """The Karush-Kuhn-Tucker conditions: necessary and, the problem being convex, sufficient."""
    design, target = problem
    x = nonnegative_least_squares(design, target)
    assert np.all(x >= 0)
    slope = design.T @ (design @ x - target)
    tolerance = 1e-7 * (1.0 + np.abs(design).sum() * np.abs(target).sum())
    assert np.all(slope >= -tolerance)
    assert np.all(np.abs(slope[x > 0]) <= tolerance)


def test_coefficients_that_are_not_negative_are_found_again():
    rng = np.random.default_rng(0)
    design, x = rng.normal(size=(30, 3)), np.array([1e-6, 0.0, 40.0])
    design[:, 0] *= 1e6
    assert nonnegative_least_squares(design, design @ x) == pytest.approx(x, abs=1e-9)


def test_columns_of_zeroes_and_targets_below_zero_get_nothing():
    design = np.array([[0.0, 1.0], [0.0, 2.0]])
    assert nonnegative_least_squares(design, np.array([2.0, 4.0])).tolist() == [
        0.0,
        pytest.approx(2.0),
    ]
    assert nonnegative_least_squares(design, np.array([-2.0, -4.0])).tolist() == [0.0, 0.0]

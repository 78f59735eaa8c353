"""The premise by its definition, set by set."""

import itertools

import numpy as np
import pytest

from coe.kernels.staircase import best_of_subsets, closure, sums_of_subsets
from coe.optimizer.premise import examine


def slow(values):
    """Shares of falling steps and of rising gains, as the definitions say."""
    n = values.size.bit_length() - 1
    steps, triples = [], []
    for mask in range(1, values.size):
        out = [1 << i for i in range(n) if not mask >> i & 1]
        steps += [values[mask | i] < values[mask] - 1e-9 for i in out]
        triples += [
            values[mask | i | j] - values[mask | j] > values[mask | i] - values[mask] + 1e-9
            for i, j in itertools.combinations(out, 2)
        ]
    return np.mean(steps or [0]), np.mean(triples or [0])


@pytest.mark.parametrize("n_experts", [1, 2, 3, 5])
@pytest.mark.parametrize("seed", range(4))
def test_shares_are_those_of_the_definitions(n_experts, seed):
    values = np.random.default_rng(seed).normal(size=1 << n_experts)
    values[0] = -np.inf
    found = examine(values)
    falls, rises = slow(values)
    closed = closure(values)[0]
    assert found.falls == pytest.approx(falls)
    assert found.rises == pytest.approx(rises)
    assert found.rises_closed == pytest.approx(slow(closed)[1])
    assert slow(closed)[0] == 0


def test_facility_location_keeps_both_properties():
    found = examine(best_of_subsets(np.random.default_rng(0).random((9, 6)), np.ones(9)))
    assert (found.falls, found.falls_most, found.rises) == (0, 0, 0)
    assert not np.signbit(found.falls_most)


def test_a_sum_keeps_both_properties_and_no_member_is_superfluous():
    values = sums_of_subsets(np.array([1.0, 2.0, 3.0]))
    values[0] = -np.inf
    found = examine(values)
    assert (found.falls, found.rises, found.superfluous) == (0, 0, 0)


def test_the_worst_fall_is_stated():
    found = examine(np.array([-np.inf, 0.9, 0.4, 0.5]))
    assert found.falls == 0.5
    assert found.falls_most == pytest.approx(0.4)
    assert found.superfluous == pytest.approx(1 / 3)

"""Polyblock outer approximation: small cases by hand."""

from dataclasses import replace

import numpy as np
import pytest

from coe.optimizer.polyblock import polyblock
from coe.optimizer.problem import Problem, Prompts


def never():
    return False


def problem(quality, energy_j, **rest):
    quality = np.array(quality, dtype=float)
    energy = np.tile(np.array(energy_j, dtype=float), (len(quality), 1))
    shares = np.full(len(quality), 1 / len(quality))
    return Problem("best", shares, energy, 50 * energy, quality=quality, **rest)


def chosen(found):
    return np.flatnonzero(found.members[0]).tolist()


TRAP = problem([[0.5, 0.4, 0.9], [0.4, 0.5, 0.9]], [10, 10, 20], max_energy_j=20.0)
"""The two cheapest fit together; the third alone is better, and not among what their cut leaves
if only experts outside them are taken away."""


def test_children_without_each_expert_leave_the_optimum_in():
    found = polyblock(TRAP, never)
    assert chosen(found) == [2]
    assert found.upper == pytest.approx(0.9)


def test_a_vertex_that_fits_is_the_optimum_where_value_grows():
    found = polyblock(replace(TRAP, max_energy_j=40.0), never)
    assert (found.upper, found.nodes) == (0.9, 1)


def test_a_vertex_that_fits_is_cut_where_less_is_more():
    prompts = Prompts(np.zeros((1, 3)), np.array([[0.2, 0.9, 0.4]]), np.zeros(1, dtype=np.intp))
    figures = np.full((1, 3), 5.0)
    lone = Problem("mixture", np.ones(1), figures, 100 * figures, prompts=prompts)
    found = polyblock(lone, never)
    assert (chosen(found), found.upper) == ([1], pytest.approx(0.9))


def test_no_set_where_no_single_expert_fits():
    found = polyblock(replace(TRAP, max_energy_j=9.0), never)
    assert (found.members, found.upper, found.nodes) == (None, -np.inf, 3)


def test_without_time_the_first_vertex_bounds_all():
    found = polyblock(TRAP, lambda: True)
    assert found.nodes == 1
    assert found.upper >= 0.9


def test_sets_by_category_are_refused():
    with pytest.raises(ValueError, match="per_category"):
        polyblock(replace(TRAP, sets="per_category"), never)

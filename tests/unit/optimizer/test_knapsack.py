"""Knapsacks of labels, for one set and for sets by category, against all sets one by one."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coe.optimizer.additive import MOST_LABELS, additive
from coe.optimizer.enumeration import enumerate_sets
from coe.optimizer.knapsack import per_category
from coe.optimizer.map import MapProblem
from coe.optimizer.milp import solve_map
from coe.optimizer.problem import Memory, Problem
from coe.optimizer.reference import optimum

seeds = st.integers(0, 2**32 - 1)


def never():
    return False


def always():
    return True


def draw_additive(draw_problem, rng, n_experts=10, **fixed):
    """A problem of one ceiling on a sum: joules, dollars or memory."""
    name = str(rng.choice(["max_energy_j", "max_cost_usd", "memory"]))
    absent = dict.fromkeys({"max_energy_j", "max_cost_usd", "memory"} - {name})
    fields = absent | {"k": None} | fixed
    problem = draw_problem(rng, n_experts, int(rng.integers(1, 5)), "sum", **fields)
    if problem.memory is not None:
        whole = np.where(problem.memory.node == 0, problem.memory.expert_gb, 0.0)
        one = Memory(whole, np.zeros_like(problem.memory.node), problem.memory.node_gb[:1])
        problem = replace(problem, memory=one)
    return problem


def test_the_best_sum_is_that_of_enumeration(draw_problem, judge):
    rng = np.random.default_rng(1)
    n_infeasible = 0
    for _ in range(400):
        problem = draw_additive(draw_problem, rng, int(rng.integers(1, 11)))
        best = enumerate_sets(problem)
        value = None if best.members is None else best.upper
        n_infeasible += value is None
        assert judge.agrees(additive(problem, never), value, problem)
    assert 0 < n_infeasible < 200


@pytest.mark.parametrize("kind", ["plain", "same density", "correlated"])
def test_a_thousand_experts_are_filled_up_to_the_bound(kind, judge):
    rng = np.random.default_rng(2)
    energy_j = rng.uniform(1, 9, (3, 1000))
    quality = {
        "plain": rng.random(energy_j.shape),
        "same density": energy_j / 9,
        "correlated": 0.2 + energy_j / 18,
    }[kind]
    shares = np.array([0.5, 0.3, 0.2])
    limit = float(0.1 * (shares @ energy_j).sum())
    latency_ms = np.full_like(energy_j, 1000.0)
    problem = Problem("sum", shares, energy_j, latency_ms, quality=quality, max_energy_j=limit)
    n_asked = 0

    def soon():
        nonlocal n_asked
        n_asked += 1
        return n_asked > 40

    found = additive(problem, soon)
    value = judge.value(problem, found.members)
    assert judge.feasible(problem, found.members)
    # the judge adds up in another order
    below = value * (1 - 1e-12)
    assert below <= found.upper <= value * (1 + (1e-9 if kind == "plain" else 0.01))
    assert found.nodes <= 41 * MOST_LABELS


def test_what_does_not_add_up_is_refused(draw_problem):
    rng = np.random.default_rng(3)
    absent = dict.fromkeys(("k", "able", "memory", "max_latency_ms", "max_cost_usd"))
    problem = draw_problem(rng, 6, 2, "sum", max_energy_j=12.0, **absent)
    for change in ({"sets": "per_category"}, {"aggregation": "best"}, {"k": 2}):
        with pytest.raises(ValueError, match="one shared set"):
            additive(replace(problem, **change), never)
    with pytest.raises(ValueError, match="2 bind"):
        additive(replace(problem, max_cost_usd=0.01, cost_usd=problem.energy_j), never)


@settings(max_examples=40)
@given(seed=seeds)
def test_more_of_the_one_ceiling_is_never_worse(draw_problem, seed):
    rng = np.random.default_rng(seed)
    problem = draw_problem(rng, 9, 2, "sum", k=None, memory=None, max_cost_usd=None)
    limits = np.linspace(0.0, 1.1 * problem.energy_j.sum(), 9).tolist()
    values = [additive(replace(problem, max_energy_j=limit), never).upper for limit in limits]
    assert values[0] == -np.inf  # every expert takes some
    assert all(more >= less - 1e-12 for less, more in pairwise(values))


@pytest.mark.parametrize("aggregation", ["best", "sum", "mixture", "choose", "likelihood"])
def test_the_best_sets_by_category_are_those_of_the_slow_twin(aggregation, draw_problem, judge):
    rng = np.random.default_rng(4)
    n_infeasible = 0
    for _ in range(60):
        n_categories = int(rng.integers(1, 4))
        n_experts = int(rng.integers(1, 5 if n_categories < 3 else 4))
        problem = draw_problem(
            rng, n_experts, n_categories, aggregation, sets="per_category", memory=None
        )
        value, sets = optimum(problem)
        n_infeasible += sets is None
        assert judge.agrees(per_category(problem, never), None if sets is None else value, problem)
    assert n_infeasible < 40


def test_single_experts_by_category_make_the_map_of_the_program(draw_problem, judge):
    rng = np.random.default_rng(5)
    for _ in range(20):
        problem = draw_problem(
            rng, 6, 5, "best", sets="per_category", memory=None, able=None, overhead_ms=0.0, k=1
        )
        mapped = solve_map(
            MapProblem(
                value=problem.quality,
                shares=problem.shares,
                params_b=np.zeros(6),
                energy_j=problem.energy_j,
                cost_usd=problem.cost_usd,
                latency_ms=problem.latency_ms,
                max_energy_j=problem.max_energy_j,
                max_cost_usd=problem.max_cost_usd,
                max_latency_ms=problem.max_latency_ms,
            )
        )
        value = None if mapped.status == "infeasible" else mapped.value
        assert judge.agrees(per_category(problem, never), value, problem)


@settings(max_examples=40)
@given(seed=seeds)
def test_sets_by_category_do_not_depend_on_the_order_or_on_duplicates(draw_problem, judge, seed):
    rng = np.random.default_rng(seed)
    problem = draw_problem(rng, 5, 3, sets="per_category", memory=None, aggregation="best")
    found = per_category(problem, never)
    order = rng.permutation(5)
    assert per_category(problem.keep(order), never).upper == pytest.approx(found.upper, abs=1e-12)
    twice = problem.keep(np.repeat(order, 2))
    assert per_category(twice, never).upper == pytest.approx(found.upper, abs=1e-12)


@settings(max_examples=40)
@given(seed=seeds)
def test_more_of_any_ceiling_never_makes_sets_worse(draw_problem, seed):
    rng = np.random.default_rng(seed)
    problem = draw_problem(
        rng, 4, 3, sets="per_category", memory=None, max_energy_j=4.0, max_cost_usd=0.2
    )
    value = per_category(problem, never).upper
    for change in ({"max_energy_j": 6.0}, {"max_cost_usd": 0.4}, {"max_latency_ms": None}):
        assert per_category(replace(problem, **change), never).upper >= value - 1e-12


def test_nothing_fits_into_nothing(draw_problem):
    rng = np.random.default_rng(6)
    by_category = draw_problem(rng, 4, 3, "best", sets="per_category", memory=None, able=None)
    for problem in (by_category, replace(by_category, aggregation="sum", k=9)):
        assert per_category(replace(problem, max_energy_j=0.0), never).members is None
        free = replace(
            problem,
            max_energy_j=0.0,
            max_cost_usd=0.0,
            max_latency_ms=None,
            energy_j=np.zeros((3, 4)),
            cost_usd=None,
        )
        top = free.shares @ (
            free.quality.max(axis=1) if free.aggregation == "best" else free.quality.sum(axis=1)
        )
        assert per_category(free, never).upper == pytest.approx(top)


@settings(max_examples=30)
@given(seed=seeds)
def test_out_of_time_sets_by_category_are_feasible_and_bounded(draw_problem, judge, seed):
    rng = np.random.default_rng(seed)
    problem = draw_problem(
        rng, 7, 4, sets="per_category", memory=None, max_energy_j=9.0, max_cost_usd=0.6
    )
    best, early = per_category(problem, never), per_category(problem, always)
    assert early.upper >= best.upper - 1e-9
    if early.members is not None:
        assert judge.feasible(problem, early.members)
        assert judge.value(problem, early.members) <= best.upper + 1e-9


def test_what_labels_by_category_cannot_do_is_refused(draw_problem):
    rng = np.random.default_rng(7)
    with pytest.raises(ValueError, match="per_category"):
        per_category(draw_problem(rng, 3, 2, sets="shared"), never)
    tight = Memory(np.ones(3), np.zeros(3, dtype=int), np.array([2.0]))
    with pytest.raises(ValueError, match="memory"):
        per_category(
            draw_problem(
                rng, 3, 2, sets="per_category", memory=tight, max_latency_ms=None, able=None
            ),
            never,
        )
    with pytest.raises(ValueError, match="at most 16"):
        per_category(draw_problem(rng, 17, 2, "sum", sets="per_category", memory=None), never)
    many = draw_problem(rng, 300, 4, "best", sets="per_category", memory=None, max_energy_j=4.0)
    assert per_category(many, never).members is not None

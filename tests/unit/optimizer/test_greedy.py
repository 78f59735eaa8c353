"""Greedy sets: always feasible, never above the optimum, and a bound never below it."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coe.optimizer.enumeration import enumerate_sets
from coe.optimizer.greedy import greedy
from coe.optimizer.problem import Memory, Problem, Prompts
from coe.optimizer.reference import optimum

seeds = st.integers(0, 2**32 - 1)


def never():
    return False


def always():
    return True


def after(n_questions):
    """Time that runs out after so many questions."""
    left = iter(range(n_questions))
    return lambda: next(left, None) is None


def keeps_its_promise(found, best, judge, problem):
    """Whether the sets are feasible, and the optimum lies between their value and the bound."""
    if not judge.feasible(problem, found.members):
        return False
    value = judge.value(problem, found.members)
    return value <= best + 1e-9 and found.upper >= best - 1e-9 and found.upper >= value - 1e-12


@pytest.mark.parametrize("aggregation", ["best", "sum", "mixture", "choose", "likelihood"])
@pytest.mark.parametrize("expired", [never, always])
def test_a_shared_set_is_found_whenever_there_is_one(aggregation, expired, draw_problem, judge):
    rng = np.random.default_rng(1)
    met, n_feasible = 0, 0
    for _ in range(50):
        problem = draw_problem(rng, int(rng.integers(1, 11)), int(rng.integers(1, 5)), aggregation)
        best = enumerate_sets(problem)
        found = greedy(problem, expired)
        if best.members is None:
            assert found.members is None
            assert found.upper == -np.inf
            continue
        assert keeps_its_promise(found, best.upper, judge, problem)
        n_feasible += 1
        met += judge.value(problem, found.members) >= best.upper - 1e-9
    assert n_feasible > 20
    assert expired is always or met >= 0.85 * n_feasible


@pytest.mark.parametrize("aggregation", ["best", "sum", "mixture", "choose", "likelihood"])
def test_sets_by_category_are_feasible_and_bounded(aggregation, draw_problem, judge):
    rng = np.random.default_rng(2)
    met, n_found = 0, 0
    for _ in range(40):
        n_categories = int(rng.integers(1, 4))
        n_experts = int(rng.integers(1, 5 if n_categories < 3 else 4))
        problem = draw_problem(rng, n_experts, n_categories, aggregation, sets="per_category")
        value, sets = optimum(problem)
        found = greedy(problem, never)
        if found.members is None:
            assert found.upper >= value
            continue
        assert sets is not None
        assert keeps_its_promise(found, value, judge, problem)
        n_found += 1
        met += judge.value(problem, found.members) >= value - 1e-9
    assert n_found > 15
    assert met >= 0.85 * n_found


@pytest.mark.parametrize("ceiling", ["max_energy_j", "max_cost_usd", "memory"])
def test_one_ceiling_alone_never_hides_sets_by_category(ceiling, draw_problem):
    rng = np.random.default_rng(3)
    for _ in range(30):
        absent = dict.fromkeys({"max_energy_j", "max_cost_usd", "memory"} - {ceiling})
        problem = draw_problem(rng, 4, 2, "best", sets="per_category", **absent)
        assert (greedy(problem, never).members is None) == (optimum(problem)[1] is None)


@settings(max_examples=50)
@given(seed=seeds)
def test_more_time_never_makes_sets_worse(draw_problem, judge, seed):
    rng = np.random.default_rng(seed)
    problem = draw_problem(rng, 9, 3, sets=str(rng.choice(["shared", "per_category"])))
    values = []
    for expired in (always, after(2), after(5), after(20), never):
        found = greedy(problem, expired)
        values.append(-np.inf if found.members is None else judge.value(problem, found.members))
    assert all(later >= sooner - 1e-9 for sooner, later in pairwise(values))


@settings(max_examples=50)
@given(seed=seeds)
def test_the_bound_falls_below_no_sets_of_a_tighter_problem(draw_problem, judge, seed):
    rng = np.random.default_rng(seed)
    problem = draw_problem(rng, 12, 3, max_energy_j=float(rng.uniform(5, 30)))
    tighter = replace(problem, max_energy_j=0.7 * problem.max_energy_j, k=None)
    found = greedy(tighter, never)
    if found.members is not None:
        assert greedy(problem, never).upper >= judge.value(problem, found.members) - 1e-9


@settings(max_examples=40)
@given(seed=seeds)
def test_duplicates_and_order_do_no_harm(draw_problem, judge, seed):
    rng = np.random.default_rng(seed)
    problem = draw_problem(rng, 6, 3, "best")
    best = enumerate_sets(problem)
    twice = problem.keep(np.repeat(rng.permutation(6), 2))
    found = greedy(twice, never)
    assert (found.members is None) == (best.members is None)
    if best.members is not None:
        assert keeps_its_promise(found, best.upper, judge, twice)


def test_k_above_the_number_of_experts_is_no_k(draw_problem, judge):
    rng = np.random.default_rng(4)
    for sets in ("shared", "per_category"):
        problem = draw_problem(rng, 5, 3, "mixture", sets=sets, max_energy_j=15.0)
        free, many = (greedy(replace(problem, k=k), never) for k in (None, 9))
        assert np.array_equal(free.members, many.members)


def test_what_takes_nothing_fits_into_nothing(draw_problem, judge):
    rng = np.random.default_rng(5)
    problem = draw_problem(
        rng, 6, 3, "best", max_energy_j=0.0, max_cost_usd=0.0, memory=None, able=None
    )
    assert greedy(problem, never).members is None
    free = replace(
        problem, energy_j=np.zeros((3, 6)), cost_usd=np.zeros((3, 6)), max_latency_ms=None
    )
    found = greedy(free, never)
    best = free.shares @ free.quality.max(axis=1)
    assert judge.value(free, found.members) == pytest.approx(best)
    assert found.upper == pytest.approx(best)


def test_a_worthless_answer_is_better_than_none():
    prompts = Prompts(np.zeros((1, 2)), np.zeros((1, 2)), np.zeros(1, dtype=int))
    problem = Problem(
        "likelihood", np.ones(1), np.ones((1, 2)), np.full((1, 2), 100.0), prompts=prompts
    )
    for sets in ("shared", "per_category"):
        found = greedy(replace(problem, sets=sets), never)
        assert found.members is not None
        assert found.upper == -np.inf


def test_a_thousand_experts_come_with_a_narrow_bound(judge):
    rng = np.random.default_rng(6)
    energy_j = rng.uniform(1, 90, (5, 1000))
    shares = rng.dirichlet(np.ones(5))
    memory = Memory(rng.uniform(1, 9, 1000), rng.integers(0, 3, 1000), np.full(3, 12.0))
    problem = Problem(
        "best",
        shares,
        energy_j,
        np.full_like(energy_j, 1000.0),
        quality=rng.random((5, 1000)),
        max_energy_j=60.0,
        memory=memory,
    )
    found = greedy(problem, never)
    value = judge.value(problem, found.members)
    assert judge.feasible(problem, found.members)
    assert value <= found.upper <= 1.1 * value

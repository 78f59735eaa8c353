"""Mixed-integer programs of sets, by both solvers, against all sets one by one."""

from dataclasses import replace

import numpy as np
import pytest

from coe.optimizer.additive import additive
from coe.optimizer.enumeration import enumerate_sets
from coe.optimizer.greedy import greedy
from coe.optimizer.knapsack import per_category
from coe.optimizer.problem import Memory
from coe.optimizer.program import program
from coe.optimizer.reference import optimum


def never():
    return False


@pytest.mark.parametrize("aggregation", ["best", "sum"])
@pytest.mark.parametrize(("solver", "n_problems"), [("highs", 80), ("cbc", 20)])
def test_a_shared_set_is_that_of_enumeration(solver, n_problems, aggregation, draw_problem, judge):
    rng = np.random.default_rng(1)
    for _ in range(n_problems):
        problem = draw_problem(rng, int(rng.integers(1, 9)), int(rng.integers(1, 5)), aggregation)
        best = enumerate_sets(problem)
        value = None if best.members is None else best.upper
        assert judge.agrees(program(problem, never, solver), value, problem)


@pytest.mark.parametrize("aggregation", ["best", "sum", "mixture", "choose", "likelihood"])
@pytest.mark.parametrize(("solver", "n_problems"), [("highs", 40), ("cbc", 10)])
def test_sets_by_category_are_those_of_the_slow_twin(
    solver, n_problems, aggregation, draw_problem, judge
):
    rng = np.random.default_rng(2)
    for _ in range(n_problems):
        n_categories = int(rng.integers(1, 4))
        n_experts = int(rng.integers(1, 5 if n_categories < 3 else 4))
        problem = draw_problem(rng, n_experts, n_categories, aggregation, sets="per_category")
        value, sets = optimum(problem)
        value = None if sets is None else value
        assert judge.agrees(program(problem, never, solver), value, problem)


def test_larger_problems_have_the_value_of_other_exact_solvers(draw_problem, judge):
    rng = np.random.default_rng(3)
    for aggregation in ("best", "mixture"):
        for _ in range(5):
            problem = draw_problem(
                rng, 10, 4, aggregation, sets="per_category", memory=None, max_energy_j=9.0
            )
            exact = per_category(problem, never)
            assert program(problem, never, "highs").upper == pytest.approx(exact.upper, abs=1e-9)
    for _ in range(5):
        problem = draw_problem(rng, 40, 3, "sum", k=None, memory=None, max_cost_usd=None)
        exact = additive(problem, never)
        assert program(problem, never, "highs").upper == pytest.approx(exact.upper, rel=1e-9)


def test_both_solvers_agree_where_nothing_else_is_exact(draw_problem, judge):
    rng = np.random.default_rng(4)
    for sets in ("shared", "per_category"):
        memory = Memory(rng.uniform(1, 9, 25), rng.integers(0, 2, 25), np.array([12.0, 12.0]))
        problem = draw_problem(
            rng,
            25,
            4,
            "best",
            sets=sets,
            memory=memory,
            max_energy_j=12.0,
            max_latency_ms=None,
            able=None,
        )
        one, other = (program(problem, never, solver) for solver in ("cbc", "highs"))
        assert judge.agrees(one, other.upper, problem)
        quick = greedy(problem, never)
        assert judge.value(problem, quick.members) <= one.upper + 1e-9 <= quick.upper + 2e-9


@pytest.mark.parametrize("solver", ["cbc", "highs"])
def test_out_of_time_there_is_still_a_bound(solver, draw_problem, judge):
    rng = np.random.default_rng(5)
    problem = draw_problem(rng, 60, 20, "best", memory=None, k=None, able=None, max_energy_j=12.0)
    problem = replace(problem, quality=rng.random((20, 60)), max_latency_ms=None)
    found = program(problem, never, solver, time_limit_s=0.05)
    assert np.isfinite(found.upper)
    least = judge.value(problem, greedy(problem, never).members)
    assert found.upper >= least - 1e-9
    assert found.members is None or judge.feasible(problem, found.members)


def test_what_no_program_says_is_refused(draw_problem):
    rng = np.random.default_rng(6)
    with pytest.raises(ValueError, match="best or sum"):
        program(draw_problem(rng, 3, 2, "mixture"), never)
    with pytest.raises(ValueError, match="at most 12"):
        program(draw_problem(rng, 13, 2, "sum", sets="per_category"), never)
    with pytest.raises(ValueError, match="solver"):
        program(draw_problem(rng, 3, 2, "best"), never, "guess")
    with pytest.raises(ValueError, match="time_limit_s"):
        program(draw_problem(rng, 3, 2, "best"), never, time_limit_s=0.0)

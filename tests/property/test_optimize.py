"""Every exact solver on hundreds of problems, and what holds of an optimum whoever finds it.

The oracle is `coe.optimizer.reference`, plain loops; for more experts, enumeration, which they
confirm.
"""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from coe.optimizer import reference
from coe.optimizer.additive import additive
from coe.optimizer.branch import branch
from coe.optimizer.enumeration import enumerate_sets
from coe.optimizer.knapsack import per_category
from coe.optimizer.optimize import optimize
from coe.optimizer.polyblock import polyblock
from coe.optimizer.problem import Memory, Problem, Prompts
from coe.optimizer.program import program
from coe.optimizer.value import over_traffic, value_of

AGGREGATIONS = ("best", "sum", "mixture", "choose", "likelihood")
BUDGETS = ("max_energy_j", "max_cost_usd", "max_latency_ms", "node_gb[0]", "node_gb[1]")


def never():
    return False


def draw(rng, n_experts, n_categories, aggregation, sets="shared", **fixed):
    """Any problem; half of them are made of few round figures, so that ties are common."""
    pairs, coarse = (n_categories, n_experts), rng.random() < 0.5

    def figures(low, high, shape=None):
        if coarse:
            return low + (high - low) * rng.integers(0, 5, shape) / 4
        return rng.uniform(low, high, shape)

    counts = rng.integers(0, 4, n_categories)
    counts[0] += 1
    n_prompts = n_categories + int(rng.integers(0, 9))
    seen = (n_prompts, n_experts)
    energy_j, cost_usd = figures(1.0, 9.0, pairs), figures(0.0, 0.5, pairs)
    node = rng.integers(0, 2, n_experts)
    limits = {
        "max_energy_j": float(figures(0.5, 3.0) * energy_j.mean()),
        "max_cost_usd": float(figures(0.5, 3.0) * cost_usd.mean()),
        "max_latency_ms": float(figures(250.0, 550.0)),
        "k": int(rng.integers(1, 4)),
        "able": rng.random(pairs) < 0.95,
        "memory": Memory(figures(1.0, 9.0, n_experts), node, figures(4.0, 20.0, 2)),
    }
    given_ = {name: limit for name, limit in limits.items() if rng.random() < 0.5}
    prompts = Prompts(
        figures(-3.0, 3.0, seen), figures(0.0, 1.0, seen), np.arange(n_prompts) % n_categories
    )
    fields = {
        "cost_usd": cost_usd,
        "quality": figures(0.0, 1.0, pairs),
        "prompts": prompts,
        "sets": sets,
        "overhead_ms": float(rng.choice([0.0, 50.0])),
    }
    return Problem(
        aggregation,
        counts / counts.sum(),
        energy_j,
        figures(100.0, 500.0, pairs),
        **(fields | given_ | fixed),
    )


def worth(problem, members):
    own = np.diagonal(value_of(problem).of(members))
    return float(over_traffic(problem.shares, own[:, None])[0])


def agrees(problem, found, best, some_fit):
    """Found is feasible and proved to be worth the optimum; or nothing, as nothing fits."""
    if not some_fit:
        return found.members is None and found.upper == -np.inf
    if found.members is None:
        return False
    sets = tuple(tuple(np.flatnonzero(row).tolist()) for row in found.members)
    own = worth(problem, found.members)
    close = np.allclose([own, found.upper], best, rtol=0, atol=1e-9)
    return close and reference.feasible(problem, sets)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_solvers_of_a_shared_set_find_what_plain_loops_find(aggregation):
    rng = np.random.default_rng(100)
    n_fit = 0
    for _ in range(150):
        n_experts = int(rng.choice([1, 2, 3, 4, 5, 6, 7, 8], p=[0.1] * 4 + [0.2, 0.2, 0.1, 0.1]))
        problem = draw(rng, n_experts, int(rng.integers(1, 7)), aggregation)
        best, chosen = reference.optimum(problem)
        n_fit += chosen is not None
        for solver in (lambda p, _: enumerate_sets(p), branch, polyblock):
            assert agrees(problem, solver(problem, never), best, chosen is not None)
    assert n_fit > 75


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_solvers_of_a_shared_set_agree_up_to_twelve_experts(aggregation):
    rng = np.random.default_rng(101)
    for _ in range(100):
        n_experts, n_categories = int(rng.integers(9, 13)), int(rng.integers(1, 7))
        problem = draw(rng, n_experts, n_categories, aggregation)
        found = enumerate_sets(problem)
        for solver in (branch, polyblock):
            assert agrees(problem, solver(problem, never), found.upper, found.members is not None)


def test_labels_of_sums_find_what_plain_loops_and_enumeration_find():
    rng = np.random.default_rng(102)
    n_checked = 0
    while n_checked < 500:
        absent = dict.fromkeys(rng.permutation(["max_energy_j", "max_cost_usd"])[:1])
        n_experts = int(rng.integers(1, 13))
        problem = draw(
            rng, n_experts, int(rng.integers(1, 7)), "sum", k=None, memory=None, **absent
        )
        found = enumerate_sets(problem)
        best, fits = found.upper, found.members is not None
        if n_experts <= 6:
            best, chosen = reference.optimum(problem)
            fits = chosen is not None
        assert agrees(problem, additive(problem, never), best, fits)
        n_checked += 1


SMALL = {1: 6, 2: 4, 3: 2}
"""Experts for so many categories: all their sets are a few hundred to four thousand."""


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_labels_by_category_find_what_plain_loops_find(aggregation):
    rng = np.random.default_rng(103)
    n_fit = 0
    for _ in range(150):
        n_categories = int(rng.integers(1, 4))
        n_experts = int(rng.integers(1, SMALL[n_categories] + 1))
        problem = draw(rng, n_experts, n_categories, aggregation, "per_category", memory=None)
        best, chosen = reference.optimum(problem)
        n_fit += chosen is not None
        assert agrees(problem, per_category(problem, never), best, chosen is not None)
    assert n_fit > 75


@pytest.mark.parametrize("aggregation", ["best", "sum"])
@pytest.mark.parametrize(("solver", "n_problems"), [("highs", 150), ("cbc", 15)])
def test_programs_of_a_shared_set_find_what_plain_loops_find(aggregation, solver, n_problems):
    rng = np.random.default_rng(104)
    for _ in range(n_problems):
        problem = draw(rng, int(rng.integers(1, 7)), int(rng.integers(1, 5)), aggregation)
        best, chosen = reference.optimum(problem)
        assert agrees(problem, program(problem, never, solver), best, chosen is not None)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize(("solver", "n_problems"), [("highs", 100), ("cbc", 10)])
def test_programs_by_category_find_what_plain_loops_find(aggregation, solver, n_problems):
    rng = np.random.default_rng(105)
    for _ in range(n_problems):
        n_categories = int(rng.integers(1, 4))
        n_experts = int(rng.integers(1, SMALL[n_categories] + 1))
        problem = draw(rng, n_experts, n_categories, aggregation, "per_category")
        best, chosen = reference.optimum(problem)
        assert agrees(problem, program(problem, never, solver), best, chosen is not None)


@st.composite
def problems(draw_, aggregations=AGGREGATIONS, most_experts=6):
    """Problems of either kind that an exact solver without a process of its own can take."""
    rng = np.random.default_rng(draw_(st.integers(0, 2**32)))
    sets = draw_(st.sampled_from(["shared", "per_category"]))
    return draw(
        rng,
        draw_(st.integers(1, most_experts)),
        draw_(st.integers(1, 4)),
        draw_(st.sampled_from(aggregations)),
        sets,
        **({"memory": None} if sets == "per_category" else {}),
    )


def best_of(problem):
    """Value of the optimum, ``-inf`` if nothing fits."""
    solver = enumerate_sets if problem.sets == "shared" else lambda p: per_category(p, never)
    found = solver(problem)
    return found.upper if found.members is not None else -np.inf


@given(problems(), st.sampled_from(BUDGETS), st.floats(1, 4))
def test_more_of_a_budget_never_lowers_the_optimum(problem, name, factor):
    assume(name in problem.ceilings())
    (ceiling,) = (one for one in problem.limits() if one.name == name)
    more = problem.with_ceiling(ceiling, ceiling.limit * factor)
    assert best_of(more) >= best_of(problem) - 1e-9


@given(problems(), st.randoms(use_true_random=False))
def test_the_order_of_experts_does_not_change_the_optimum(problem, random):
    problem = without_ties(problem)
    order = np.array(random.sample(range(problem.n_experts), problem.n_experts))
    assert best_of(problem.keep(order)) == pytest.approx(best_of(problem), abs=1e-9)


@given(problems(), st.randoms(use_true_random=False))
def test_the_order_of_categories_does_not_change_the_optimum(problem, random):
    order = np.array(random.sample(range(problem.n_categories), problem.n_categories))
    prompts = replace(problem.prompts, category=np.argsort(order)[problem.prompts.category])
    shuffled = replace(
        problem,
        shares=problem.shares[order],
        energy_j=problem.energy_j[order],
        latency_ms=problem.latency_ms[order],
        cost_usd=problem.cost_usd[order],
        quality=problem.quality[order],
        able=None if problem.able is None else problem.able[order],
        prompts=prompts,
    )
    assert best_of(shuffled) == pytest.approx(best_of(problem), abs=1e-9)


@given(problems(), st.data())
def test_another_copy_of_an_expert_never_lowers_the_optimum(problem, data):
    twin = data.draw(st.integers(0, problem.n_experts - 1))
    doubled = problem.keep(np.append(np.arange(problem.n_experts), twin))
    assert best_of(doubled) >= best_of(problem) - 1e-9


@given(problems(("best",)), st.data())
def test_another_copy_of_an_expert_changes_no_best_answer(problem, data):
    twin = data.draw(st.integers(0, problem.n_experts - 1))
    doubled = problem.keep(np.append(np.arange(problem.n_experts), twin))
    assert best_of(doubled) == pytest.approx(best_of(problem), abs=1e-9)


@given(problems(), st.data())
def test_another_expert_never_lowers_the_optimum(problem, data):
    assume(problem.n_experts > 1)
    out = data.draw(st.integers(0, problem.n_experts - 1))
    fewer = problem.keep(np.delete(np.arange(problem.n_experts), out))
    assert best_of(problem) >= best_of(fewer) - 1e-9


@settings(max_examples=50)
@given(problems(most_experts=5))
def test_the_verb_says_what_the_solver_found(problem):
    result, best = optimize(problem), best_of(problem)
    assert result.value == pytest.approx(best, abs=1e-9) or result.value == best
    if result.sets:
        assert reference.feasible(problem, result.sets)


def without_ties(problem):
    """The problem with distinct logits: of equal ones the first counts, in whatever order."""
    spread = 1e-3 * np.arange(problem.n_experts) / problem.n_experts
    return replace(
        problem, prompts=replace(problem.prompts, logits=problem.prompts.logits + spread)
    )

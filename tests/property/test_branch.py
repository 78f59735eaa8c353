"""Branch-and-bound and polyblock find what looking at all sets finds, and bound what they did not.

The oracle is `coe.optimizer.reference`, which enumeration equals; for larger pools, enumeration.
"""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coe.kernels import reference as kernels
from coe.kernels.boxes import FREE, IN, OUT, most_in
from coe.kernels.branch import search
from coe.optimizer import reference
from coe.optimizer.boxes import ceilings_table, swaps, worth_table
from coe.optimizer.branch import branch
from coe.optimizer.enumeration import enumerate_sets
from coe.optimizer.footprint import fits
from coe.optimizer.polyblock import polyblock
from coe.optimizer.problem import Memory, Problem, Prompts
from coe.optimizer.value import over_traffic, value_of

SOLVERS = (branch, polyblock)


def never():
    return False


class After:
    """Time that is up at the n-th look at the clock."""

    def __init__(self, n_looks):
        self.n_looks = n_looks

    def __call__(self):
        self.n_looks -= 1
        return self.n_looks < 0


@st.composite
def problems(draw, most_experts):
    """Any aggregation, any ceilings, equal figures, equal experts, a category without traffic."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    shape = draw(st.integers(1, 6)), draw(st.integers(1, most_experts))
    coarse = draw(st.booleans())
    shares = rng.dirichlet(np.ones(shape[0]))
    if shape[0] > 1 and draw(st.booleans()):
        shares = np.concatenate([[0.0], shares[1:] / shares[1:].sum()])
    latency_ms = rng.uniform(100, 3000, shape)
    energy_j = latency_ms / 1000 * rng.uniform(5, 50, shape)
    tables = {"quality": rng.uniform(size=shape), "cost_usd": rng.uniform(0, 0.01, shape)}
    n_prompts = shape[0] + draw(st.integers(0, 12))
    logits = 2 * rng.normal(size=(n_prompts, shape[1]))
    outcome = rng.uniform(size=(n_prompts, shape[1]))
    category = np.arange(n_prompts) % shape[0]
    if coarse:
        latency_ms, energy_j = np.ceil(latency_ms / 1000) * 1000, np.round(energy_j / 20) * 20
        tables = {"quality": tables["quality"].round(1), "cost_usd": tables["cost_usd"].round(2)}
        logits, outcome = logits.round(), outcome.round(draw(st.integers(0, 1)))
    problem = Problem(
        draw(st.sampled_from(["best", "sum", "mixture", "choose", "likelihood"])),
        shares,
        energy_j,
        latency_ms,
        prompts=Prompts(logits, outcome, category),
        k=draw(st.none() | st.integers(1, most_experts + 1)),
        max_energy_j=draw(
            st.none() | st.just(0.0) | st.floats(0.3, 3).map(energy_j.mean().__mul__)
        ),
        max_cost_usd=draw(st.none() | st.floats(0.3, 3).map(tables["cost_usd"].mean().__mul__)),
        max_latency_ms=draw(st.none() | st.floats(1000, 4000)),
        overhead_ms=draw(st.sampled_from([0.0, 50.0])),
        memory=draw(st.none() | st.integers(1, 2).map(lambda n: memory(rng, shape[1], n))),
        **tables,
    )
    if draw(st.booleans()):
        problem = problem.keep(rng.integers(0, shape[1], shape[1]))
    return problem


def memory(rng, n_experts, n_nodes):
    node = rng.integers(0, n_nodes, n_experts)
    return Memory(rng.uniform(1, 10, n_experts), node, rng.uniform(3, 20, n_nodes))


def worth(problem, found):
    return float(over_traffic(problem.shares, value_of(problem).of(found.members[:1]))[0])


def check(problem, found, optimum):
    """An answer that fits and is proved to be the best; or none, as there is none."""
    if found.members is None:
        assert (optimum, found.upper) == (-np.inf, -np.inf)
        return
    assert np.all(found.members == found.members[0])
    assert fits(problem, found.members[:1])[0]
    assert found.nodes >= 1
    assert worth(problem, found) == pytest.approx(optimum, abs=1e-9)
    assert found.upper == pytest.approx(optimum, abs=1e-9)


@settings(max_examples=250)
@given(problems(6))
def test_both_find_what_the_slow_twin_finds(problem):
    optimum, chosen = reference.optimum(problem)
    for solve in (*SOLVERS, lambda problem, _: enumerate_sets(problem)):
        found = solve(problem, never)
        assert (found.members is None) == (chosen is None)
        check(problem, found, optimum)


@settings(max_examples=250)
@given(problems(11))
def test_both_find_what_enumeration_finds(problem):
    optimum = enumerate_sets(problem).upper
    for solve in SOLVERS:
        check(problem, solve(problem, never), optimum)


@given(problems(12), st.randoms(use_true_random=False))
def test_the_order_of_experts_changes_no_value(problem, random):
    # of equal logits the first counts, so there are none
    apart = np.random.default_rng(0).uniform(0, 1e-3, problem.prompts.logits.shape)
    prompts = replace(problem.prompts, logits=problem.prompts.logits + apart)
    problem = replace(problem, prompts=prompts)
    order = list(range(problem.n_experts))
    random.shuffle(order)
    for solve in SOLVERS:
        same = solve(problem.keep(np.array(order)), never).upper
        assert same == pytest.approx(solve(problem, never).upper, abs=1e-9)


@given(problems(12))
def test_without_time_both_hand_back_a_set_that_fits_and_a_bound(problem):
    optimum = enumerate_sets(problem)
    for solve in SOLVERS:
        found = solve(problem, After(0))
        assert (found.members is None) == (optimum.members is None)
        if found.members is not None:
            assert fits(problem, found.members[:1])[0]
            assert worth(problem, found) - 1e-9 <= optimum.upper <= found.upper + 1e-9


@settings(max_examples=4)
@given(st.integers(0, 2**32), st.sampled_from(["mixture", "choose", "likelihood"]))
def test_more_time_worsens_neither_set_nor_bound(seed, aggregation):
    rng = np.random.default_rng(seed)
    energy_j = rng.uniform(5, 50, (2, 11))
    prompts = Prompts(
        rng.normal(size=(400, 11)), rng.uniform(0.01, 1, (400, 11)), np.arange(400) % 2
    )
    problem = Problem(
        aggregation, np.full(2, 0.5), energy_j, 20 * energy_j, prompts=prompts, max_energy_j=100.0
    )
    optimum = enumerate_sets(problem).upper
    for solve in SOLVERS:
        found = [solve(problem, After(n)) for n in (0, 1, 2, 4, 8, 16, 32, 10_000)]
        for less, more in itertools.pairwise(found):
            assert worth(problem, less) <= worth(problem, more) + 1e-12
            assert less.upper >= more.upper - 1e-12
            assert less.upper >= optimum - 1e-9
            assert less.nodes <= more.nodes
        check(problem, found[-1], optimum)


@given(problems(10), st.data())
def test_starting_from_any_set_does_no_harm(problem, data):
    members = data.draw(
        st.lists(st.booleans(), min_size=problem.n_experts, max_size=problem.n_experts)
    )
    start = np.tile(np.array(members), (problem.n_categories, 1))
    optimum = enumerate_sets(problem).upper
    check(problem, branch(problem, never, start), optimum)
    hurried = branch(problem, After(0), start)
    if fits(problem, start[:1])[0]:
        assert (
            worth(problem, hurried)
            >= over_traffic(problem.shares, value_of(problem).of(start[:1]))[0] - 1e-12
        )


@given(problems(7), st.data())
def test_kernels_equal_their_twin(problem, data):
    """No set of a box is worth more than its bound, a lone one just that; search finds the best."""
    worths, ceilings = worth_table(problem), ceilings_table(problem)
    n = problem.n_experts
    box = np.array(data.draw(st.lists(st.sampled_from([OUT, IN, FREE]), min_size=n, max_size=n)))
    everything = (np.zeros((1, 1, n)), np.zeros((1, n)), np.array([n]), np.zeros(1))
    if np.any(box != OUT):
        most, _ = kernels.best_in_box(box, worths, everything)
        bound = most_in(box.astype(np.int8), worths)
        assert bound >= most - 1e-12
        if not np.any(box == FREE):
            assert bound == pytest.approx(most, abs=1e-12)
    queue = (
        np.full((300, n), FREE, np.int8),
        np.full(300, np.inf),
        np.full(300, -1),
        np.arange(300),
    )
    levels, best = np.full(len(worths[0]), -np.inf), np.zeros(n, dtype=bool)
    left, _, low = search(
        queue, 1, worths, ceilings, swaps(problem, ceilings), levels, best, -np.inf, 1e-10, 10_000
    )
    most, chosen = kernels.best_in_box(np.full(n, FREE), worths, ceilings)
    assert left == 0
    assert best.any() == (chosen is not None)
    assert low == pytest.approx(most, abs=1e-9)

"""Placements against every way to place small fleets, and what more of anything may do."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from scipy.optimize import linprog

from coe.optimizer.place import place
from coe.optimizer.placement import PlacementProblem, bill, broken
from coe.optimizer.placement_search import search

N_INSTANCES = 120
SHAPES = [(1, 3), (2, 2), (2, 3), (3, 2)]


def draw(seed, shape=None):
    """A small fleet in which memory, slots or turns are often scarce."""
    rng = np.random.default_rng(seed)
    n_nodes, n_experts = shape or SHAPES[seed % len(SHAPES)]
    pairs = (n_nodes, n_experts)
    gb = rng.integers(1, 9, n_experts).astype(float)
    rate = rng.choice([0.0, 0.1, 0.5, 1.0], n_experts)
    together = np.triu(rng.choice([0.0, 0.2, 0.5], (n_experts, n_experts)), 1)
    return PlacementProblem(
        rate_per_s=rate,
        expert_gb=gb,
        node_gb=np.round(gb.sum() / n_nodes * rng.uniform(0.8, 2.2, n_nodes), 1),
        slots=rng.choice([0.7, 1.5, 3.0, np.inf], n_nodes),
        cost=rng.integers(1, 100, pairs).astype(float),
        busy_s=rng.uniform(0.1, 1.0, pairs),
        switch_s=np.where(rng.random(pairs) < 0.8, rng.uniform(0.1, 2.0, pairs), np.inf),
        allowed=rng.random(pairs) < 0.95,
        copies=rng.choice([1.0, 1.0, 1.0, 2.0], n_experts) if n_nodes > 1 else None,
        together=together + together.T,
        apart_cost=float(rng.choice([0.0, 30.0])),
        second_cost=100.0,
        miss=float(rng.choice([0.3, 1.0])),
    )


def best_by_enumeration(problem):
    """The least cost over all ways to place; ``inf`` without any. Shares by a linear program."""
    n_nodes, n_experts = problem.cost.shape
    least = np.inf
    for modes in product((0, 1, 2), repeat=n_nodes * n_experts):
        mode = np.array(modes).reshape(n_nodes, n_experts)
        resident, on_demand = mode == 1, mode == 2
        gb = np.where(resident, problem.expert_gb, 0).sum(axis=1)
        gb += np.where(on_demand, problem.expert_gb, 0).max(axis=1)
        if (
            np.any(resident & ~problem.resident_ok)
            or np.any(on_demand & ~problem.on_demand_ok)
            or np.any(gb > problem.node_gb + 1e-9)
            or np.any((mode > 0).sum(axis=0) < problem.least_copies)
        ):
            continue
        least = min(least, cost_of_shares(problem, mode))
    return least


def cost_of_shares(problem, mode):
    """The least cost with experts where ``mode`` says: 0 nowhere, 1 resident, 2 on demand."""
    n_nodes, n_experts = mode.shape
    n_shares = n_nodes * n_experts
    loading = np.where(mode == 2, problem.loading_s, 0.0)
    work = problem.rate_per_s * (problem.busy_s + loading)
    price = problem.rate_per_s * (problem.cost + loading * problem.second_cost)
    both = [(e, h, p, v) for e, h, p in zip(*problem.pairs, strict=True) for v in range(n_nodes)]
    objective = np.concatenate([price.ravel(), [-p for _, _, p, _ in both]])
    rows, limits = [], []

    def row(weights, limit):
        if np.isfinite(limit):
            rows.append(weights)
            limits.append(limit)

    for v in range(n_nodes):
        for only, limit in ((mode[v] > 0, problem.slots[v]), (mode[v] == 2, 1.0)):
            weights = np.zeros(objective.size)
            weights[v * n_experts : (v + 1) * n_experts] = work[v] * only
            row(weights, limit)
    for k, (e, h, _, v) in enumerate(both):
        for expert in (e, h):
            weights = np.zeros(objective.size)
            weights[n_shares + k], weights[v * n_experts + expert] = 1, -1
            row(weights, 0.0)
    whole = np.zeros((n_experts, objective.size))
    for e in range(n_experts):
        whole[e, e:n_shares:n_experts] = 1
    upper = np.concatenate([(mode > 0).ravel(), np.ones(len(both))])
    found = linprog(
        objective,
        np.array(rows) if rows else None,
        limits or None,
        whole,
        np.ones(n_experts),
        [(0, u) for u in upper],
    )
    return found.fun + problem.pairs[2].sum() if found.status == 0 else np.inf


def close(cost):
    return pytest.approx(cost, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("seed", range(N_INSTANCES))
def test_the_program_finds_what_enumeration_finds(seed):
    problem = draw(seed)
    least = best_by_enumeration(problem)
    found = place(problem, "milp" if seed % 2 else "milp-highs")
    if least == np.inf:
        assert found.status == "infeasible"
        assert found.placement is None
    else:
        assert (found.status, found.gap) == ("optimal", 0.0)
        assert found.cost.total == close(least)
        assert broken(problem, found.placement) == ()
        assert bill(problem, found.placement).total == close(least)
    greedy = place(problem, "greedy")
    assert greedy.bound <= least * (1 + 1e-6) + 1e-9
    if greedy.placement is not None:
        assert broken(problem, greedy.placement) == ()
        assert greedy.cost.total >= least * (1 - 1e-6) - 1e-9
        assert greedy.status in ("optimal", "feasible")
        assert greedy.bound <= greedy.cost.total


@pytest.mark.parametrize("seed", range(30))
def test_what_is_needed_is_enough_and_less_is_not(seed):
    problem = draw(1000 + seed)
    scarce = replace(problem, node_gb=problem.node_gb * 0.3, slots=problem.slots * 0.5)
    found = place(scarce, "milp")
    if found.status != "infeasible":
        assert found.needed == {}
        return
    for name, least in found.needed.items():
        limit, index = name[:-1].split("[")
        for factor, possible in ((1.0001, least is not None), (0.9999, False)):
            limits = getattr(scarce, limit).copy()
            limits[int(index)] = 1e9 if least is None else least * factor
            status = place(replace(scarce, **{limit: limits}), "milp").status
            assert (status == "optimal") == possible, (name, least, factor)


@pytest.mark.parametrize("seed", range(20))
def test_more_of_anything_never_costs_more(seed):
    problem = draw(2000 + seed)
    cost = place(problem, "milp").cost.total if place(problem, "milp").placement else np.inf
    for changed in (
        replace(problem, node_gb=problem.node_gb * 1.3),
        replace(problem, slots=problem.slots * 1.3),
        replace(problem, miss=problem.miss / 2),
        replace(problem, allowed=None),
        replace(problem, copies=None),
        replace(problem, apart_cost=0.0),
    ):
        found = place(changed, "milp")
        assert (found.cost.total if found.placement else np.inf) <= cost * (1 + 1e-5) + 1e-6


@pytest.mark.parametrize("seed", range(20))
def test_the_order_of_experts_and_nodes_does_not_matter(seed):
    problem, rng = draw(3000 + seed), np.random.default_rng(seed)
    mixed = problem.keep(rng.permutation(problem.n_experts), rng.permutation(problem.n_nodes))
    one, other = place(problem, "milp"), place(mixed, "milp")
    assert one.status == other.status
    assert one.cost.total == close(other.cost.total)


@pytest.mark.parametrize("seed", range(10))
def test_a_second_node_of_the_same_kind_never_hurts(seed):
    problem = replace(draw(4000 + seed, (1, 3)), copies=None)
    nodes = [0, 0]
    twice = problem.keep(np.arange(3), nodes)
    one, two = place(problem, "milp"), place(twice, "milp")
    if one.placement is not None:
        assert two.cost.total <= one.cost.total * (1 + 1e-5) + 1e-6


@pytest.mark.parametrize("seed", range(10))
def test_twice_the_same_expert_is_placed_like_half_of_it_each(seed):
    """Requests of an expert may be divided between two of its name, given room for both."""
    problem = replace(
        draw(5000 + seed, (2, 2)),
        together=None,
        copies=None,
        node_gb=np.full(2, np.inf),
        allowed=None,
    )
    twice = problem.keep([0, 0, 1], [0, 1])
    twice = replace(twice, rate_per_s=twice.rate_per_s * [0.5, 0.5, 1.0])
    one, two = place(problem, "milp"), place(twice, "milp")
    assert one.status == two.status
    assert one.cost.total == close(two.cost.total)


def test_a_search_without_time_still_says_where_everyone_that_fits_goes():
    problem = replace(draw(7, (3, 2)), node_gb=np.full(3, np.inf), slots=np.full(3, np.inf))
    nothing = np.zeros((3, 2))
    assert broken(problem, search(problem, lambda: True, (nothing, nothing))) == ()


def side_by_side(problem, times):
    """As many fleets of one kind that have nothing to do with each other."""
    apart = np.eye(times)
    everyone, everywhere = (
        np.tile(np.arange(problem.n_experts), times),
        np.tile(np.arange(problem.n_nodes), times),
    )
    together = np.kron(apart, problem.together)
    wide = replace(problem, together=None).keep(everyone, everywhere)
    allowed = np.kron(apart, problem.allowed) > 0
    return replace(wide, together=together, allowed=allowed)


def test_auto_asks_the_program_where_the_search_finds_nothing():
    drawn = (draw(seed, (2, 3)) for seed in range(N_INSTANCES))
    hard = next(
        problem
        for problem in drawn
        if place(problem, "greedy").status == "unknown" and place(problem).status == "optimal"
    )
    found = place(side_by_side(hard, 25), time_limit_s=5.0)
    assert (found.method, found.why) == ("milp", "the search found nothing")
    assert found.status == "optimal"
    assert found.cost.total == close(25 * place(hard).cost.total)

"""Menus and staircases against everything there is."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from coe.optimizer import reference
from coe.optimizer.menu import menus
from coe.optimizer.problem import Problem, Prompts
from coe.optimizer.steps import AXES, steps


def problem(seed, aggregation="mixture", n_experts=4, n_categories=2, **fields):
    rng = np.random.default_rng(seed)
    shape = (n_categories, n_experts)
    latency_ms = rng.integers(1, 6, shape) * 200.0
    recorded = {"quality": rng.integers(0, 9, shape) / 8}
    if aggregation in ("mixture", "choose", "likelihood"):
        category = np.r_[np.arange(n_categories), rng.integers(0, n_categories, 7)]
        logits = rng.normal(size=(category.size, n_experts)) * 2
        outcome = rng.integers(1, 9, logits.shape) / 8
        recorded = {"prompts": Prompts(logits, outcome, category)}
    return Problem(
        aggregation=aggregation,
        shares=rng.dirichlet(np.ones(n_categories)),
        energy_j=latency_ms / 1000 * rng.integers(1, 5, shape) * 10,
        latency_ms=latency_ms,
        cost_usd=rng.integers(0, 5, shape) / 1000,
        **{"sets": "per_category", **recorded, **fields},
    )


AGGREGATIONS = ["best", "sum", "mixture", "choose", "likelihood"]


def used(step, axis):
    return getattr(step, axis)


def bought(stairs, axis, budget):
    """The last step within a budget."""
    return next((step for step in reversed(stairs) if used(step, axis) <= budget), None)


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("sets", ["shared", "per_category"])
@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("seed", range(3))
def test_a_budget_buys_the_optimum(seed, aggregation, sets, axis):
    n_experts = 3 if sets == "per_category" else 4
    whole = problem(seed, aggregation, n_experts, sets=sets)
    found = menus(whole)
    shares = whole.shares if sets == "per_category" else np.ones(1)
    stairs = steps(found, shares, axis)
    assert np.all(np.diff([used(s, axis) for s in stairs]) > 0)
    assert np.all(np.diff([s.value for s in stairs]) > 0)
    for budget in np.quantile([used(s, axis) for s in stairs], [0, 0.3, 0.6, 1]) * 1.001:
        limited = problem(seed, aggregation, n_experts, sets=sets, **{f"max_{axis}": float(budget)})
        best, _ = reference.optimum(limited)
        assert bought(stairs, axis, budget).value == pytest.approx(best, abs=1e-9)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("seed", range(4))
def test_a_menu_still_holds_the_best_set_when_experts_are_dead(seed, aggregation):
    whole = problem(seed, aggregation)
    for dead in itertools.combinations(range(4), 2):
        alive = np.isin(np.arange(4), dead, invert=True)
        left = [menu.among(alive) for menu in menus(whole)]
        without = whole.keep(np.flatnonzero(alive))
        best, _ = reference.optimum(without)
        total = whole.shares @ [menu.value.max() for menu in left]
        assert total == pytest.approx(best, abs=1e-9)


def test_no_set_of_a_menu_is_worth_no_more_than_a_subset():
    for menu in menus(problem(5, "likelihood", 5)):
        sets = [frozenset(np.flatnonzero(row)) for row in menu.members]
        for (small, low), (large, high) in itertools.permutations(
            zip(sets, menu.value, strict=True), 2
        ):
            assert not (small < large and low >= high)


def test_sets_without_any_likelihood_are_on_the_menu_only_as_singles():
    whole = problem(3, "likelihood", 3, 1)
    prompts = whole.prompts
    outcome = np.where(np.arange(3) == 0, prompts.outcome, 0.0)
    hopeless = replace(whole, prompts=replace(prompts, outcome=np.zeros_like(outcome)))
    (menu,) = menus(hopeless)
    assert menu.members.sum(axis=1).tolist() == [1, 1, 1]
    assert np.all(menu.value == -np.inf)
    (menu,) = menus(replace(whole, prompts=replace(prompts, outcome=outcome)))
    assert menu.members.sum(axis=1).tolist() == [1, 1, 1]
    assert np.isfinite(menu.value).tolist() == [True, False, False]


def test_an_expert_that_is_too_slow_is_on_no_menu():
    limited = problem(1, max_latency_ms=500.0, overhead_ms=50.0)
    for menu in menus(limited):
        assert np.all(menu.latency_ms <= 500.0)


def test_without_any_set_in_some_category_there_are_no_steps():
    assert steps(menus(problem(1, max_latency_ms=1.0)), np.array([0.5, 0.5]), "energy_j") == ()

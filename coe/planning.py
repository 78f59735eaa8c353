"""From the problem of a policy to its plan. Offline: it may take seconds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from coe.foresight import Foresight
from coe.optimizer.menu import MOST_EXPERTS, Menu, menus
from coe.optimizer.optimize import Method, optimize
from coe.optimizer.premise import examine
from coe.optimizer.problem import Problem
from coe.optimizer.result import Result
from coe.optimizer.steps import AXES, Step, steps
from coe.optimizer.value import over_traffic, value_of
from coe.plan import Certificate, Plan, PlannedCategory, PlannedSet

Bools = NDArray[np.bool_]


def plan(foresight: Foresight, method: Method = "auto", time_limit_s: float | None = None) -> Plan:
    """The best sets for the foreseen traffic, and what every other budget would buy.

    Where a policy has prices, what answers use is paid for in points of quality, if the
    aggregation is ``best``; of other aggregations the value alone is planned for, and prices are
    left to each request.

    Without ceilings on memory every expert stays resident; with them, those of the sets do, and
    menus and staircases hold no others.

    Parameters
    ----------
    method, time_limit_s : as in `coe.optimizer.optimize.optimize`.

    Raises
    ------
    ValueError, CoeError
        As `coe.optimizer.optimize.optimize`.
    """
    problem = foresight.problem
    found = optimize(foresight.priced, method, time_limit_s)
    resident = np.ones(problem.n_experts, dtype=bool)
    if problem.memory is not None and found.sets:
        resident = np.isin(np.arange(problem.n_experts), found.experts)
    offered = [menu.among(resident) for menu in menus(problem)]
    stairs = {axis: steps(offered, problem.shares, axis) for axis in AXES}
    return Plan(
        policy=foresight.policy.name,
        aggregation=problem.aggregation,
        k=problem.k,
        status=found.status,
        method=found.method,
        why=found.why,
        certificate=_certificate(foresight, found),
        quality=_quality(problem, found),
        energy_j=found.energy_j,
        latency_ms=max(found.latency_ms, default=0.0),
        cost_usd=found.cost_usd,
        resident=_by_node(foresight, resident),
        categories=tuple(
            PlannedCategory(
                name=name,
                share=float(problem.shares[c]),
                experts=_named(foresight, found.sets[c]) if found.sets else (),
                weights=found.weights[c] if found.weights else (),
                menu=_menu(foresight, offered[c]),
            )
            for c, name in enumerate(foresight.categories)
        ),
        staircases={
            axis: tuple(_step(foresight, offered, step) for step in found_steps)
            for axis, found_steps in stairs.items()
        },
        singles=_singles(foresight),
        binding=found.binding,
        slack=dict(found.slack),
        needed=dict(found.needed),
        premise=_premise(problem),
    )


def _certificate(foresight: Foresight, found: Result) -> Certificate | None:
    """The bounds in points of quality less what is paid; ``None`` without sets."""
    if not found.sets:
        return None
    lower, upper = foresight.unscaled(found.lower), foresight.unscaled(found.upper)
    return Certificate(lower, upper, upper - lower, found.nodes, found.solve_ms)


def _quality(problem: Problem, found: Result) -> float:
    """Value of the sets without prices."""
    value, worth = value_of(problem), np.zeros((problem.n_categories, 1))
    for c, chosen in enumerate(found.sets):
        members = np.isin(np.arange(problem.n_experts), chosen)
        worth[c] = value.of(members[None])[c]
    return float(over_traffic(problem.shares, worth)[0])


def _by_node(foresight: Foresight, resident: Bools) -> dict[str, tuple[str, ...]]:
    nodes: dict[str, list[str]] = defaultdict(list)
    for name, node, here in zip(foresight.expert_ids, foresight.nodes, resident, strict=True):
        if here:
            nodes[node].append(name)
    return {node: tuple(names) for node, names in sorted(nodes.items())}


def _menu(foresight: Foresight, menu: Menu) -> tuple[PlannedSet, ...]:
    rows = zip(menu.members, menu.value, menu.energy_j, menu.latency_ms, menu.cost_usd, strict=True)
    return tuple(
        PlannedSet(_named(foresight, np.flatnonzero(members).tolist()), *map(float, figures))
        for members, *figures in rows
    )


def _step(foresight: Foresight, offered: Sequence[Menu], step: Step) -> PlannedSet:
    used = np.any([menu.members[row] for menu, row in zip(offered, step.rows, strict=True)], axis=0)
    names = _named(foresight, np.flatnonzero(used).tolist())
    return PlannedSet(names, step.value, step.energy_j, step.latency_ms, step.cost_usd)


def _singles(foresight: Foresight) -> tuple[PlannedSet, ...]:
    problem = foresight.problem
    worth = over_traffic(
        problem.shares, value_of(problem).of(np.eye(problem.n_experts, dtype=bool))
    )
    energy_j, cost_usd = problem.shares @ problem.energy_j, problem.shares @ problem.costs_usd
    latency_ms = problem.latency_ms.max(axis=0) + problem.overhead_ms
    figures = np.column_stack([worth, energy_j, latency_ms, cost_usd]).tolist()
    return tuple(
        PlannedSet((name,), *row) for name, row in zip(foresight.expert_ids, figures, strict=True)
    )


def _premise(problem: Problem) -> dict[str, float]:
    """How the value of shared sets behaves; empty where there are too many experts to look."""
    if problem.n_experts > MOST_EXPERTS:
        return {}
    return asdict(examine(value_of(problem).totals(problem.shares)))


def _named(foresight: Foresight, experts: Sequence[int]) -> tuple[str, ...]:
    return tuple(foresight.expert_ids[n] for n in experts)

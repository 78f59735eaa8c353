"""From the problem of a policy to its plan. Offline: it may take seconds."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from coe.foresight import Foresight
from coe.optimizer.footprint import allowed
from coe.optimizer.menu import MOST_EXPERTS, Menu, menus
from coe.optimizer.optimize import Method, optimize
from coe.optimizer.premise import examine
from coe.optimizer.problem import Problem
from coe.optimizer.result import Result
from coe.optimizer.steps import AXES, Step, steps
from coe.optimizer.value import over_traffic, value_of
from coe.plan import Certificate, Plan, PlannedCategory, PlannedSet, PlannedStep

Bools = NDArray[np.bool_]
Figure = TypeVar("Figure")

_NODE = re.compile(r"node_gb\[(\d+)\]")
_MEANS = {"max_energy_j": "mean_energy_j", "max_cost_usd": "mean_cost_usd"}
_ASKED = {**_MEANS, "max_latency_ms": "latency_ms"}


def plan(foresight: Foresight, method: Method = "auto", time_limit_s: float | None = None) -> Plan:
    """The best sets for the foreseen traffic, and what every other budget would buy.

    Where a policy has prices, what answers use is paid for in points of quality, if the
    aggregation is ``best``; of other aggregations the value alone is planned for, and prices are
    left to each request.

    Everyone stays resident whom memory has room for: those of the sets first, then others by
    what they are worth alone. Menus are about residents and keep no ceiling, since a request has
    its own; staircases keep those of the policy. When nothing fits, there is none of it.

    Parameters
    ----------
    method, time_limit_s : as in `coe.optimizer.optimize.optimize`.

    Raises
    ------
    ValueError, CoeError
        As `coe.optimizer.optimize.optimize`.
    """
    needed = foresight.needed
    if needed:
        found = Result("infeasible", binding=_nearest(needed, foresight), needed=needed)
        found = replace(found, method="filter", why="some category has no expert that fits")
    else:
        found = optimize(foresight.priced, method, time_limit_s)
    problem = foresight.problem
    resident = _resident(problem, found)
    offered = _menus(problem, resident) if found.sets else []
    able = allowed(problem)
    stairs = [menu.among(able[c]) for c, menu in enumerate(offered)]
    return Plan(
        policy=foresight.policy.name,
        aggregation=problem.aggregation,
        k=problem.k,
        means=_renamed({n: c for n, c in problem.ceilings().items() if n in _MEANS}, foresight),
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
                menu=_menu(foresight, offered[c]) if found.sets else (),
            )
            for c, name in enumerate(foresight.categories)
        ),
        staircases={
            axis: tuple(
                _step(foresight, stairs, step) for step in steps(stairs, problem.shares, axis)
            )
            if stairs
            else ()
            for axis in AXES
        },
        singles=_singles(foresight),
        binding=None if found.binding is None else _asked(found.binding, foresight),
        slack=_renamed(found.slack, foresight),
        needed=_renamed(found.needed, foresight),
        premise=_premise(problem),
    )


def _resident(problem: Problem, found: Result) -> Bools:
    """(n_experts,) who stays in memory; nobody when nothing fits."""
    resident = np.isin(np.arange(problem.n_experts), found.experts)
    if problem.memory is None or not found.sets:
        return resident if not found.sets else np.ones_like(resident)
    memory = problem.memory
    left = memory.node_gb.copy()
    np.subtract.at(left, memory.node[resident], memory.expert_gb[resident])
    for n in np.argsort(-_worth_alone(problem), kind="stable"):
        if not resident[n] and memory.expert_gb[n] <= left[memory.node[n]]:
            resident[n] = True
            left[memory.node[n]] -= memory.expert_gb[n]
    return resident


def _menus(problem: Problem, resident: Bools) -> list[Menu]:
    """What any request may choose from, whatever its ceilings."""
    free = replace(problem, able=None, max_latency_ms=None)
    return [menu.among(resident) for menu in menus(free)]


def _certificate(foresight: Foresight, found: Result) -> Certificate | None:
    """The bounds in points of quality less what is paid; ``None`` without sets."""
    if not found.sets:
        return None
    lower, upper = foresight.unscaled(found.lower), foresight.unscaled(found.upper)
    return Certificate(lower, upper, found.gap and upper - lower, found.nodes, found.solve_ms)


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


def _step(foresight: Foresight, stairs: Sequence[Menu], step: Step) -> PlannedStep:
    sets = [menu.members[row] for menu, row in zip(stairs, step.rows, strict=True)]
    return PlannedStep(
        experts=_named(foresight, np.flatnonzero(np.any(sets, axis=0)).tolist()),
        sets=tuple(_named(foresight, np.flatnonzero(one).tolist()) for one in sets),
        quality=step.value,
        energy_j=step.energy_j,
        latency_ms=step.latency_ms,
        cost_usd=step.cost_usd,
    )


def _singles(foresight: Foresight) -> tuple[PlannedSet, ...]:
    problem = foresight.problem
    energy_j, cost_usd = problem.shares @ problem.energy_j, problem.shares @ problem.costs_usd
    latency_ms = problem.latency_ms.max(axis=0) + problem.overhead_ms
    figures = np.column_stack([_worth_alone(problem), energy_j, latency_ms, cost_usd]).tolist()
    return tuple(
        PlannedSet((name,), *row) for name, row in zip(foresight.expert_ids, figures, strict=True)
    )


def _worth_alone(problem: Problem) -> NDArray[np.float64]:
    """(n_experts,) what each is worth over the traffic, serving all categories."""
    singles = np.eye(problem.n_experts, dtype=bool)
    return over_traffic(problem.shares, value_of(problem).of(singles))


def _premise(problem: Problem) -> dict[str, float]:
    """How the value of shared sets behaves; empty where there are too many experts to look."""
    if problem.n_experts > MOST_EXPERTS:
        return {}
    return asdict(examine(value_of(problem).totals(problem.shares)))


def _nearest(needed: Mapping[str, float | None], foresight: Foresight) -> str:
    """The policy's ceiling that has to be raised least in proportion."""
    ceilings = foresight.policy.budget.ceilings()
    factor = {axis: (needed[axis] or np.inf) / ceilings[axis] for axis in needed}
    return min(factor, key=lambda axis: factor[axis])


def _asked(name: str, foresight: Foresight) -> str:
    """A ceiling by what the user calls it."""
    node = _NODE.fullmatch(name)
    if node is not None:
        return f"node_gb[{foresight.node_names[int(node[1])]}]"
    return _ASKED.get(name, name)


def _renamed(figures: Mapping[str, Figure], foresight: Foresight) -> dict[str, Figure]:
    return {_asked(name, foresight): figure for name, figure in figures.items()}


def _named(foresight: Foresight, experts: Sequence[int]) -> tuple[str, ...]:
    return tuple(foresight.expert_ids[n] for n in experts)

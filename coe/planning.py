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
from coe.optimizer.residents import fullest
from coe.optimizer.result import Result
from coe.optimizer.steps import AXES, Step, steps
from coe.optimizer.value import over_traffic, value_of
from coe.plan import MODES, Certificate, Plan, PlannedCategory, PlannedSet, PlannedStep

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
        resident = np.zeros(len(foresight.expert_ids), dtype=bool)
    elif foresight.modes is None:
        found = optimize(foresight.priced, method, time_limit_s)
        resident = _resident(foresight.problem, found)
    else:
        found, resident = _best_modes(foresight, method, time_limit_s)
    problem = foresight.problem
    offered = _menus(problem, foresight.columns_among(resident)) if found.sets else []
    able = allowed(problem)
    stairs = [menu.among(able[c]) for c, menu in enumerate(offered)]
    return Plan(
        policy=foresight.policy.name,
        aggregation=problem.aggregation if foresight.modes is None else MODES,
        k=problem.k if foresight.modes is None else None,
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
                experts=foresight.named(found.sets[c]) if found.sets else (),
                weights=_weights(foresight, found, c),
                menu=_menu(foresight, offered[c]) if found.sets else (),
                mode=foresight.mode_of(found.sets[c]) if found.sets else None,
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


def _best_modes(
    foresight: Foresight, method: Method, time_limit_s: float | None
) -> tuple[Result, Bools]:
    """The best modes of experts that are in memory together, and who these are.

    Exact where `optimize` is: all sets of experts that fill memory are tried. A time limit is
    shared among them. Where nothing fits, a ceiling that would do for one set would do.
    """
    problem, memory = foresight.priced, foresight.memory
    everyone = np.ones((1, len(foresight.expert_ids)), dtype=bool)
    housed = everyone if memory is None else fullest(memory)
    each_s = None if time_limit_s is None else time_limit_s / len(housed)
    found = []
    for resident in housed:
        columns = np.flatnonzero(foresight.columns_among(resident))
        if columns.size:
            result = optimize(problem.keep(columns), method, each_s)
            sets = tuple(tuple(columns[list(chosen)].tolist()) for chosen in result.sets)
            found.append((replace(result, sets=sets), resident))
    if not found:
        return Result("infeasible", method="filter", why="nobody fits into memory"), everyone[
            0
        ] & False
    best, resident = max(found, key=lambda pair: pair[0].value)
    results = [result for result, _ in found]
    if not best.sets:
        resident = np.zeros_like(resident)
        best = replace(best, needed=_least_needed(results))
    proved = all(result.status in ("optimal", "infeasible") for result in results)
    if best.sets and not proved:
        best = replace(best, status="feasible", upper=max(result.upper for result in results))
    why = best.why if len(housed) == 1 else f"{best.why}; best of {len(housed)} ways to fill memory"
    nodes = sum(result.nodes for result in results)
    return replace(best, why=why, nodes=nodes, solve_ms=sum(r.solve_ms for r in results)), resident


def _least_needed(results: Sequence[Result]) -> dict[str, float | None]:
    """By ceiling the least that would do for any of several problems; ``None`` if none would."""
    needed = dict[str, float | None]()
    for result in results:
        for name, enough in result.needed.items():
            known = needed.setdefault(name, enough)
            if enough is not None and (known is None or enough < known):
                needed[name] = enough
    return needed


def _weights(foresight: Foresight, found: Result, c: int) -> tuple[float, ...]:
    """The mean share of each expert of category ``c`` in the answer; under a mode all the same."""
    if not found.weights or foresight.modes is None:
        return found.weights[c] if found.weights else ()
    names = foresight.named(found.sets[c])
    return tuple(1.0 / len(names) for _ in names)


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
    offered = []
    for members, *figures in rows:
        columns = np.flatnonzero(members).tolist()
        worth, energy_j, latency_ms, cost_usd = map(float, figures)
        names, mode = foresight.named(columns), foresight.mode_of(columns)
        offered.append(PlannedSet(names, worth, energy_j, latency_ms, cost_usd, mode))
    return tuple(offered)


def _step(foresight: Foresight, stairs: Sequence[Menu], step: Step) -> PlannedStep:
    sets = [menu.members[row] for menu, row in zip(stairs, step.rows, strict=True)]
    columns = [np.flatnonzero(one).tolist() for one in sets]
    modes = [foresight.mode_of(one) for one in columns]
    return PlannedStep(
        experts=foresight.named(np.flatnonzero(np.any(sets, axis=0)).tolist()),
        sets=tuple(foresight.named(one) for one in columns),
        quality=step.value,
        energy_j=step.energy_j,
        latency_ms=step.latency_ms,
        cost_usd=step.cost_usd,
        modes=tuple(mode.name for mode in modes if mode is not None),
    )


def _singles(foresight: Foresight) -> tuple[PlannedSet, ...]:
    problem = foresight.problem
    energy_j, cost_usd = problem.shares @ problem.energy_j, problem.shares @ problem.costs_usd
    latency_ms = problem.latency_ms.max(axis=0) + problem.overhead_ms
    figures = np.column_stack([_worth_alone(problem), energy_j, latency_ms, cost_usd]).tolist()
    found = []
    for n, row in enumerate(figures):
        names = foresight.named([n])
        if len(names) == 1:
            worth, used_j, slowest_ms, paid_usd = row
            mode = foresight.mode_of([n])
            found.append(PlannedSet(names, worth, used_j, slowest_ms, paid_usd, mode))
    return tuple(found)


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

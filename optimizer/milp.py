"""The best category-to-expert map within budgets: a mixed-integer program, solved by CBC.

Step two of CoE's two-step routing (arXiv 2412.01868; reconstruction, equations ours)::

    max  sum_c q_c sum_e w_ce x_ce
    s.t. sum_e x_ce = 1,  x_ce <= y_e,  sum_e P_e y_e <= B,  and the optional ceilings
         of `MapProblem`;  x, y in {0, 1}

``x_ce``: category c is served by expert e; ``y_e``: expert e is kept in store. ``x`` may be
fractional as long as no ceiling holds for a mean over traffic: given ``y``, every category takes
its best expert. Offline only: every search starts a process and takes tens of milliseconds.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pulp  # type: ignore[import-untyped]
from numpy.typing import NDArray

from coe.optimizer.branch_and_cut import SCALE, run
from coe.optimizer.figures import ROUNDING, Floats
from coe.optimizer.map import MapProblem, MapResult, MapStatus

Integers = NDArray[np.intp]


def solve_map(
    problem: MapProblem, time_limit_s: float | None = None, solver: str = "cbc"
) -> MapResult:
    """The map of the largest value, or why there is none.

    Ties: of maps whose missing value, ``1 - value``, differs by no more than 1e-9 of itself, the
    one of the fewest stored parameters (to 1e-7 of those of all experts), then the one whose
    experts have the smaller indices, by their sum; a second search finds it. A category without
    traffic gets the best of the chosen experts. What still ties is left to the solver; it starts
    no threads, so that the same problem gives the same map.

    CBC's tolerances do not show: a map that exceeds a ceiling by more than 1e-9 of it is cut off,
    and the search goes on.

    Parameters
    ----------
    time_limit_s : of each search: one for the value, one for ties; when infeasible, up to
        about ten for each ceiling. CBC looks at the clock between steps.
    solver : ``"cbc"``, the one that PuLP brings along.

    Raises
    ------
    ValueError
        Another solver, or a time limit that is not positive.
    CoeError
        CBC could not be run.
    """
    if solver != "cbc":
        raise ValueError(f"solver must be 'cbc', not {solver!r}")
    result = _best_map(problem, time_limit_s)
    if result.status != "infeasible":
        return result
    needed = _needed(problem, time_limit_s)
    return replace(result, needed=needed, conflict=_conflict(problem, needed, time_limit_s))


def budget_ladder(
    problem: MapProblem,
    budgets: Iterable[float] | None = None,
    time_limit_s: float | None = None,
) -> tuple[MapResult, ...]:
    """The staircase of best maps over budgets of stored parameters, cheapest first.

    Every step is worth more than the one before, and is the best map of all budgets from its
    own ``stored_params_b`` up to that of the next step. Without any map there is no step.

    Parameters
    ----------
    budgets : in billions of parameters, in place of the problem's own. By default all up to the
        problem's own, or without end: then the staircase is whole, except that budgets
        closer than 1e-8 of each other count as one.
    time_limit_s : as in `solve_map`; the steps may then be ``feasible`` only, and the
        staircase ends at a budget for which no map was found in time.

    Notes
    -----
    From the top down: the best map of a budget has the fewest parameters among its equals, so
    only budgets below those are left to ask. One `solve_map` per step, not per budget.

    Raises
    ------
    ValueError
        A budget is negative or not a number; or as `solve_map`.
    CoeError
        CBC could not be run.
    """
    own = np.inf if problem.stored_params_b is None else problem.stored_params_b
    left = [own] if budgets is None else sorted(budgets)
    if not all(budget >= 0 for budget in left):
        raise ValueError(f"budgets must be numbers that are not negative, not {left}")
    steps: list[MapResult] = []
    while left:
        found = _best_map(problem.with_ceiling("stored_params_b", left.pop()), time_limit_s)
        if not found.assignment:
            break
        while steps and steps[-1].value <= found.value + ROUNDING:
            steps.pop()
        steps.append(found)
        below = found.stored_params_b * (1 - 4 * ROUNDING)
        if budgets is None:
            left = [below] if below > 0 else []
        left = [budget for budget in left if budget <= below]
    return tuple(reversed(steps))


@dataclass(frozen=True, slots=True)
class _Row:
    """A ceiling on a sum: (n_experts,) over those in use, or over (category, expert) pairs."""

    ceiling: float
    weights: Floats

    def total(self, assignment: Integers) -> float:
        if self.weights.ndim == 1:
            return float(self.weights[np.unique(assignment)].sum())
        return float(self.weights[np.arange(assignment.size), assignment].sum())

    @property
    def limit(self) -> float:
        return self.ceiling * (1 + ROUNDING)


@dataclass(frozen=True, slots=True)
class _Found:
    """How a search ended: the map, if any, and the least that the objective can be."""

    status: MapStatus
    assignment: Integers | None = None
    bound: float = -np.inf


def _rows(problem: MapProblem) -> dict[str, _Row]:
    """Present ceilings on sums, by name."""
    shares = problem.shares[:, None]
    weights = {
        "stored_params_b": problem.params_b,
        "max_experts": np.ones_like(problem.params_b),
        "active_params_b": shares * problem.params_b,
        "max_energy_j": None if problem.energy_j is None else shares * problem.energy_j,
        "max_cost_usd": None if problem.cost_usd is None else shares * problem.cost_usd,
    }
    ceilings = problem.ceilings()
    return {n: _Row(ceilings[n], w) for n, w in weights.items() if n in ceilings and w is not None}


def _best_map(problem: MapProblem, time_limit_s: float | None) -> MapResult:
    """`solve_map` without the explanation."""
    if time_limit_s is not None and not time_limit_s > 0:
        raise ValueError(f"time_limit_s must be positive, not {time_limit_s!r}")
    found = _search(problem, problem.loss, time_limit_s)
    if found.status == "infeasible":
        return MapResult("infeasible")
    best, whole = found.assignment, float(problem.shares.sum())
    if found.status == "optimal" and best is not None:
        bound = whole - _lost(problem, best)
        best = _without_ties(problem, best, time_limit_s)
    else:
        free = problem.shares @ np.where(problem.in_time, problem.value, 0.0).max(axis=1)
        bound = min(float(free), whole - found.bound)
        best = _or_constant(problem, best)
    if best is None:
        return MapResult("unknown", bound=bound)
    chosen = np.unique(best)
    value = float(problem.shares @ problem.value[np.arange(best.size), best])
    return MapResult(
        status="optimal" if found.status == "optimal" else "feasible",
        assignment=tuple(best.tolist()),
        chosen=tuple(chosen.tolist()),
        value=value,
        bound=max(value, bound),
        stored_params_b=float(problem.params_b[chosen].sum()),
        active_params_b=float(problem.shares @ problem.params_b[best]),
    )


def _lost(problem: MapProblem, assignment: Integers) -> float:
    return _Row(np.inf, problem.loss).total(assignment)


def _without_ties(problem: MapProblem, best: Integers, time_limit_s: float | None) -> Integers:
    """The map of fewest parameters, then of lowest indices, among those as good as ``best``."""
    floor = _Row(_lost(problem, best), problem.loss)
    order = np.arange(1.0, problem.params_b.size + 1)
    size = problem.params_b / (problem.params_b.sum() or 1.0) + 1e-7 * order / order.sum()
    found = _search(problem, size, time_limit_s, floor)
    return best if found.status != "optimal" or found.assignment is None else found.assignment


def _or_constant(problem: MapProblem, best: Integers | None) -> Integers | None:
    """``best``, or a map of one expert for all categories if that is better."""
    rows, in_time = _rows(problem).values(), problem.in_time
    for expert in np.flatnonzero(in_time.all(axis=0)):
        alone = np.full(problem.shares.size, expert)
        if all(row.total(alone) <= row.limit for row in rows) and (
            best is None or _lost(problem, alone) < _lost(problem, best)
        ):
            best = alone
    return best


def _search(
    problem: MapProblem, objective: Floats, time_limit_s: float | None, *floors: _Row
) -> _Found:
    """The map that makes the objective least and respects every ceiling.

    ``objective`` is weighed like a `_Row`; ``floors`` are further ceilings, on the value lost.
    """
    ceilings = list(_rows(problem).values())
    rows = [*ceilings, *floors]
    open_ = problem.in_time
    for row in rows:
        open_ = open_ & (row.weights <= row.limit)
    if not open_.any(axis=1).all():
        return _Found("infeasible")
    means = any(row.weights.ndim == 2 for row in ceilings)
    lp, x, y = _program(open_, rows, integral=means)
    unit = (float(objective.max()) or 1.0) / SCALE
    lp.setObjective(_sum(objective, unit, x, y))
    while True:
        status, bound = run(lp, time_limit_s)
        if status in ("infeasible", "unknown"):
            return _Found(status, bound=bound * unit)
        assignment = _read(problem, open_, x, y, by_pairs=means or objective.ndim == 2)
        broken = [row for row in rows if row.total(assignment) > row.limit]
        if not broken:
            return _Found(status, assignment, bound * unit)
        if broken[0].weights.ndim == 1:  # so do all larger sets of experts
            used = [y[e] for e in np.unique(assignment).tolist()]
            lp.addConstraint(pulp.lpSum(used) <= len(used) - 1)
        elif means:
            used = [x[c, int(assignment[c])] for c in np.flatnonzero(problem.shares).tolist()]
            lp.addConstraint(pulp.lpSum(used) <= len(used) - 1)
        else:  # the best that these experts can do is too little: another one is needed
            lp.addConstraint(pulp.lpSum(v for v in y.values() if v.varValue < 0.5) >= 1)


def _program(
    open_: NDArray[np.bool_], rows: Iterable[_Row], integral: bool
) -> tuple[Any, dict[tuple[int, int], Any], dict[int, Any]]:
    """The program without its objective, and its variables by open pair and by expert."""
    lp = pulp.LpProblem("map", pulp.LpMinimize)
    kind = "Binary" if integral else "Continuous"
    pairs = np.argwhere(open_).tolist()
    x = {(c, e): lp.add_variable(f"x{c}_{e}", 0, 1, kind) for c, e in pairs}
    y = {e: lp.add_variable(f"y{e}", 0, 1, "Binary") for e in sorted({e for _, e in x})}
    for c in range(open_.shape[0]):
        lp.addConstraint(pulp.lpSum(x[c, e] for e in np.flatnonzero(open_[c]).tolist()) == 1)
    for (_, e), used in x.items():
        lp.addConstraint(used <= y[e])
    for row in rows:
        if row.ceiling > 0:  # else what is open weighs nothing
            lp.addConstraint(_sum(row.weights, row.limit, x, y) <= 1)
    return lp, x, y


def _sum(
    weights: Floats, unit: float, x: Mapping[tuple[int, int], Any], y: Mapping[int, Any]
) -> Any:
    variables: Mapping[Any, Any] = y if weights.ndim == 1 else x
    return pulp.LpAffineExpression([(v, float(weights[k]) / unit) for k, v in variables.items()])


def _read(
    problem: MapProblem,
    open_: NDArray[np.bool_],
    x: Mapping[tuple[int, int], Any],
    y: Mapping[int, Any],
    by_pairs: bool,
) -> Integers:
    """The map of a solution: by its pairs, or the best that its experts can do."""
    pairs = np.zeros(open_.shape)
    for pair, used in x.items():
        pairs[pair] = used.varValue
    assignment = pairs.argmax(axis=1)
    kept = (
        np.unique(assignment) if by_pairs else [e for e, used in y.items() if used.varValue > 0.5]
    )
    able = open_ & np.isin(np.arange(open_.shape[1]), kept)
    best = np.where(able, problem.value, -1.0).argmax(axis=1)
    decided: Integers = np.where((problem.shares > 0) & by_pairs, assignment, best)
    return decided


def _needed(problem: MapProblem, time_limit_s: float | None) -> dict[str, float | None]:
    """Per ceiling, the smallest value that alone would admit a map."""
    rows, needed = _rows(problem), dict[str, float | None]()
    for name in problem.ceilings():
        free = problem.with_ceiling(name, None)
        objective = rows[name].weights if name in rows else np.zeros_like(problem.params_b)
        found = _search(free, objective, time_limit_s)
        if found.status == "infeasible":
            needed[name] = None
        elif name not in rows and found.assignment is not None:
            needed[name] = _least_latency(problem, name, time_limit_s)
        elif found.status == "optimal" and found.assignment is not None:
            needed[name] = rows[name].total(found.assignment)
    return needed


def _least_latency(problem: MapProblem, name: str, time_limit_s: float | None) -> float:
    """The smallest latency that admits a map as the ceiling ``name``, if the largest does."""
    latencies = np.unique(np.asarray(problem.latency_ms)).tolist()

    def admits(ceiling: float) -> bool:
        return not _impossible(problem.with_ceiling(name, ceiling), time_limit_s)

    return float(latencies[bisect_left(latencies[:-1], True, key=admits)])


def _conflict(
    problem: MapProblem, needed: Mapping[str, float | None], time_limit_s: float | None
) -> tuple[str, ...]:
    """Ceilings that cannot hold together, without any that can be left out."""
    for name in problem.ceilings():
        free = problem.with_ceiling(name, None)
        if needed.get(name) is None and _impossible(free, time_limit_s):
            problem = free

    def excess(item: tuple[str, float]) -> float:
        least = needed.get(item[0])
        return least / item[1] if least is not None and item[1] > 0 else np.inf

    return tuple(name for name, _ in sorted(problem.ceilings().items(), key=excess))


def _impossible(problem: MapProblem, time_limit_s: float | None) -> bool:
    return _search(problem, np.zeros_like(problem.params_b), time_limit_s).status == "infeasible"

"""The smallest sets there are, one expert in each category: whether some fit, and with how little.

All that sets use grows with them, so that some sets fit if and only if some of these do. A
mixed-integer program, solved by CBC: ``z_cn``: expert n serves category c; ``y_n``: it is resident.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pulp  # type: ignore[import-untyped]

from coe.optimizer.branch_and_cut import SCALE, Ending, run
from coe.optimizer.figures import Bools, Floats
from coe.optimizer.footprint import exceeded, total_usage
from coe.optimizer.problem import Ceiling, Problem
from coe.optimizer.program import add_memory
from coe.optimizer.rows import Rows, rows_of

_HALF = 0.5


def single_fits(problem: Problem, left_s: Callable[[], float | None]) -> Ending:
    """``optimal`` if one expert for each category fits, ``infeasible`` if not, else ``unknown``.

    Parameters
    ----------
    problem : of sets per category.
    left_s : seconds that may still be taken, none if not positive; ``None`` if there is no end.

    Raises
    ------
    CoeError
        CBC could not be run.
    """
    return _cheapest(problem, np.zeros_like(problem.energy_j), left_s)[0]


def least_usage(
    problem: Problem, ceiling: Ceiling, left_s: Callable[[], float | None]
) -> tuple[Ending, float]:
    """What sets must take of a present ceiling if all others are kept; ``inf`` without a proof.

    One run of CBC, of a latency one for each halving of the latencies there are. Parameters and
    errors as in `single_fits`.
    """
    if ceiling.kind == "max_latency_ms":
        return _least_latency(problem, ceiling, left_s)
    if ceiling.kind == "node_gb":
        assert problem.memory is not None
        assert ceiling.index is not None
        cost = problem.memory.taken(ceiling.index)
    else:
        cost = problem.shares[:, None] * problem.figures(ceiling.kind)
    ending, members = _cheapest(problem.with_ceiling(ceiling, np.inf), cost, left_s)
    if ending != "optimal" or members is None:
        return ending, np.inf
    return ending, total_usage(problem, members)[ceiling.name]


def _least_latency(
    problem: Problem, ceiling: Ceiling, left_s: Callable[[], float | None]
) -> tuple[Ending, float]:
    """Halving: of the latencies of single experts, the first that will do as a ceiling."""
    rows = slice(None) if ceiling.index is None else ceiling.index
    steps = np.unique(problem.latency_ms[rows] + problem.overhead_ms).tolist()
    low, high = 0, len(steps) - 1
    ending = single_fits(problem.with_ceiling(ceiling, steps[high]), left_s)
    if ending == "infeasible":
        return ending, np.inf
    while low < high and ending in ("optimal", "infeasible"):
        middle = (low + high) // 2
        ending = single_fits(problem.with_ceiling(ceiling, steps[middle]), left_s)
        low, high = (middle + 1, high) if ending == "infeasible" else (low, middle)
    known = ending in ("optimal", "infeasible")
    return ("optimal", steps[low]) if known else ("unknown", np.inf)


def _cheapest(
    problem: Problem, cost: Floats, left_s: Callable[[], float | None]
) -> tuple[Ending, Bools | None]:
    """(n_categories, n_experts) single experts of the least cost that fit, if some are found.

    ``cost`` : (n_categories, n_experts) of an expert that serves, or (n_experts,) once resident.
    """
    rows = rows_of(problem)
    open_ = rows.able & np.all(rows.taken <= rows.limits[:, None, None], axis=0)
    if not open_.any(axis=1).all():
        return "infeasible", None
    lp, z = _program(rows, open_, cost)
    while True:
        seconds = left_s()
        if seconds is not None and seconds <= 0:
            return "unknown", None
        ending, _ = run(lp, seconds)
        if ending not in ("optimal", "feasible"):
            return ending, None
        chosen = [pair for pair, used in z.items() if used.varValue > _HALF]
        members = np.zeros(open_.shape, dtype=bool)
        members[tuple(np.array(chosen).T)] = True
        if not exceeded(total_usage(problem, members), problem.ceilings()):
            return ending, members
        # only the tolerance of the solver admits it
        lp.addConstraint(pulp.lpSum(z[pair] for pair in chosen) <= len(chosen) - 1)


def _program(rows: Rows, open_: Bools, cost: Floats) -> tuple[Any, dict[tuple[int, int], Any]]:
    """The program, and its variables by open pair."""
    lp = pulp.LpProblem("singles", pulp.LpMinimize)
    z = {
        (c, n): lp.add_variable(f"z{c}_{n}", 0, 1, "Binary") for c, n in np.argwhere(open_).tolist()
    }
    kept = cost if cost.ndim == 1 else np.zeros(cost.shape[1])
    held = np.flatnonzero(open_.any(axis=0) & (rows.resident.any(axis=0) | (kept > 0))).tolist()
    y = {n: lp.add_variable(f"y{n}", 0, 1, "Binary") for n in held}
    for c in range(len(open_)):
        lp.addConstraint(pulp.lpSum(z[c, n] for n in np.flatnonzero(open_[c]).tolist()) == 1)
    for (_, n), used in z.items():
        if n in y:
            lp.addConstraint(used <= y[n])
    for taken, limit in zip(rows.taken, rows.limits.tolist(), strict=True):
        if limit > 0:  # else what is open takes nothing
            total = [(used, float(taken[pair]) / limit) for pair, used in z.items()]
            lp.addConstraint(pulp.LpAffineExpression(total) <= 1)
    add_memory(lp, rows, y)
    unit = float(cost.max()) / SCALE or 1.0
    paid = y if cost.ndim == 1 else z
    lp.setObjective(
        pulp.LpAffineExpression([(used, float(cost[at]) / unit) for at, used in paid.items()])
    )
    return lp, z

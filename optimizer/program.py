"""Sets of experts by mixed-integer programs: the cross-check, and exact with shared memory.

One set, best member answers: facility location, with ``y_n``: expert n is in the set, ``x_cn``:
it answers category c. One set, sums: a knapsack in ``y``. Sets by category: ``z_cj``: category c
takes bundle j, and ``y_n``: expert n is resident::

    best          max sum_c q_c sum_n w_cn x_cn     sum_n x_cn = 1,  x_cn <= y_n
    sum           max sum_n y_n sum_c q_c w_cn      sum_n y_n >= 1
    per category  max sum_c sum_j v_cj z_cj         sum_j z_cj = 1,  sum_{j with n} z_cj <= y_n

under the ceilings. The k dearest of figures ``f`` take no more than M if and only if some ``t, s``
have ``k t + sum_n s_n <= M, s_n >= f_n y_n - t, s, t >= 0``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pulp  # type: ignore[import-untyped]

from coe.kernels.staircase import closure
from coe.optimizer.branch_and_cut import SCALE, Solver, check_solver, run
from coe.optimizer.figures import Bools, Floats
from coe.optimizer.footprint import exceeded, total_usage
from coe.optimizer.knapsack import Bundles, bundles_of, members_of_bundles
from coe.optimizer.landscape import WORTHLESS
from coe.optimizer.problem import Problem
from coe.optimizer.result import Found
from coe.optimizer.rows import Rows, rows_of
from coe.optimizer.value import over_traffic, value_of

MOST_PROGRAMMED = 12
"""4,096 bundles a category; aggregation ``best`` has as many as experts, and no limit."""

_HALF = 0.5


def program(
    problem: Problem,
    expired: Callable[[], bool],
    solver: Solver = "cbc",
    time_limit_s: float | None = None,
) -> Found:
    """The best sets, to the tolerance of the solver; none that exceed a ceiling.

    ``nodes`` counts variables. When time runs out, ``upper`` is the solver's own bound.

    Parameters
    ----------
    solver : ``cbc``, or ``highs`` if highspy is installed.
    time_limit_s : of each run; the tolerances of a solver may make another one necessary, unless
        the time has ``expired`` by then.

    Raises
    ------
    ValueError
        A shared set with another aggregation than ``best`` or ``sum``; sets by category of more
        than `MOST_PROGRAMMED` experts with another than ``best``; no such solver.
    CoeError
        The solver could not be run.
    """
    check_solver(solver, time_limit_s)
    _check(problem)
    rows = rows_of(problem)
    if not rows.able.any(axis=1).all():
        return Found(None, -np.inf, 0)
    if problem.sets == "shared":
        return _solved(problem, _shared(problem, rows), expired, solver, time_limit_s)
    bundles = [_without_supersets(b, problem) for b in bundles_of(problem, rows)]
    if not all(b.index.size for b in bundles):
        return Found(None, -np.inf, 0)
    worthy = [b.keep(np.flatnonzero(b.values > WORTHLESS)) for b in bundles]
    if all(b.index.size for b in worthy):
        made = _by_category(problem, rows, worthy)
        found = _solved(problem, made, expired, solver, time_limit_s)
        if found.upper > -np.inf:
            return found
    if all(b.index.size == w.index.size for b, w in zip(bundles, worthy, strict=True)):
        return Found(None, -np.inf, 0)
    alike = [replace(b, values=np.zeros(b.values.size)) for b in bundles]
    found = _solved(problem, _by_category(problem, rows, alike), expired, solver, time_limit_s)
    return replace(found, upper=-np.inf)


def _check(problem: Problem) -> None:
    if problem.sets == "shared":
        if problem.aggregation not in ("best", "sum"):
            raise ValueError(
                "a program for a shared set needs the aggregation best or sum, "
                f"not {problem.aggregation!r}"
            )
    elif problem.aggregation != "best" and problem.n_experts > MOST_PROGRAMMED:
        raise ValueError(
            f"a program for sets by category is for at most {MOST_PROGRAMMED} experts unless the "
            f"best member answers, not {problem.n_experts}"
        )


@dataclass(frozen=True, slots=True)
class _Program:
    """A minimisation of what is lost, in units; and how its solution is read.

    Parameters
    ----------
    choices : variables that together are the solution, and what each puts where:
        (n_categories, n_experts).
    unit : of the objective.
    start, top : worth at an objective of 0, and what nothing exceeds.
    """

    lp: Any
    choices: list[tuple[Any, Bools]]
    unit: float
    start: float
    top: float

    @classmethod
    def of(
        cls, lp: Any, lost: list[tuple[Any, float]], choices: list[tuple[Any, Bools]], *worth: float
    ) -> _Program:
        """The program with its objective: what each variable loses of the worth at 0."""
        unit = max((abs(loss) for _, loss in lost), default=0.0) / SCALE or 1.0
        lp.setObjective(pulp.LpAffineExpression([(v, loss / unit) for v, loss in lost]))
        return cls(lp, choices, unit, *worth)


def _solved(
    problem: Problem,
    made: _Program,
    expired: Callable[[], bool],
    solver: Solver,
    time_limit_s: float | None,
) -> Found:
    """What the solver finds; sets that only its tolerance admits are cut off."""
    size = len(made.lp.variables())
    while True:
        status, bound = run(made.lp, time_limit_s, solver)
        if status == "infeasible":
            return Found(None, -np.inf, size)
        upper = min(made.top, made.start - bound * made.unit)
        if status == "unknown":
            return Found(None, upper, size)
        chosen = [(used, where) for used, where in made.choices if used.varValue > _HALF]
        members = np.any([where for _, where in chosen], axis=0)
        if not exceeded(total_usage(problem, members), problem.ceilings()):
            value = _worth(problem, members)
            return Found(members, value if status == "optimal" else max(value, upper), size)
        if expired():
            return Found(None, upper, size)
        made.lp.addConstraint(pulp.lpSum(used for used, _ in chosen) <= len(chosen) - 1)


def _worth(problem: Problem, members: Bools) -> float:
    own = np.diagonal(value_of(problem).of(members))
    return float(over_traffic(problem.shares, own[:, None])[0])


def _shared(problem: Problem, rows: Rows) -> _Program:
    """Facility location, or a knapsack with several rows."""
    assert problem.quality is not None
    lp = pulp.LpProblem("sets", pulp.LpMinimize)
    experts = np.flatnonzero(rows.able[0]).tolist()
    y = {n: lp.add_variable(f"y{n}", 0, 1, "Binary") for n in experts}
    lp.addConstraint(pulp.lpSum(y.values()) >= 1)
    worth = problem.shares[:, None] * problem.quality
    lost: list[tuple[Any, float]] = []
    if problem.aggregation == "sum":
        lost = [(y[n], -float(worth[:, n].sum())) for n in experts]
        start, top = 0.0, float(worth[:, experts].sum())
    else:
        tops = worth[:, experts].max(axis=1)
        start = top = float(tops.sum())
        for c in np.flatnonzero(problem.shares).tolist():
            x = {n: lp.add_variable(f"x{c}_{n}", 0, 1) for n in experts}
            lp.addConstraint(pulp.lpSum(x.values()) == 1)
            for n in experts:
                lp.addConstraint(x[n] <= y[n])
            lost += [(x[n], float(tops[c] - worth[c, n])) for n in experts]
    for figures, limit in zip(rows.taken, rows.limits.tolist(), strict=True):
        _add_mean(lp, problem.k, figures, limit, y)
    add_memory(lp, rows, y)
    where = np.eye(problem.n_experts, dtype=bool)[:, None].repeat(problem.n_categories, axis=1)
    return _Program.of(lp, lost, [(y[n], where[n]) for n in experts], start, top)


def _add_mean(lp: Any, k: int | None, figures: Floats, limit: float, y: dict[int, Any]) -> None:
    """The row of joules or dollars, of all members or the k dearest in every category."""
    scaled = figures / (limit or 1.0)
    most = 1.0 if limit > 0 else 0.0
    if k is None or k >= figures.shape[1]:
        total = pulp.LpAffineExpression([(used, scaled[:, n].sum()) for n, used in y.items()])
        lp.addConstraint(total <= most)
        return
    terms = []
    row = len(lp.variables())  # names differ from those of the other row
    for c, here in enumerate(scaled):
        level = lp.add_variable(f"t{row}_{c}", 0)
        terms.append((level, k))
        for n, used in y.items():
            above = lp.add_variable(f"s{row}_{c}_{n}", 0)
            lp.addConstraint(above >= float(here[n]) * used - level)
            terms.append((above, 1))
    lp.addConstraint(pulp.LpAffineExpression(terms) <= most)


def add_memory(lp: Any, rows: Rows, y: dict[int, Any]) -> None:
    """The rows of memory, for variables that say of each expert whether it is resident."""
    for held, room in zip(rows.resident, rows.room.tolist(), strict=True):
        weights = [(used, float(held[n]) / (room or 1.0)) for n, used in y.items() if held[n] > 0]
        lp.addConstraint(pulp.LpAffineExpression(weights) <= (1.0 if room > 0 else 0.0))


def _without_supersets(bundle: Bundles, problem: Problem) -> Bundles:
    """The sets that are worth more than each of their subsets, which take no more of anything."""
    if problem.aggregation == "best":
        return bundle
    values = np.full(1 << problem.n_experts, -np.inf)
    values[bundle.index] = bundle.values
    _, subset = closure(values)
    # of equals the smaller is named
    return bundle.keep(np.flatnonzero(subset[bundle.index] == bundle.index))


def _by_category(problem: Problem, rows: Rows, bundles: list[Bundles]) -> _Program:
    """A bundle of each category, and who is resident for them."""
    lp = pulp.LpProblem("sets", pulp.LpMinimize)
    limited = np.flatnonzero(rows.resident.any(axis=0)).tolist()
    y = {n: lp.add_variable(f"y{n}", 0, 1, "Binary") for n in limited}
    lost, choices = list[tuple[Any, float]](), list[tuple[Any, Bools]]()
    taken: list[list[tuple[Any, float]]] = [[] for _ in rows.limits]
    for c, bundle in enumerate(bundles):
        n_bundles = bundle.index.size
        z = [lp.add_variable(f"z{c}_{j}", 0, 1, "Binary") for j in range(n_bundles)]
        lp.addConstraint(pulp.lpSum(z) == 1)
        inside = members_of_bundles(problem, bundle.index)
        for n in limited:
            users = [z[j] for j in np.flatnonzero(inside[:, n]).tolist()]
            if users:
                lp.addConstraint(pulp.lpSum(users) <= y[n])
        for row, used in zip(taken, bundle.usage, strict=True):
            row += zip(z, used.tolist(), strict=True)
        lost += zip(z, (bundle.values.max() - bundle.values).tolist(), strict=True)
        for j in range(n_bundles):
            where = np.zeros(rows.able.shape, dtype=bool)
            where[c] = inside[j]
            choices.append((z[j], where))
    for row, limit in zip(taken, rows.limits.tolist(), strict=True):
        lp.addConstraint(pulp.LpAffineExpression(row) <= (1.0 if limit > 0 else 0.0))
    add_memory(lp, rows, y)
    top = float(sum(bundle.values.max() for bundle in bundles))
    return _Program.of(lp, lost, choices, top, top)

"""Why nothing fits, and which budget would do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from coe.optimizer.figures import ROUNDING, Floats
from coe.optimizer.footprint import allowed, usage_alone
from coe.optimizer.map import MapProblem
from coe.optimizer.problem import Problem

_NEVER_MS = 1e15


@dataclass(frozen=True, slots=True)
class Shortfall:
    """What stands in the way of any feasible sets.

    Parameters
    ----------
    binding : the ceiling that is nearest, in proportion, to one that would do; else the one that
        the nearest single expert exceeds most.
    needed : per present ceiling, the smallest value that would do with all others kept; ``None``
        where no value would. A ceiling is absent where that was not worked out.
    """

    binding: str | None
    needed: Mapping[str, float | None] = field(default_factory=dict)


def shortfall(problem: Problem) -> Shortfall | None:
    """What makes the problem infeasible; ``None`` where some sets fit, or that is not known.

    The smallest sets are single experts: if none fits, nothing does. For a set per category that
    is a map of single experts; where it is memory that is short, this is not known.

    Raises
    ------
    CoeError
        The search for a map of one expert each could not be run.
    """
    if problem.sets == "shared":
        return _of_singles(problem)
    if problem.able is not None and not np.all(np.any(problem.able, axis=1)):
        return Shortfall(None)
    return _of_maps(problem)


def _of_singles(problem: Problem) -> Shortfall | None:
    ceilings = problem.ceilings()
    may = np.ones(problem.n_experts, dtype=bool)
    if problem.able is not None:
        may = np.all(problem.able, axis=0)
    if not ceilings or not may.any():
        return None if may.any() else Shortfall(None)
    used = usage_alone(problem)
    over = np.stack([_proportion(used[name], limit) for name, limit in ceilings.items()])
    fit = (over <= 1 + ROUNDING) & may
    if fit.all(axis=0).any():
        return None
    needed: dict[str, float | None] = {}
    for row, name in enumerate(ceilings):
        others = np.delete(fit, row, axis=0).all(axis=0) & may
        needed[name] = float(used[name][others].min()) if others.any() else None
    nearest = int(np.where(may, over.max(axis=0), np.inf).argmin())
    return Shortfall(_nearest(needed, ceilings) or [*ceilings][over[:, nearest].argmax()], needed)


def _of_maps(problem: Problem) -> Shortfall | None:
    """As the problem of one expert per category, memory aside; a solver of maps explains it."""
    from coe.optimizer.milp import solve_map

    ceilings = problem.ceilings()
    limits = np.clip(problem.latency_limits_ms, 0.0, _NEVER_MS / 2)
    alike = isinstance(problem.max_latency_ms, float | int)
    found = solve_map(
        MapProblem(
            value=np.zeros_like(problem.energy_j),
            shares=problem.shares,
            params_b=np.zeros(problem.n_experts),
            latency_ms=np.where(
                allowed(replace(problem, max_latency_ms=None)), problem.latency_ms, _NEVER_MS
            ),
            max_latency_ms=float(limits[0]) if alike else limits,
            energy_j=problem.energy_j,
            max_energy_j=problem.max_energy_j,
            cost_usd=problem.costs_usd,
            max_cost_usd=problem.max_cost_usd,
        )
    )
    if found.status != "infeasible":
        return None
    needed: dict[str, float | None] = {}
    for name, value in found.needed.items():
        timed = value is not None and name.startswith("max_latency_ms")
        least = value + problem.overhead_ms if timed and value is not None else value
        if name in ceilings:
            needed[name] = None if timed and value == _NEVER_MS else least
    return Shortfall(_nearest(needed, ceilings) or next(iter(found.conflict), None), needed)


def _nearest(needed: Mapping[str, float | None], ceilings: Mapping[str, float]) -> str | None:
    """The ceiling that has to be raised least in proportion, of those that would do."""
    factor = {
        name: value / ceilings[name] if ceilings[name] > 0 else np.inf
        for name, value in needed.items()
        if value is not None
    }
    return min(factor, key=lambda name: factor[name]) if factor else None


def _proportion(used: Floats, limit: float) -> Floats:
    """Usages over their ceiling; of a ceiling of nothing, any usage is beyond all measure."""
    if limit > 0:
        return used / limit
    beyond: Floats = np.where(used > 0, np.inf, 0.0)
    return beyond

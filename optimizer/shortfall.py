"""Why nothing fits, and which budget would do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from coe.optimizer.footprint import usage
from coe.optimizer.map import ROUNDING, MapProblem
from coe.optimizer.problem import Problem


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

    The smallest sets are single experts: if none fits, nothing does. For one set each per
    category that is a map, and exact unless memory is short as well.

    Raises
    ------
    CoeError
        The search for a map of one expert each could not be run.
    """
    if problem.sets == "shared":
        return _of_singles(problem)
    # each category might do with an expert of its own: a map of single experts, memory aside
    return None if problem.memory is not None else _of_maps(problem)


def _of_singles(problem: Problem) -> Shortfall | None:
    ceilings = problem.ceilings()
    used = usage(problem, np.eye(problem.n_experts, dtype=bool))
    over = np.array(
        [
            used[name] / limit if limit > 0 else _beyond(used[name])
            for name, limit in ceilings.items()
        ]
    ).reshape(len(ceilings), -1)
    fit = over <= 1 + ROUNDING
    if fit.all(axis=0).any():
        return None
    needed: dict[str, float | None] = {}
    for row, name in enumerate(ceilings):
        others = np.delete(fit, row, axis=0).all(axis=0)
        needed[name] = float(used[name][others].min()) if others.any() else None
    nearest = int(over.max(axis=0).argmin())
    return Shortfall(_nearest(needed, ceilings) or [*ceilings][over[:, nearest].argmax()], needed)


def _of_maps(problem: Problem) -> Shortfall | None:
    """As the problem of one expert per category, which a solver of such maps explains."""
    from coe.optimizer.milp import solve_map

    limit = problem.latency_limits_ms
    single = isinstance(problem.max_latency_ms, float | int)
    found = solve_map(
        MapProblem(
            value=np.zeros_like(problem.energy_j),
            shares=problem.shares,
            params_b=np.zeros(problem.n_experts),
            latency_ms=problem.latency_ms,
            max_latency_ms=None
            if problem.max_latency_ms is None
            else max(float(limit[0]), 0.0)
            if single
            else np.maximum(limit, 0.0),
            energy_j=problem.energy_j,
            max_energy_j=problem.max_energy_j,
            cost_usd=problem.costs_usd,
            max_cost_usd=problem.max_cost_usd,
        )
    )
    if found.status != "infeasible":
        return None
    needed = {
        name: value + problem.overhead_ms
        if value is not None and name.startswith("max_latency_ms")
        else value
        for name, value in found.needed.items()
    }
    ceilings = problem.ceilings()
    return Shortfall(_nearest(needed, ceilings) or next(iter(found.conflict), None), needed)


def _nearest(needed: Mapping[str, float | None], ceilings: Mapping[str, float]) -> str | None:
    """The ceiling that has to be raised least in proportion, of those that would do."""
    factor = {
        name: value / ceilings[name] if ceilings[name] > 0 else np.inf
        for name, value in needed.items()
        if value is not None
    }
    return min(factor, key=lambda name: factor[name]) if factor else None


def _beyond(used: np.ndarray) -> np.ndarray:
    """How far usages exceed a ceiling of nothing: not at all, or without end."""
    return np.where(used > 0, np.inf, 0.0)

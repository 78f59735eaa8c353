"""Why nothing fits, and which budget would do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from coe.optimizer.figures import ROUNDING, Bools, Floats
from coe.optimizer.footprint import total_usage, usage_alone, with_one_more
from coe.optimizer.problem import Problem
from coe.optimizer.singles import least_usage


@dataclass(frozen=True, slots=True)
class Shortfall:
    """What stands in the way of any feasible sets.

    Parameters
    ----------
    binding : the ceiling that is nearest, in proportion, to one that would do; else the one that
        the nearest single experts exceed most. ``None`` where nobody is able.
    needed : per present ceiling, the smallest value that would do with all others kept; ``None``
        where no value would. A ceiling is absent where that was not worked out.
    """

    binding: str | None
    needed: Mapping[str, float | None] = field(default_factory=dict)


def shortfall(problem: Problem, left_s: Callable[[], float | None] = lambda: None) -> Shortfall:
    """What makes an infeasible problem so.

    The smallest sets are single experts: if none fits, nothing does. Of a set per category, one
    each is looked for, `coe.optimizer.singles`; what that does not find in time is left out.

    Parameters
    ----------
    problem : no sets of it fit.
    left_s : seconds that may still be taken; ``None`` if there is no end.

    Raises
    ------
    CoeError
        The search for one expert each could not be run.
    """
    able = np.ones(problem.energy_j.shape, dtype=bool) if problem.able is None else problem.able
    if problem.sets == "shared":
        able = np.broadcast_to(able.all(axis=0), able.shape)
    ceilings = problem.ceilings()
    if not ceilings or not able.any(axis=1).all():
        return Shortfall(None)
    if problem.sets == "shared":
        needed = _needed_of_singles(problem, able[0])
    else:
        needed = {}
        for ceiling in problem.limits():
            ending, least = least_usage(problem, ceiling, left_s)
            if ending in ("optimal", "infeasible"):
                needed[ceiling.name] = least if ending == "optimal" else None
    return Shortfall(_nearest(needed, ceilings) or _most_exceeded(problem, able), needed)


def _needed_of_singles(problem: Problem, may: Bools) -> dict[str, float | None]:
    """Per present ceiling, the least that a single expert takes who keeps all others."""
    ceilings, used = problem.ceilings(), usage_alone(problem)
    fit = np.stack([_proportion(used[name], limit) <= 1 for name, limit in ceilings.items()])
    needed: dict[str, float | None] = {}
    for row, name in enumerate(ceilings):
        others = np.delete(fit, row, axis=0).all(axis=0) & may
        needed[name] = float(used[name][others].min()) if others.any() else None
    return needed


def _most_exceeded(problem: Problem, able: Bools) -> str | None:
    """The ceiling that the nearest single experts, one a category or for all, exceed most.

    Nearest are those whose largest share of any ceiling is least.
    """
    ceilings, nobody = problem.ceilings(), np.zeros(able.shape, dtype=bool)
    alone = with_one_more(problem, nobody, dict.fromkeys(ceilings, 0.0))
    worst = np.max([_proportion(alone[name], limit) for name, limit in ceilings.items()], axis=0)
    if problem.sets == "shared":
        worst = np.broadcast_to(worst.max(axis=0), worst.shape)
    nearest = np.where(able, worst, np.inf).argmin(axis=1)
    used = total_usage(problem, nearest[:, None] == np.arange(problem.n_experts))
    over = {n: float(_proportion(np.array(used[n]), limit)) for n, limit in ceilings.items()}
    return max(over, key=lambda name: over[name])


def _nearest(needed: Mapping[str, float | None], ceilings: Mapping[str, float]) -> str | None:
    """The ceiling that has to be raised least in proportion, of those that would do."""
    factor = {
        name: value / ceilings[name] if ceilings[name] > 0 else np.inf
        for name, value in needed.items()
        if value is not None
    }
    return min(factor, key=lambda name: factor[name]) if factor else None


def _proportion(used: Floats, limit: float) -> Floats:
    """Usages over a ceiling, at most 1 if they fit; any use of a ceiling of nothing is infinite."""
    if limit > 0:
        share: Floats = used / limit / (1 + ROUNDING)
        return share
    beyond: Floats = np.where(used > 0, np.inf, 0.0)
    return beyond

"""One expert out of N, exactly."""

from __future__ import annotations

import numpy as np

from coe.optimizer.problem import AXES, Problem
from coe.optimizer.result import Result


def select(problem: Problem) -> Result:
    """The feasible candidate of the largest utility, with slack and the binding ceiling.

    Ties go to the smaller energy, then to the smaller latency, then to the smaller index.
    A usage equal to its ceiling fits. Enumeration, so exact: O(n_experts log n_experts).

    Without candidates the result is infeasible with nothing needed and nothing nearest.
    """
    if problem.quality.size == 0:
        return Result("infeasible", None, (), -np.inf, None, {}, {}, None)
    utility, excess = problem.utility, problem.excess
    feasible = np.all(excess <= 0, axis=1)
    energy_j, latency_ms = problem.usage[:, 2], problem.usage[:, 0]
    order = np.lexsort((np.arange(utility.size), latency_ms, energy_j, -utility))
    ranking = tuple(int(i) for i in order if feasible[i])
    nearest = int(np.lexsort((-utility, np.max(excess, axis=1)))[0])
    if not ranking:
        return Result(
            status="infeasible",
            index=None,
            ranking=(),
            utility=-np.inf,
            binding=AXES[int(np.argmax(excess[nearest]))],
            slack={},
            needed=_needed(problem),
            nearest=nearest,
        )
    best, unconstrained = ranking[0], int(order[0])
    return Result(
        status="optimal",
        index=best,
        ranking=ranking,
        utility=float(utility[best]),
        binding=None if feasible[unconstrained] else AXES[int(np.argmax(excess[unconstrained]))],
        slack=slack(problem, best),
        needed={},
        nearest=nearest,
    )


def slack(problem: Problem, index: int) -> dict[str, float]:
    """Per present ceiling, what candidate ``index`` leaves of it; negative where it exceeds."""
    return {
        axis: float(problem.ceilings[k] - problem.usage[index, k])
        for k, axis in enumerate(AXES)
        if np.isfinite(problem.ceilings[k])
    }


def violated(problem: Problem, index: int) -> tuple[str, ...]:
    """The ceilings that candidate ``index`` exceeds, in the order of `AXES`."""
    return tuple(axis for axis, over in zip(AXES, problem.excess[index], strict=True) if over > 0)


def _needed(problem: Problem) -> dict[str, float | None]:
    """Per present ceiling, the smallest value that alone would admit a candidate."""
    fits = problem.excess <= 0
    needed: dict[str, float | None] = {}
    for k, axis in enumerate(AXES):
        if np.isfinite(problem.ceilings[k]):
            others_fit = np.all(np.delete(fits, k, axis=1), axis=1)
            needed[axis] = float(problem.usage[others_fit, k].min()) if others_fit.any() else None
    return needed

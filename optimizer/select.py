"""One expert out of N, exactly."""

from __future__ import annotations

import numpy as np

from coe.optimizer.choice import Choice
from coe.optimizer.options import AXES, Options


def select(options: Options) -> Choice:
    """The feasible candidate of the largest utility, with slack and the binding ceiling.

    Ties go to the smaller energy, then to the smaller latency, then to the smaller index.
    A usage equal to its ceiling fits. Enumeration, so exact: O(n_experts log n_experts).

    Without candidates the result is infeasible with nothing needed and nothing nearest.
    """
    if options.quality.size == 0:
        return Choice("infeasible", None, (), -np.inf, None, {}, {}, None)
    utility, excess = options.utility, options.excess
    feasible = np.all(excess <= 0, axis=1)
    energy_j, latency_ms = options.usage[:, 2], options.usage[:, 0]
    order = np.lexsort((np.arange(utility.size), latency_ms, energy_j, -utility))
    ranking = tuple(int(i) for i in order if feasible[i])
    nearest = int(np.lexsort((-utility, np.max(excess, axis=1)))[0])
    if not ranking:
        return Choice(
            status="infeasible",
            index=None,
            ranking=(),
            utility=-np.inf,
            binding=AXES[int(np.argmax(excess[nearest]))],
            slack={},
            needed=_needed(options),
            nearest=nearest,
        )
    best, unconstrained = ranking[0], int(order[0])
    return Choice(
        status="optimal",
        index=best,
        ranking=ranking,
        utility=float(utility[best]),
        binding=None if feasible[unconstrained] else AXES[int(np.argmax(excess[unconstrained]))],
        slack=slack(options, best),
        needed={},
        nearest=nearest,
    )


def slack(options: Options, index: int) -> dict[str, float]:
    """Per present ceiling, what candidate ``index`` leaves of it; negative where it exceeds."""
    return {
        axis: float(options.ceilings[k] - options.usage[index, k])
        for k, axis in enumerate(AXES)
        if np.isfinite(options.ceilings[k])
    }


def violated(options: Options, index: int) -> tuple[str, ...]:
    """The ceilings that candidate ``index`` exceeds, in the order of `AXES`."""
    return tuple(axis for axis, over in zip(AXES, options.excess[index], strict=True) if over > 0)


def _needed(options: Options) -> dict[str, float | None]:
    """Per present ceiling, the smallest value that alone would admit a candidate."""
    fits = options.excess <= 0
    needed: dict[str, float | None] = {}
    for k, axis in enumerate(AXES):
        if np.isfinite(options.ceilings[k]):
            others_fit = np.all(np.delete(fits, k, axis=1), axis=1)
            needed[axis] = float(options.usage[others_fit, k].min()) if others_fit.any() else None
    return needed

"""One expert out of N, exactly."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

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
    order = _order(options, utility)
    ranking = tuple(order[feasible[order]].tolist())
    nearest = int(_nearest(utility, excess)[0])
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


def select_or_decline(
    options: Options, declines: NDArray[np.bool_], nearest: bool
) -> tuple[Choice, Choice | None]:
    """The choice, and where it is to decline, what would have been chosen instead of that.

    Parameters
    ----------
    declines : (n_options,) those that stand for no answer.
    nearest : nobody is declined for a ceiling: who exceeds the ceilings least is chosen before.
    """
    choice = select(options)
    if choice.index is None or not declines[choice.index]:
        return choice, None
    others = np.flatnonzero(~declines).tolist()
    among = select(options.rows(others))
    instead = replace(
        among,
        index=None if among.index is None else others[among.index],
        ranking=tuple(others[k] for k in among.ranking),
        nearest=None if among.nearest is None else others[among.nearest],
    )
    if nearest and instead.index is None and instead.nearest is not None:
        return instead, None
    return choice, instead


def select_each(
    options: Options, able: NDArray[np.bool_], nearest: bool
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """What `select` chooses for each of many requests, and whether that fits the ceilings.

    Parameters
    ----------
    options : of (n_requests, n_experts), n_experts >= 1.
    able : (n_requests, n_experts) who is an option at all.
    nearest : where nobody fits, take who exceeds the ceilings least.

    Returns
    -------
    index : (n_requests,) -1 where there is nobody to choose.
    fits : (n_requests,).
    """
    utility, excess = options.utility, options.excess
    order = _order(options, utility)
    feasible = np.take_along_axis(able & np.all(excess <= 0, axis=-1), order, axis=-1)
    fits: NDArray[np.bool_] = np.any(feasible, axis=-1)
    first = feasible.argmax(axis=-1)[..., None]
    index = np.where(fits, np.take_along_axis(order, first, axis=-1)[..., 0], -1)
    if nearest and not fits.all():
        excess = np.where(able[..., None], excess, np.inf)
        closest = np.where(able.any(axis=-1), _nearest(utility, excess)[..., 0], -1)
        index = np.where(fits, index, closest)
    return index, fits


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


def _order(options: Options, utility: NDArray[np.float64]) -> NDArray[np.int64]:
    """(..., n_experts) the experts of each request, best first, whether they fit or not."""
    energy_j, latency_ms = options.usage[..., 2], options.usage[..., 0]
    # stable: of equal ones the smaller index comes first
    order: NDArray[np.int64] = np.lexsort((latency_ms, energy_j, -utility), axis=-1)
    return order


def _nearest(utility: NDArray[np.float64], excess: NDArray[np.float64]) -> NDArray[np.int64]:
    """(..., n_experts) the experts of each request, the least excess first."""
    order: NDArray[np.int64] = np.lexsort((-utility, np.max(excess, axis=-1)), axis=-1)
    return order


def _needed(options: Options) -> dict[str, float | None]:
    """Per present ceiling, the smallest value that alone would admit a candidate."""
    fits = options.excess <= 0
    needed: dict[str, float | None] = {}
    for k, axis in enumerate(AXES):
        if np.isfinite(options.ceilings[k]):
            others_fit = np.all(np.delete(fits, k, axis=1), axis=1)
            needed[axis] = float(options.usage[others_fit, k].min()) if others_fit.any() else None
    return needed

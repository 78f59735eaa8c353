"""Prices of scarce resources: the minimiser of the dual of choosing under budgets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# at the top price a thousandth of what could be saved is worth a whole point of quality; the
# search goes 24 octaves down from there and ends within a thousandth of the price
_TOP, _OCTAVES, _STEPS = 1e3, 24.0, 14
_SWEEPS = 2


def least_price(value: Floats, use: Floats, per_request: float) -> tuple[float, float, float]:
    """The least price at which the best options take ``per_request`` on average, and a mixture.

    First the price of a unit of use, second one just below it, at which more is taken, third the
    share of requests, 0 to below 1, that may pay the second so that all take ``per_request``. Where
    many requests have one and the same worth, use falls by a step, and neither price alone fits.

    All 0 when they take no more at no price, or when no option would save anything; the top price,
    which is finite and depends on the options alone, when no price saves enough. A smaller
    ``per_request`` never gives a lower price: the mean use of the options that maximise
    ``value - price * use`` falls as the price rises, and the search is a bisection of one fixed
    interval. O(n_requests * n_options).

    It is the minimiser of ``price * per_request + mean(max(value - price * use))``, the dual of
    the linear program over the requests (Agrawal, Wang and Ye 2014, arXiv 0911.2974; Li and Ye
    2022, arXiv 1909.05499; reconstruction, equations ours).

    Parameters
    ----------
    value : (n_requests, n_options) what each option is worth; ``-inf`` where there is none. Every
        request has an option.
    use : (n_requests, n_options) finite, not negative.
    per_request : what may be used, per request.
    """
    rows = np.arange(value.shape[0])

    def mean_use(price: float) -> float:
        return float(use[rows, np.argmax(value - price * use, axis=1)].mean())

    freely = above = mean_use(0.0)
    cheapest = float(np.where(value > -np.inf, use, np.inf).min(axis=1).mean())
    # a difference that is nothing but rounding would make a price out of nothing
    if freely <= per_request or freely - cheapest <= 1e-9 * freely:
        return 0.0, 0.0, 0.0
    top = _TOP / (freely - cheapest)
    low, high, under = -_OCTAVES, 0.0, per_request
    for _ in range(_STEPS):
        middle = (low + high) / 2.0
        taken = mean_use(top * 2.0**middle)
        if taken <= per_request:
            high, under = middle, taken
        else:
            low, above = middle, taken
    share = (per_request - under) / (above - under)
    return float(top * 2.0**high), float(top * 2.0**low), share


def shadow_prices(
    quality: Floats,
    usage: Floats,
    counted: NDArray[np.bool_],
    resource: NDArray[np.intp],
    per_request: Floats,
    start: Floats,
    renewed: Sequence[int] | None = None,
) -> Floats:
    """(n_budgets, 3) price of the resource of each budget, finite, not negative, and its mixture.

    Columns as `least_price`.

    All 0 when the options of the highest quality fit every budget. One budget: exact, as
    `least_price`. Several: those of ``renewed`` take their least price given the others', one
    after another, begun at ``start``; that settles over repeated calls. What a budget that counts
    no request has stays as it was.

    Parameters
    ----------
    quality : (n_requests, n_options); ``-inf`` where there is no option.
    usage : (n_requests, n_options, n_resources) finite, not negative.
    counted : (n_budgets, n_requests) whether a request counts against a budget.
    resource : (n_budgets,) column of ``usage`` that a budget is of.
    per_request : (n_budgets,) what may be used, per request that counts.
    start : (n_budgets, 3) what to begin with, as returned.
    renewed : budgets, in the order in which their prices are to be worked out; by default all of
        several twice.
    """
    n_budgets = per_request.size
    if n_budgets > 1 and _fits(quality, usage, counted, resource, per_request):
        return np.zeros((n_budgets, 3))
    prices = np.array(start, dtype=float)
    if renewed is None:
        renewed = list(range(n_budgets)) * (_SWEEPS if n_budgets > 1 else 1)
    for k in renewed:
        rows = np.flatnonzero(counted[k])
        if rows.size == 0:
            continue
        value = quality[rows]
        for j in np.flatnonzero(prices[:, 0]):
            if j != k:
                value -= (prices[j, 0] * counted[j, rows])[:, None] * usage[rows, :, resource[j]]
        prices[k] = least_price(value, usage[rows, :, resource[k]], float(per_request[k]))
    return prices


def _fits(
    quality: Floats,
    usage: Floats,
    counted: NDArray[np.bool_],
    resource: NDArray[np.intp],
    per_request: Floats,
) -> bool:
    """Whether the options of the highest quality fit every budget that counts a request."""
    best = usage[np.arange(quality.shape[0]), np.argmax(quality, axis=1)]
    means = (
        (best[rows, column].mean(), limit)
        for rows, column, limit in zip(counted, resource, per_request, strict=True)
        if rows.any()
    )
    return all(mean <= limit for mean, limit in means)

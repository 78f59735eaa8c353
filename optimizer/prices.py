"""Prices of ceilings, at which options are weighed against what they take: Lagrange multipliers.

Whatever the prices are, no choice within the ceilings is worth more than the ceilings at their
prices and every category's best option net of what it takes at them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from coe.optimizer.figures import Floats

_STEPS = 50
_STEPS_OF_TWO = 26  # each of them takes as many steps of the other price


def best_prices(values: Floats, usage: Floats) -> Floats:
    """(n_ceilings,) prices at which the bound on all choices is about as low as it gets.

    Parameters
    ----------
    values : (n_categories, n_options); ``-inf`` is no option.
    usage : (n_ceilings, n_categories, n_options) as shares of the ceilings; at most two.
    """
    if len(usage) == 0:
        return np.empty(0)
    present = values > -np.inf
    least = np.where(present, usage, np.inf).min(axis=2).sum(axis=1)
    top = values.max(axis=1).sum() - np.where(present, values, np.inf).min(axis=1).sum()
    highest = top / np.maximum(1.0 - least, 1e-6)
    if len(usage) == 1:
        return np.array([_price(values, usage[0], float(highest[0]), _STEPS)])

    def second(first: float) -> float:
        return _price(values - first * usage[0], usage[1], float(highest[1]), _STEPS_OF_TWO)

    def bound(first: float) -> float:
        other = second(first)
        net = values - first * usage[0] - other * usage[1]
        return float(first + other + net.max(axis=1).sum())

    first = _lowest(bound, float(highest[0]))
    return np.array([first, second(first)])


def _price(values: Floats, usage: Floats, high: float, steps: int) -> float:
    """Where the bound stops falling: what the best options take comes down to the ceiling."""
    low, rows = 0.0, np.arange(len(values))
    if usage[rows, values.argmax(axis=1)].sum() <= 1.0:
        return 0.0
    for _ in range(steps):
        middle = (low + high) / 2
        if usage[rows, (values - middle * usage).argmax(axis=1)].sum() > 1.0:
            low = middle
        else:
            high = middle
    return high


def _lowest(bound: Callable[[float], float], high: float) -> float:
    """Where a convex function of one price is lowest, by golden sections."""
    low, golden = 0.0, (np.sqrt(5.0) - 1) / 2
    left, right = high - golden * high, golden * high
    at_left, at_right = bound(left), bound(right)
    for _ in range(_STEPS_OF_TWO):
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - golden * (high - low)
            at_left = bound(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + golden * (high - low)
            at_right = bound(right)
    return 0.0 if bound(0.0) <= min(at_left, at_right) else float((low + high) / 2)

"""Partial solutions of knapsacks, and which of them others make superfluous."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from coe.kernels.compiled import compiled

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def undominated(usage: Floats, values: Floats) -> Integers:
    """Indices of the labels that no other equals or betters in all usages and in value.

    Of equal labels the first stays. Ascending in the first usage, then in the second, then
    descending in value. O(n log n).

    Parameters
    ----------
    usage : (n_resources, n), at most two resources; without any, one best label stays.
    values : (n,) not NaN.
    """
    if len(usage) == 0:
        best: Integers = np.flatnonzero(values == values.max(initial=-np.inf))[:1]
        return best
    order = np.lexsort((-values, *usage[::-1]))
    ranked = values[order]
    if len(usage) == 1:
        rising = np.ones(order.size, dtype=bool)
        rising[1:] = ranked[1:] > np.maximum.accumulate(ranked)[:-1]
        kept: Integers = order[rising]
        return kept
    _, rank = np.unique(usage[1][order], return_inverse=True)
    return order[_rising(rank, ranked)]


def thinned(bounds: Floats, most: int) -> Integers:
    """At most this many indices, ascending: half of the largest bounds, half evenly spaced.

    The first is among them.
    """
    if bounds.size <= most:
        return np.arange(bounds.size)
    largest = np.argpartition(-bounds, most // 2)[: most // 2]
    spaced = np.linspace(0, bounds.size - 1, most - most // 2).astype(np.int64)
    kept: Integers = np.unique(np.concatenate([largest, spaced]))
    return kept


@compiled("b1[::1](i8[::1], f8[::1])")
def _rising(rank: Integers, values: Floats) -> NDArray[np.bool_]:
    """Whether each value exceeds all earlier ones of no higher rank; prefix maxima in a tree."""
    n = rank.size
    best = np.full(n + 1, -np.inf)
    seen = np.zeros(n + 1, dtype=np.bool_)
    rising = np.zeros(n, dtype=np.bool_)
    for i in range(n):
        most, met = -np.inf, False
        at = rank[i] + 1
        while at > 0:
            most = max(most, best[at])
            met = met or seen[at]
            at -= at & -at
        if values[i] > most or not met:
            rising[i] = True
            at = rank[i] + 1
            while at <= n:
                best[at] = max(best[at], values[i])
                seen[at] = True
                at += at & -at
    return rising

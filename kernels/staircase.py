"""What all sets of experts use and are worth, set by set. Compiled when imported.

Arrays over sets have length ``2 ** n_experts``; entry m is the set of the set bits of m.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from coe.kernels.compiled import compiled

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

_N_BUCKETS = 1024
_LOW_BITS = 10  # a block of sets that stays in the first-level cache


def sums_of_subsets(figures: Floats) -> Floats:
    """(2 ** n_experts,) sum of the members' figures; 0 for the empty set.

    Parameters
    ----------
    figures : (n_experts,) finite.
    """
    total = np.zeros(1 << figures.size)
    for n, figure in enumerate(figures.tolist()):
        np.add(total[: 1 << n], figure, out=total[1 << n : 2 << n])
    return total


def best_of_subsets(scores: Floats, weight: Floats) -> Floats:
    """(2 ** n_experts,) weighted sum over rows of the members' best score; ``-inf`` if empty.

    O(2 ** n_experts n_rows).

    Parameters
    ----------
    scores : (n_rows, n_experts) below infinity.
    weight : (n_rows,) positive.
    """
    total = np.zeros(1 << scores.shape[1])
    n_low = min(scores.shape[1], _LOW_BITS)
    low, high = np.ascontiguousarray(scores[:, :n_low]), np.ascontiguousarray(scores[:, n_low:])
    for row in range(len(scores)):
        _add_best(_best(low[row]), _best(high[row]), weight[row], total)
    total[0] = -np.inf
    return total


def largest_of_subsets(figures: Floats, k: int) -> Floats:
    """(2 ** n_experts,) sum of the k largest figures among the members of each set.

    O(2 ** n_experts) times the steps to the k-th member, about 2 k.

    Parameters
    ----------
    figures : (n_experts,) finite.
    k : at least 1.
    """
    order = np.argsort(-figures, kind="stable")
    return _largest_of_subsets(np.ascontiguousarray(figures), order, k)


def closure(values: Floats) -> tuple[Floats, Integers]:
    """The largest value of any subset of each set, and that subset.

    Of equal subsets one without superfluous members. O(n_experts 2 ** n_experts).

    Parameters
    ----------
    values : (2 ** n_experts,) not NaN; the empty set is a subset of all, ``-inf`` rules it out.
    """
    best, subset = values.copy(), np.arange(values.size)
    _close(best, subset)
    return best, subset


def staircase(usage: Floats, values: Floats) -> Integers:
    """Indices of the steps: no other entry has as much value for as little usage.

    Ascending in usage and in value. Entries without finite usage, or of value ``-inf`` or NaN,
    are no steps; of equal entries the first is. O(n) and a sort of the few that come close.

    Parameters
    ----------
    usage, values : (n,).
    """
    able = np.isfinite(usage)
    if not able.any():
        return np.empty(0, dtype=np.int64)
    low, high = float(usage[able].min()), float(usage[able].max())
    bucket_width = (high - low) / _N_BUCKETS or 1.0
    near = _near_steps(usage, values, low, bucket_width)
    order = near[np.lexsort((near, -values[near], usage[near]))]
    before = np.maximum.accumulate(np.concatenate([[-np.inf], values[order][:-1]]))[: order.size]
    steps: Integers = order[values[order] > before]
    return steps


def _best(scores: Floats) -> Floats:
    """(2 ** n_experts,) best score of every set; ``-inf`` if empty."""
    best = np.full(1 << scores.size, -np.inf)
    for n, score in enumerate(scores.tolist()):
        np.maximum(best[: 1 << n], score, out=best[1 << n : 2 << n])
    return best


@compiled("void(f8[::1], f8[::1], f8, f8[::1])")
def _add_best(low: Floats, high: Floats, weight: float, total: Floats) -> None:
    for h in range(high.size):
        block = total[h * low.size : (h + 1) * low.size]
        for m in range(low.size):
            block[m] += weight * max(high[h], low[m])


@compiled("f8[::1](f8[::1], i8[::1], i8)")
def _largest_of_subsets(figures: Floats, order: Integers, k: int) -> Floats:
    total = np.zeros(1 << figures.size)
    for mask in range(1, total.size):
        taken = 0
        for n in order:
            if mask >> n & 1:
                total[mask] += figures[n]
                taken += 1
                if taken == k:
                    break
    return total


@compiled("void(f8[::1], i8[::1])")
def _close(best: Floats, subset: Integers) -> None:
    bit = 1
    while bit < best.size:
        for start in range(bit, best.size, 2 * bit):
            for mask in range(start, start + bit):
                if best[mask - bit] >= best[mask]:
                    best[mask] = best[mask - bit]
                    subset[mask] = subset[mask - bit]
        bit *= 2


@compiled("i8[::1](f8[::1], f8[::1], f8, f8)")
def _near_steps(usage: Floats, values: Floats, low: float, width: float) -> Integers:
    """Entries worth more than all those of lower buckets of usage."""
    best = np.full(_N_BUCKETS + 2, -np.inf)
    for i in range(usage.size):
        if usage[i] < np.inf and usage[i] > -np.inf:
            above = int((usage[i] - low) / width) + 1
            if values[i] > best[above]:
                best[above] = values[i]
    for b in range(1, best.size):
        best[b] = max(best[b], best[b - 1])
    near = np.empty(usage.size, dtype=np.int64)
    n_near = 0
    for i in range(usage.size):
        if usage[i] < np.inf and usage[i] > -np.inf:
            if values[i] > best[int((usage[i] - low) / width)]:
                near[n_near] = i
                n_near += 1
    return near[:n_near].copy()

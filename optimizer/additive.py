"""A knapsack in real numbers: the shared set of the largest sum of qualities under one ceiling.

Labels are partial solutions that nothing dominates (Nemhauser and Ullmann, Management Science
1969). They start from the solution of the linear relaxation and take up the experts that are
nearest to being indifferent first (the expanding core of Pisinger, Operations Research 1997).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from coe.kernels.labels import thinned, undominated
from coe.optimizer.figures import Bools, Floats, Integers
from coe.optimizer.problem import Problem
from coe.optimizer.result import Found
from coe.optimizer.rows import rows_of

MOST_LABELS = 1 << 13

_NOISE = 1e-10  # of the value: less is no gain


def additive(problem: Problem, expired: Callable[[], bool]) -> Found:
    """The shared set of the largest sum of qualities under one ceiling on a sum.

    Exact, unless time runs out or more than `MOST_LABELS` labels are left; then ``upper`` is
    that of the linear relaxation over what was not looked at. Of equal values the set that
    takes less is preferred. Seldom more than a few thousand labels; O(n_experts) of each.

    Raises
    ------
    ValueError
        Another aggregation, sets by category, a ``k`` below the number of experts, or more
        than one ceiling on a sum that binds.
    """
    rows = rows_of(problem)
    weights, limits = rows.linear
    means_are_sums = problem.k is None or problem.k >= problem.n_experts or not rows.limits.size
    if problem.aggregation != "sum" or problem.sets != "shared" or not means_are_sums:
        raise ValueError("labels are for one shared set whose values and usages add up, without k")
    if len(limits) > 1:
        raise ValueError(f"labels are for one ceiling on a sum, {len(limits)} bind")
    assert problem.quality is not None
    worth = problem.shares @ problem.quality
    weight = weights[0] if len(limits) else np.zeros(problem.n_experts)
    limit = float(limits[0]) if len(limits) else 0.0
    able = np.flatnonzero(rows.able[0] & (weight <= limit))
    if able.size == 0:
        return Found(None, -np.inf, 0)
    chosen, upper, nodes = _fill(worth[able], weight[able], limit, expired)
    members = np.zeros(problem.n_experts, dtype=bool)
    members[able[chosen]] = True
    value = float(worth[members].sum())
    return Found(np.tile(members, (problem.n_categories, 1)), max(value, upper), nodes)


def _fill(
    worth: Floats, weight: Floats, limit: float, expired: Callable[[], bool]
) -> tuple[Bools, float, int]:
    """The best non-empty choice of items that fit alone, a bound, and labels looked at."""
    useful = worth > 0
    if not useful.any():
        return np.arange(worth.size) == np.argmin(weight), 0.0, 1
    if weight[useful].sum() <= limit:
        return useful, float(worth[useful].sum()), 1
    density = np.divide(worth, weight, where=weight > 0, out=np.full(worth.size, np.inf))
    order = np.argsort(-np.where(useful, density, -1.0), kind="stable")
    over = np.cumsum(weight[order]) > limit
    price = float(density[order[np.argmax(over)]])
    start = _first_fit(worth, weight, limit, order)
    return _Core(worth, weight, limit, price).search(start, expired)


def _first_fit(worth: Floats, weight: Floats, limit: float, order: Integers) -> Bools:
    """Whoever still fits, in this order; or the best single item."""
    chosen, left = np.zeros(worth.size, dtype=bool), limit
    for i in order[worth[order] > 0].tolist():
        if weight[i] <= left:
            chosen[i] = True
            left -= weight[i]
    alone = np.arange(worth.size) == np.argmax(worth)
    return chosen if worth[chosen].sum() >= worth.max() else alone


@dataclass(frozen=True, slots=True)
class _Core:
    """Items at a price per unit of the limit: those worth it are in, until a label says no.

    No completion of a label is worth more than its value and the price of what it leaves.
    """

    worth: Floats
    weight: Floats
    limit: float
    price: float

    def search(self, best: Bools, expired: Callable[[], bool]) -> tuple[Bools, float, int]:
        net = self.worth - self.price * self.weight
        regret, inside = np.abs(net), net > 0
        relaxed = float(self.price * self.limit + net[inside].sum())
        noise = _NOISE * relaxed
        sign = np.where(inside, -1.0, 1.0)
        least = float(self.worth[best].sum())
        usage, value = np.array([self.weight[inside].sum()]), np.array([self.worth[inside].sum()])
        flips: list[tuple[int, Integers]] = []
        missed, nodes = -np.inf, 1
        for i in np.argsort(regret, kind="stable").tolist():
            if relaxed - regret[i] <= least + noise:
                break
            if expired():
                missed = max(missed, float((value + self.price * (self.limit - usage)).max()))
                break
            usage = np.concatenate([usage, usage + sign[i] * self.weight[i]])
            value = np.concatenate([value, value + sign[i] * self.worth[i]])
            nodes += usage.size // 2
            fitting = np.where(usage <= self.limit, value, -np.inf)
            at = int(fitting.argmax())
            if fitting[at] > least + noise:
                least = float(fitting[at])
                best = self._trace(inside, flips, i, at, usage.size // 2)
            bound = value + self.price * (self.limit - usage)
            open_ = np.flatnonzero(bound > least + noise)
            kept = open_[undominated(usage[None, open_], value[open_])]
            if kept.size > MOST_LABELS:
                thin = thinned(bound[kept], MOST_LABELS)
                missed = max(missed, float(np.delete(bound[kept], thin).max()))
                kept = kept[thin]
            if kept.size == 0:
                break
            flips.append((i, kept))
            usage, value = usage[kept], value[kept]
        return best, max(least, missed), nodes

    @staticmethod
    def _trace(
        inside: Bools, flips: list[tuple[int, Integers]], item: int, at: int, n_before: int
    ) -> Bools:
        """The solution of a label: of each item, whether an odd number of its flips led there."""
        chosen = inside.copy()
        chosen[item] ^= at >= n_before
        at %= n_before
        for k in range(len(flips) - 1, -1, -1):
            i, kept = flips[k]
            n = flips[k - 1][1].size if k else 1
            at = int(kept[at])
            chosen[i] ^= at >= n
            at %= n
        return chosen

"""How much any feasible sets can be worth: the linear relaxation of facility location, from above.

With ``f(S) = sum_r max_{n in S} a_rn`` and any levels ``u_r``::

    f(S) <= sum_r u_r + sum_{n in S} sum_r max(0, a_rn - u_r)

and the sum over members is no more than that of a fractional knapsack. At ``u_r = max_{n in T}
a_rn`` this is the bound that submodularity gives at T; lower levels are found by subgradients.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from coe.optimizer.figures import Bools, Floats, Integers
from coe.optimizer.problem import Problem
from coe.optimizer.rows import Rows
from coe.optimizer.value import Sum, majorant

_STEPS = 120
_PATIENCE = 6  # steps without a lower bound before they are halved
_MOST_ENTRIES = 5_000_000  # of the scores, over all steps


def relaxed_bound(
    problem: Problem, rows: Rows, members: Bools | None, least: float, expired: Callable[[], bool]
) -> float:
    """No feasible sets are worth more; ``-inf`` only if none are worth anything else.

    O(n_steps n_rows n_experts) over the rows of `coe.optimizer.value.majorant`.

    Parameters
    ----------
    members : (n_categories, n_experts) of good sets, where the search for a bound starts.
    least : what they are worth.
    """
    value = majorant(problem)
    items = _items(problem, rows, value.category if not isinstance(value, Sum) else None)
    if isinstance(value, Sum):
        gains = problem.shares[:, None] * np.where(rows.able, value.quality, 0.0)
        grouped = gains.sum(axis=0)[None] if problem.sets == "shared" else gains
        return items.most(np.where(items.able, grouped, 0.0))[0]
    weight = problem.shares[value.category] * value.row_weight
    busy = weight > 0
    group = value.category[busy] if problem.sets == "per_category" else np.zeros(busy.sum(), int)
    scores = np.where(items.able[group], value.scores[busy], -np.inf) * weight[busy, None]
    if members is None:
        start = scores.max(axis=1)
    else:
        chosen = members[value.category[busy]]
        start = np.max(scores, axis=1, where=chosen, initial=-np.inf)
    return _lowered(scores, group, items, start, least, expired)


@dataclass(frozen=True, slots=True)
class _Items:
    """What a fractional knapsack may take: experts, or experts in a category.

    Parameters
    ----------
    able : (n_groups, n_experts).
    weights : (n_rows, n_groups, n_experts) as shares of the ceilings.
    """

    able: Bools
    weights: Floats

    def most(self, gains: Floats) -> tuple[float, Floats]:
        """The largest sum of gains under the tightest row, and the fractions that reach it."""
        best, fractions = float(gains.sum()), (gains > 0).astype(float)
        positive = np.flatnonzero(gains.ravel() > 0)
        for row in self.weights.reshape(len(self.weights), gains.size)[:, positive]:
            if row.sum() <= 1.0:
                continue
            gain = gains.ravel()[positive]
            order = np.argsort(-np.divide(gain, row, where=row > 0, out=np.full(row.size, np.inf)))
            left = 1.0 - np.concatenate([[0.0], np.cumsum(row[order])[:-1]])
            taken = np.divide(left, row[order], where=row[order] > 0, out=np.ones(row.size))
            taken = np.clip(taken, 0.0, 1.0)
            total = float(gain[order] @ taken)
            if total < best:
                best, fractions = total, np.zeros(gains.size)
                fractions[positive[order]] = taken
                fractions = fractions.reshape(gains.shape)
        return best, fractions


def _items(problem: Problem, rows: Rows, category: Integers | None) -> _Items:
    """Experts, or pairs, that keep every ceiling alone, and what they take of it at the least."""
    shared = problem.sets == "shared"
    taken = rows.taken.sum(axis=1, keepdims=True) if shared else rows.taken
    limits = np.where(rows.limits > 0, rows.limits, 1.0)[:, None, None]
    room = np.where(rows.room > 0, rows.room, 1.0)[:, None, None]
    resident = np.repeat(rows.resident[:, None, :], taken.shape[1], axis=1)
    able = rows.able[: taken.shape[1]]
    able = able & np.all(taken <= rows.limits[:, None, None], axis=0)
    able = able & np.all(resident <= rows.room[:, None, None], axis=0)
    counts = np.zeros(1) if category is None else np.bincount(category)
    most = problem.n_experts if category is None else int(counts.sum() if shared else counts.max())
    # No more members are needed than rows have a best one. Of m > k the k dearest take at
    # least k / m of all; an expert resident for all categories is charged in parts to each.
    share = 1.0 if problem.k is None else min(1.0, problem.k / min(most, problem.n_experts))
    weights = np.concatenate([share * taken / limits, resident / room / taken.shape[1]])
    if len(weights) > 1:  # ceilings that all hold also hold on average
        weights = np.concatenate([weights, weights.mean(axis=0, keepdims=True)])
    return _Items(able, weights)


def _lowered(
    scores: Floats,
    group: Integers,
    items: _Items,
    levels: Floats,
    least: float,
    expired: Callable[[], bool],
) -> float:
    """The lowest bound over levels, by Polyak's steps towards ``least``."""
    tops = scores.max(axis=1)
    lowest = float(tops.sum())
    if lowest == -np.inf or len(items.weights) == 0:
        return lowest
    finite = np.where(scores > -np.inf, scores, np.inf).min(axis=1)
    levels = np.where(levels > -np.inf, levels, finite)
    target = least if least > -np.inf else lowest - abs(lowest) - 1.0
    groups = np.arange(len(items.able))[:, None] == group
    best, pace, idle = levels, 1.0, 0
    for _ in range(max(10, min(_STEPS, _MOST_ENTRIES // scores.size))):
        excess = np.maximum(scores - levels[:, None], 0.0)
        gains = groups @ excess if len(groups) > 1 else excess.sum(axis=0, keepdims=True)
        most, fractions = items.most(gains)
        bound = float(levels.sum()) + most
        slope = 1.0 - np.sum((excess > 0) * fractions[group], axis=1)
        idle += 1
        if bound < lowest - 1e-6 * abs(lowest - target):
            idle, best = 0, levels
        lowest = min(lowest, bound)
        if idle == _PATIENCE:
            pace, idle, levels = pace / 2, 0, best
            continue
        steep = float(slope @ slope)
        if steep < 1e-12 or lowest <= target or expired():
            break
        levels = levels - pace * (bound - target) / steep * slope
    return lowest

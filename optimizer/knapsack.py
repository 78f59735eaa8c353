"""A set for each category under shared ceilings on joules and dollars: multiple-choice knapsacks.

Every category offers bundles, sets with a value and a usage; one of each is to be taken (MoE2 with
sets by category, arXiv 2501.09410; reconstruction, equations ours). CoE's map is the case in which
bundles are single experts. Labels, partial solutions that nothing dominates, grow category by
category; prices of the ceilings (Lagrange multipliers) bound what becomes of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from coe.kernels.labels import thinned, undominated
from coe.kernels.staircase import largest_of_subsets, staircase, sums_of_subsets
from coe.optimizer.enumeration import members_of
from coe.optimizer.figures import Bools, Floats, Integers
from coe.optimizer.landscape import WORTHLESS
from coe.optimizer.prices import best_prices
from coe.optimizer.problem import Problem
from coe.optimizer.result import Found
from coe.optimizer.rows import Rows, rows_of
from coe.optimizer.value import value_of

MOST_LISTED = 16
"""65,536 bundles a category; aggregation ``best`` has as many as experts, and no limit."""

MOST_LABELS = 1 << 14
_FEW_LABELS = 64  # of the first search, for something to beat
_SOME_LABELS = 512  # of the second, which seldom needs more
_MOST_PAIRS = 1 << 22  # labels times bundles at once

_NOISE = 1e-12


@dataclass(frozen=True, slots=True)
class Bundles:
    """What one category may take.

    Parameters
    ----------
    index : (n_bundles,) of the set: bit n is expert n; with ``best``, of the expert.
    values : (n_bundles,) weighed by share; `WORTHLESS` for ``-inf``.
    usage : (n_ceilings, n_bundles) as shares of the ceilings.
    """

    index: Integers
    values: Floats
    usage: Floats

    def keep(self, kept: Integers) -> Bundles:
        """Only these bundles."""
        return Bundles(self.index[kept], self.values[kept], self.usage[:, kept])


def per_category(problem: Problem, expired: Callable[[], bool]) -> Found:
    """The best sets, one a category, under ceilings on joules and dollars.

    Exact, unless time runs out or more than `MOST_LABELS` labels are left; then ``upper`` is the
    Lagrangian bound of what was not looked at. Of equal values sets that take less of what is
    scarce are preferred. O(n_categories 2 ** n_experts) times the value, and a merge of labels
    with the few bundles that the bound leaves for each category.

    Raises
    ------
    ValueError
        The set is shared, a ceiling on memory binds, or there are more than `MOST_LISTED`
        experts and the aggregation is not ``best``.
    """
    rows = rows_of(problem)
    if problem.sets != "per_category" or rows.room.size:
        raise ValueError("labels by category are for sets per_category without binding memory")
    if problem.aggregation != "best" and problem.n_experts > MOST_LISTED:
        raise ValueError(
            f"labels by category are for at most {MOST_LISTED} experts unless the best member "
            f"answers, not {problem.n_experts}"
        )
    bundles = bundles_of(problem, rows)
    if not all(b.index.size for b in bundles):
        return Found(None, -np.inf, 0)
    choice, upper, nodes = _choose(bundles, expired)
    upper = upper if upper > WORTHLESS / 2 else -np.inf
    if choice is None:
        return Found(None, upper, nodes)
    index = np.array([b.index[j] for b, j in zip(bundles, choice, strict=True)])
    value = sum(float(b.values[j]) for b, j in zip(bundles, choice, strict=True))
    value = value if value > WORTHLESS / 2 else -np.inf
    return Found(members_of_bundles(problem, index), max(value, upper), nodes)


def bundles_of(problem: Problem, rows: Rows) -> list[Bundles]:
    """Per category, all sets that alone keep its ceilings; ``best``: all single experts.

    With ``best`` a set is worth as much as one of its members, which alone takes no more of
    anything, whatever ``k`` is: singles are enough.
    """
    made = []
    scale = np.where(rows.limits > 0, rows.limits, 1.0)[:, None]
    for c, share in enumerate(problem.shares.tolist()):
        if problem.aggregation == "best":
            assert problem.quality is not None
            index = np.flatnonzero(rows.able[c])
            values, usage = share * problem.quality[c], rows.taken[:, c]
        else:
            index = np.flatnonzero(sums_of_subsets((~rows.able[c]).astype(float)) == 0)[1:]
            usage = np.array([_subsets(row[c], problem.k) for row in rows.taken])
            usage = usage.reshape(len(rows.limits), 1 << problem.n_experts)
            values = np.zeros(1 << problem.n_experts)
            if share > 0:
                values = share * value_of(problem).totals(np.eye(problem.n_categories)[c])
        index = index[np.all(usage[:, index] <= rows.limits[:, None], axis=0)]
        worth = np.maximum(values[index], WORTHLESS)
        made.append(Bundles(index, worth, usage[:, index] / scale))
    return made


def members_of_bundles(problem: Problem, index: Integers) -> Bools:
    """(n_bundles, n_experts) who is in the bundles of these indices."""
    if problem.aggregation == "best":
        single: Bools = index[:, None] == np.arange(problem.n_experts)
        return single
    return members_of(index, problem.n_experts)


def _subsets(figures: Floats, k: int | None) -> Floats:
    if k is None or k >= figures.size:
        return sums_of_subsets(figures)
    return largest_of_subsets(figures, k)


def _choose(
    bundles: list[Bundles], expired: Callable[[], bool]
) -> tuple[Sequence[int] | None, float, int]:
    """A bundle of each category, a bound on all choices, and labels looked at."""
    short = [_shortlist(b) for b in bundles]
    few = [b.keep(s) for b, s in zip(bundles, short, strict=True)]
    prices = best_prices(*_padded(few))
    first = _Search(few, prices, -np.inf).run(_FEW_LABELS, lambda: False)
    net = [b.values - prices @ b.usage for b in bundles]
    relaxed = float(prices.sum() + sum(n.max() for n in net))
    noise = _NOISE * (1.0 + abs(relaxed))
    choice = None
    if first.choice is not None:
        choice = [int(s[j]) for s, j in zip(short, first.choice, strict=True)]
    if first.value >= relaxed - noise:
        return choice, first.value, first.nodes
    least, missed, nodes = first.value, relaxed, first.nodes
    for most in (_SOME_LABELS, MOST_LABELS):
        kept = [
            _worth_a_look(b, n, relaxed - least - noise) for b, n in zip(bundles, net, strict=True)
        ]
        part = [b.keep(k) for b, k in zip(bundles, kept, strict=True)]
        search = _Search(part, prices, least).run(most, expired)
        least, missed, nodes = max(least, search.value), search.missed, nodes + search.nodes
        if search.choice is not None:
            choice = [int(k[j]) for k, j in zip(kept, search.choice, strict=True)]
        if min(missed, relaxed) <= least + noise:
            break
    return choice, max(least, missed), nodes


def _worth_a_look(bundle: Bundles, net: Floats, room: float) -> Integers:
    """Bundles that lose less than this at the prices, and that none equals or betters."""
    open_ = np.flatnonzero(net.max() - net < room)
    return open_[undominated(bundle.usage[:, open_], bundle.values[open_])]


def _shortlist(bundle: Bundles) -> Integers:
    """Steps along each ceiling and along mixtures of two; with one ceiling nothing else counts."""
    if len(bundle.usage) == 0:
        return np.flatnonzero(bundle.values == bundle.values.max())[:1]
    if len(bundle.usage) == 1:
        return staircase(bundle.usage[0], bundle.values)
    ways = [np.array([w, 1.0 - w]) @ bundle.usage for w in (0.0, 0.25, 0.5, 0.75, 1.0)]
    return np.unique(np.concatenate([staircase(way, bundle.values) for way in ways]))


def _padded(bundles: list[Bundles]) -> tuple[Floats, Floats]:
    """(n_categories, n_bundles) values and their usages; ``-inf`` where there is no bundle."""
    most = max(b.values.size for b in bundles)
    values = np.full((len(bundles), most), -np.inf)
    usage = np.zeros((len(bundles[0].usage), len(bundles), most))
    for c, b in enumerate(bundles):
        worthless = (b.values == WORTHLESS) & (b.values.max() > WORTHLESS)
        values[c, : b.values.size] = np.where(worthless, -np.inf, b.values)
        usage[:, c, : b.values.size] = b.usage
    return values, usage


@dataclass(frozen=True, slots=True)
class _Searched:
    """How a search ended: a better choice than known, and what passed unseen is worth at most."""

    choice: tuple[int, ...] | None
    value: float
    missed: float
    nodes: int


@dataclass(frozen=True, slots=True)
class _Search:
    """Labels over categories, at prices; those that cannot exceed ``least`` are left out."""

    bundles: list[Bundles]
    prices: Floats
    least: float

    def run(self, most: int, expired: Callable[[], bool]) -> _Searched:
        net = [float((b.values - self.prices @ b.usage).max()) for b in self.bundles]
        dear = [b.usage.min(axis=1) for b in self.bundles]
        floor = self.least + _NOISE * (1.0 + abs(self.least)) if self.least > -np.inf else -np.inf
        usage, values = np.zeros((len(self.prices), 1)), np.zeros(1)
        steps: list[tuple[Integers, Integers]] = []
        missed, nodes, later = -np.inf, 0, self.prices.sum() + sum(net)
        bound = values + later
        for c, b in enumerate(self.bundles):
            if expired():
                return _Searched(None, -np.inf, max(missed, float(bound.max())), nodes)
            label, bundle, cut = self._pairs(b, bound, floor)
            missed = max(missed, cut)
            values = values[label] + b.values[bundle]
            usage = usage[:, label] + b.usage[:, bundle]
            nodes += values.size
            later -= net[c]
            bound = values - self.prices @ usage + later
            left = 1.0 - np.sum(dear[c + 1 :], axis=0) if dear[c + 1 :] else np.ones(len(usage))
            open_ = np.flatnonzero(np.all(usage <= left[:, None], axis=0) & (bound > floor))
            kept = open_[undominated(usage[:, open_], values[open_])]
            thin = thinned(bound[kept], most)
            missed = max(missed, float(np.delete(bound[kept], thin).max(initial=-np.inf)))
            kept = kept[thin]
            steps.append((label[kept], bundle[kept]))
            usage, values, bound = usage[:, kept], values[kept], bound[kept]
        if values.size == 0:
            return _Searched(None, -np.inf, missed, nodes)
        at = int(values.argmax())
        return _Searched(self._trace(steps, at), float(values[at]), missed, nodes)

    def _pairs(
        self, bundle: Bundles, bound: Floats, floor: float
    ) -> tuple[Integers, Integers, float]:
        """Labels and the bundles that each can afford to lose on, and the best bound left out."""
        net = bundle.values - self.prices @ bundle.usage
        order = np.argsort(-net, kind="stable")
        loss = net[order[0]] - net[order]
        n_able = np.searchsorted(loss, bound - floor)
        most = bound.size * _MOST_PAIRS // max(1, int(n_able.sum()))
        thin = thinned(bound, max(2, most))
        label = np.repeat(thin, n_able[thin])
        ends = np.cumsum(n_able[thin])
        at = np.arange(label.size) - np.repeat(ends - n_able[thin], n_able[thin])
        return label, order[at], float(np.delete(bound, thin).max(initial=-np.inf))

    @staticmethod
    def _trace(steps: list[tuple[Integers, Integers]], at: int) -> tuple[int, ...]:
        choice = []
        for label, bundle in reversed(steps):
            choice.append(int(bundle[at]))
            at = int(label[at])
        return tuple(reversed(choice))

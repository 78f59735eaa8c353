"""The sets of experts worth considering in each category, whatever budgets and failures come.

A set is worth considering if it is worth more than each of its proper subsets. What sets use grows
with them, so no ceiling, price or load makes any other set better than all its subsets; and where
a set's experts are alive, so are those of its subsets.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from coe.kernels.staircase import closure
from coe.optimizer.enumeration import members_of
from coe.optimizer.figures import Bools, Floats
from coe.optimizer.footprint import allowed, answering, slowest_ms
from coe.optimizer.problem import Problem
from coe.optimizer.value import over_traffic, value_of

MOST_SETS = 256
"""In one menu; beyond, the sets whose dispensable member adds least are left out, never singles."""

MOST_EXPERTS = 16
"""Of whom all sets are listed; of more, single experts only."""


@dataclass(frozen=True, slots=True)
class Menu:
    """Sets for one category, with what they are worth and use there, in ascending order of size.

    Parameters
    ----------
    members : (n_sets, n_experts).
    value : (n_sets,) in the unit of the aggregation.
    energy_j, cost_usd : (n_sets,) of the dearest answers.
    latency_ms : (n_sets,) of the slowest member, overhead included.
    """

    members: Bools
    value: Floats
    energy_j: Floats
    cost_usd: Floats
    latency_ms: Floats

    def rows(self, keep: Bools) -> Menu:
        """The menu of these rows only."""
        return Menu(
            self.members[keep],
            self.value[keep],
            self.energy_j[keep],
            self.cost_usd[keep],
            self.latency_ms[keep],
        )

    def among(self, experts: Bools) -> Menu:
        """The menu of those (n_experts,) who are alive, resident or asked for."""
        return self.rows(~np.any(self.members & ~experts, axis=1))


def menus(problem: Problem) -> tuple[Menu, ...]:
    """One menu per category, or a single one for a shared set; latency is the only ceiling kept.

    With the aggregation ``best`` and sets per category, single experts say it all. Of more than
    `MOST_EXPERTS` only single experts are looked at. O(2 ** n_experts) times the value, per menu.
    """
    able = allowed(problem)
    if problem.sets == "shared":
        return (_menu(problem, problem.shares, np.all(able, axis=0)),)
    traffic = np.eye(problem.n_categories)
    return tuple(_menu(problem, traffic[c], able[c]) for c in range(problem.n_categories))


def _menu(problem: Problem, weight: Floats, able: Bools) -> Menu:
    """The menu over categories of these weights."""
    value, busy = value_of(problem), weight > 0
    if problem.n_experts > MOST_EXPERTS or (problem.aggregation == "best" and busy.sum() == 1):
        members = np.eye(problem.n_experts, dtype=bool)
        worth = over_traffic(weight, value.of(members))
    else:
        members, worth = _worthy(value.totals(weight), problem.n_experts)
    menu = Menu(
        members=members,
        value=worth,
        energy_j=weight @ answering(problem.energy_j, members, problem.k),
        cost_usd=weight @ answering(problem.costs_usd, members, problem.k),
        latency_ms=slowest_ms(problem, members)[busy].max(axis=0),
    )
    return menu.among(able)


def _worthy(values: Floats, n_experts: int) -> tuple[Bools, Floats]:
    """Members and values of the sets that no proper subset equals, singles always."""
    closed, subset = closure(values)
    masks = np.arange(values.size)
    margin = np.where((subset == masks) & (masks > 0), np.inf, -np.inf)
    for n in range(n_experts):
        has = masks >> n & 1 == 1
        gain = np.full(has.sum(), -np.inf)
        worth = values[has]
        np.subtract(worth, closed[masks[has] & ~(1 << n)], out=gain, where=worth > -np.inf)
        margin[has] = np.minimum(margin[has], gain)
    margin[1 << np.arange(n_experts)] = np.inf
    order = np.argsort(-margin, kind="stable")[:MOST_SETS]
    kept = np.sort(order[margin[order] > 0])
    members = members_of(kept, n_experts)
    by_size = np.argsort(members.sum(axis=1), kind="stable")
    return members[by_size], values[kept][by_size]

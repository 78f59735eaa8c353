"""The Pareto staircase over menus: for every budget on one axis, the best sets it affords."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from coe.kernels.staircase import staircase
from coe.optimizer.figures import Floats, Integers
from coe.optimizer.menu import Menu

Axis = Literal["energy_j", "latency_ms", "cost_usd"]
AXES: tuple[Axis, ...] = ("energy_j", "latency_ms", "cost_usd")

MOST_LABELS = 4096
"""Combinations kept while categories are joined; of more, some evenly spread over usage."""


@dataclass(frozen=True, slots=True)
class Step:
    """Sets, one per category, that no others beat at no more usage.

    Parameters
    ----------
    value : mean over the traffic.
    energy_j, cost_usd : means over the traffic.
    latency_ms : of the slowest category.
    rows : (n_categories,) row of each category's menu.
    """

    value: float
    energy_j: float
    latency_ms: float
    cost_usd: float
    rows: tuple[int, ...]


def steps(menus: Sequence[Menu], shares: Floats, axis: Axis) -> tuple[Step, ...]:
    """The staircase of the value over the usage on one axis, ascending in both.

    A budget buys the last step that it covers. None, where some menu is empty. A category without
    traffic has its best set in every step, and its time does not count. A multiple-choice
    knapsack for joules and dollars, solved by joining the categories' staircases: exact while
    there are no more than `MOST_LABELS` combinations that nothing dominates.
    """
    if any(menu.value.size == 0 for menu in menus):
        return ()
    rows = _by_latency(menus, shares) if axis == "latency_ms" else _by_total(menus, shares, axis)
    return tuple(_step(menus, shares, found) for found in rows)


def _by_total(menus: Sequence[Menu], shares: Floats, axis: Axis) -> Integers:
    """(n_steps, n_categories) rows of the menus."""
    used, worth = np.zeros(1), np.zeros(1)
    rows = np.zeros((1, 0), dtype=np.intp)
    for menu, share in zip(menus, shares, strict=True):
        taken, value = share * getattr(menu, axis), share * menu.value
        own = staircase(taken, value) if share > 0 else np.array([menu.value.argmax()])
        all_used = (used[:, None] + taken[own]).ravel()
        all_worth = (worth[:, None] + value[own]).ravel()
        kept = staircase(all_used, all_worth)
        if kept.size > MOST_LABELS:
            kept = kept[np.linspace(0, kept.size - 1, MOST_LABELS).astype(np.intp)]
        used, worth = all_used[kept], all_worth[kept]
        rows = np.column_stack([rows[kept // own.size], own[kept % own.size]])
    return rows


def _by_latency(menus: Sequence[Menu], shares: Floats) -> Integers:
    """As `_by_total`, for the time of the slowest category."""
    found = []
    busy = shares > 0
    for limit in np.unique(np.concatenate([menu.latency_ms for menu in menus])):
        able = [~some | (menu.latency_ms <= limit) for some, menu in zip(busy, menus, strict=True)]
        if all(some.any() for some in able):
            best = [
                np.where(some, menu.value, -np.inf).argmax()
                for some, menu in zip(able, menus, strict=True)
            ]
            found.append(best)
    rows = np.array(found, dtype=np.intp).reshape(len(found), len(menus))
    stairs = [_step(menus, shares, row) for row in rows]
    slowest, worth = [step.latency_ms for step in stairs], [step.value for step in stairs]
    return rows[staircase(np.array(slowest, dtype=float), np.array(worth, dtype=float))]


def _step(menus: Sequence[Menu], shares: Floats, rows: Integers) -> Step:
    chosen = list(zip(menus, rows.tolist(), strict=True))
    times = np.array([menu.latency_ms[row] for menu, row in chosen])
    return Step(
        value=float(shares @ [menu.value[row] for menu, row in chosen]),
        energy_j=float(shares @ [menu.energy_j[row] for menu, row in chosen]),
        latency_ms=float(times[shares > 0].max()),
        cost_usd=float(shares @ [menu.cost_usd[row] for menu, row in chosen]),
        rows=tuple(rows.tolist()),
    )

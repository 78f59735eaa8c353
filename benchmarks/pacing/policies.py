"""Ways to spend a budget: greedily, at fixed prices, at prices of dual descent, paced."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from world import RESOURCES, World

from coe.optimizer.pacing import Allowance, Pacer

Floats = NDArray[np.float64]


def columns(allowances: Sequence[Allowance]) -> list[int]:
    """Of each allowance, its resource's place in `RESOURCES`."""
    return [RESOURCES.index(allowance.resource) for allowance in allowances]


def counted(world: World, allowances: Sequence[Allowance]) -> NDArray[np.bool_]:
    """(n_allowances, T) whether a request counts against an allowance."""
    everyone = np.ones(world.tenant.size, dtype=bool)
    return np.array(
        [everyone if a.tenant is None else world.tenant == a.tenant for a in allowances]
    )


def ranked(worth: Floats, declines: bool) -> Sequence[int]:
    """Experts by worth, best first; none where ``declines`` and none is worth its price."""
    if declines and worth.max() < 0:
        return ()
    order: list[int] = np.argsort(-worth, kind="stable").tolist()
    return order


class Greedy:
    """Always the best expert; if ``kind``, the cheapest once that does not fit."""

    def __init__(self, world: World, allowances: Sequence[Allowance], kind: bool) -> None:
        best = world.quality.argmax(axis=1)
        cheapest = world.expected[:, :, columns(allowances)[0]].argmin(axis=1)
        self._rankings = np.column_stack([best, cheapest] if kind else [best]).tolist()

    def ranking(self, t: int) -> Sequence[int]:
        """The best expert, and perhaps the cheapest."""
        found: list[int] = self._rankings[t]
        return found

    def settle(self, t: int, choice: int) -> None:
        """Nothing to learn."""


class Fixed:
    """Prices that never change."""

    def __init__(
        self, world: World, allowances: Sequence[Allowance], prices: Floats, declines: bool
    ) -> None:
        paid = np.zeros((world.at_s.size, len(RESOURCES)))
        for k, column in enumerate(columns(allowances)):
            paid[:, column] += prices[k] * counted(world, allowances)[k]
        worth = world.quality - np.einsum("tor,tr->to", world.expected, paid)
        self._rankings = np.argsort(-worth, axis=1, kind="stable").tolist()
        self._declined = (declines & (worth.max(axis=1) < 0)).tolist()

    def ranking(self, t: int) -> Sequence[int]:
        """By worth."""
        found: list[int] = [] if self._declined[t] else self._rankings[t]
        return found

    def settle(self, t: int, choice: int) -> None:
        """Nothing to learn."""


class Paced:
    """`Pacer`, as the engine drives it; it may decline where ``declines``.

    Where ``told``, it need not guess how many requests a window brings.
    """

    def __init__(
        self, world: World, allowances: Sequence[Allowance], declines: bool, told: bool = False
    ) -> None:
        self._world, self._declines = world, declines

        coming = {
            allowance: world.at_s[counts]
            for allowance, counts in zip(allowances, counted(world, allowances), strict=True)
        }

        def demand(allowance: Allowance, now_s: float, end_s: float) -> float:
            first, end = np.searchsorted(coming[allowance], (now_s, end_s))
            return float(end - first)

        self._pacer = Pacer(allowances, forecast=demand if told else None)
        self._columns = [RESOURCES.index(name) for name in self._pacer.resources]
        self.history: list[float] = []

    def ranking(self, t: int) -> Sequence[int]:
        """By worth at the running prices."""
        world, pacer = self._world, self._pacer
        now_s, tenant = float(world.at_s[t]), str(world.tenant[t])
        prices = list(pacer.prices(now_s, tenant).values())
        self.history.append(prices[0])
        quality, usage = world.quality[t], world.expected[t][:, self._columns]
        worth = quality - usage @ np.array(prices)
        if self._declines:
            quality = np.append(quality, 0.0)
            usage = np.vstack([usage, np.zeros(len(self._columns))])
        pacer.observe(now_s, quality, usage, tenant)
        return ranked(worth, self._declines)

    def settle(self, t: int, choice: int) -> None:
        """Book what the answer took."""
        spent = self._world.spent[t, choice]
        self._pacer.settle(
            float(self._world.at_s[t]),
            {RESOURCES[c]: float(spent[c]) for c in self._columns},
            str(self._world.tenant[t]),
        )


class Descent:
    """Dual descent (Balseiro, Lu and Mirrokni, arXiv 2011.10124; reconstruction, equations ours).

    After each request a price moves by the step times what the request took over its share of the
    budget, less one, in the exponent. It is told what the pacer has to guess: how many
    requests each window brings, and the mean use of unlimited spending, the unit of its price.
    """

    def __init__(
        self,
        world: World,
        allowances: Sequence[Allowance],
        declines: bool,
        step: float,
    ) -> None:
        self._world, self._declines, self._step = world, declines, step
        self._counted, self._columns = counted(world, allowances), columns(allowances)
        here, best = np.arange(world.at_s.size), world.quality.argmax(axis=1)
        freely = world.spent[here, best]
        self._unit = np.array(
            [
                1.0 / freely[rows, c].mean()
                for rows, c in zip(self._counted, self._columns, strict=True)
            ]
        )
        self._share = np.empty(self._counted.shape)
        for k, allowance in enumerate(allowances):
            window = (world.at_s // allowance.window_s).astype(int)
            n_requests = np.bincount(window[self._counted[k]], minlength=window.max() + 1)
            self._share[k] = allowance.amount / np.maximum(n_requests, 1)[window]
        self._prices = 0.1 * self._unit

    def ranking(self, t: int) -> Sequence[int]:
        """By worth at the prices of now, which then move."""
        world = self._world
        counts = self._counted[:, t]
        usage = world.expected[t][:, self._columns]
        ranking = ranked(world.quality[t] - usage @ (self._prices * counts), self._declines)
        took = usage[ranking[0]] if ranking else 0.0
        move = self._step * counts * (took / self._share[:, t] - 1.0)
        # a bound keeps one long prompt from throwing the price away
        moved = self._prices * np.exp(np.clip(move, -1.0, 1.0))
        self._prices = np.clip(moved, 1e-6 * self._unit, 1e6 * self._unit)
        return ranking

    def settle(self, t: int, choice: int) -> None:
        """The move was made when the request came."""

"""Budgets over time: running prices that make a budget last its window.

Online linear programming with re-solving (Li and Ye 2022, arXiv 1909.05499; Agrawal, Wang and
Ye 2014, arXiv 0911.2974; reconstruction, equations ours): a price is the minimiser of the dual
over the latest requests, with what is left of the budget over the requests still expected as the
right-hand side. Pacing steers, by prices that a selection subtracts from quality. No hard stop.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coe.optimizer.demand import Arrivals
from coe.optimizer.dual import shadow_prices

Floats = NDArray[np.float64]

KEPT = 256
"""How many of the latest requests prices are worked out from."""

# prices are worked out anew after this many requests or this share of the shortest window
_EVERY, _REST = 16, 1.0 / 64.0
# fewer requests than this say too little to make a price of
_ENOUGH = 8
# steps of the golden section spread requests evenly over the two prices of a mixture
_GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0
# memory of the arrival rate, as a share of the window
_MEMORY = 0.25


@dataclass(frozen=True, slots=True)
class Allowance:
    """So much of one resource per window: of one tenant's requests, or (``None``) of all.

    Parameters
    ----------
    name : of the period that it belongs to, for messages.
    may_decline : whether a request that is worth less than its prices is to be refused.

    Raises
    ------
    ValueError
        ``amount`` or ``window_s`` is not positive and finite.
    """

    resource: str
    amount: float
    window_s: float
    tenant: str | None = None
    name: str = ""
    may_decline: bool = False

    def __post_init__(self) -> None:
        for name in ("amount", "window_s"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be positive and finite, not {value!r}")


Forecast = Callable[[Allowance, float, float], float]
"""How many requests will count against an allowance between two moments, such as those that did in
the window before. Not negative, finite."""


class Pacer:
    """Running prices of some allowances. Sees no clock of its own, and is not thread-safe.

    Per request: `prices`, then a selection, then `observe` with the options that there were, and
    in the end `settle` with what it took.

    Parameters
    ----------
    allowances : at least one.
    started_s : when the first window of each begins; the next ones follow without a gap.
    forecast : by default the recent rate goes on.
    """

    def __init__(
        self,
        allowances: Sequence[Allowance],
        started_s: float = 0.0,
        forecast: Forecast | None = None,
    ) -> None:
        if not allowances:
            raise ValueError("allowances must not be empty")
        self.allowances = tuple(allowances)
        self.resources = tuple(dict.fromkeys(a.resource for a in allowances))
        self.started_s = started_s
        self._forecast = forecast
        self._window = [0] * len(allowances)
        self._spent = [0.0] * len(allowances)
        self._arrivals = [Arrivals(a.window_s * _MEMORY, started_s) for a in allowances]
        self._prices = np.zeros((len(allowances), 3))
        self._solved_s = -math.inf
        self._n_new = self._n_seen = 0
        self._turn = 0
        self._sample = _Sample(len(self.resources))

    def prices(self, now_s: float, tenant: str | None = None) -> dict[str, float]:
        """Points of quality per unit of each resource: the sum over the allowances that count.

        0 until there are eight requests to go by, and where the rest of a budget suffices for
        the best options of all requests still expected. Never negative, always finite. Worked
        out anew, one allowance after another and each in O(kept requests * options), once 16
        requests were observed or a 64th of the shortest window has passed per allowance; all at
        once when a window begins; a lookup otherwise. Where many requests have one worth, a
        request pays either of two prices, so that as many of them as the budget allows get more.
        """
        if self._roll(now_s) or self._solved_s == -math.inf:
            self._solve(now_s, None)
        elif self._is_due(now_s):
            self._turn = (self._turn + 1) % len(self.allowances)
            self._solve(now_s, self._turn)
        totals = dict.fromkeys(self.resources, 0.0)
        for allowance, price in zip(self.allowances, self._asked(), strict=True):
            if _counts(allowance, tenant):
                totals[allowance.resource] += price
        return totals

    def observe(
        self, now_s: float, quality: Floats, usage: Floats, tenant: str | None = None
    ) -> None:
        """Take note of a request and of the options that it had.

        Where requests may be declined, that is an option too: no quality, no usage.

        Parameters
        ----------
        quality : (n_options,) expected, less what is paid for it besides; n_options >= 1.
        usage : (n_options, n_resources) expected; columns as in `resources`.

        Raises
        ------
        ValueError
            Shapes disagree, there is no option, a figure is not finite, or a usage is negative.
        """
        self._sample.add(quality, usage, tenant)
        for allowance, arrivals in zip(self.allowances, self._arrivals, strict=True):
            if _counts(allowance, tenant):
                arrivals.add(now_s)
        self._n_new += 1
        self._n_seen += 1

    def settle(self, began_s: float, spent: Mapping[str, float], tenant: str | None = None) -> None:
        """Book what a request took on the windows that it began in; one that is over is left.

        Raises
        ------
        ValueError
            An amount is negative or not finite.
        """
        for resource, amount in spent.items():
            if not (math.isfinite(amount) and amount >= 0):
                raise ValueError(f"{resource} must be finite and not negative, not {amount!r}")
        self._roll(began_s)
        for k, allowance in enumerate(self.allowances):
            if _counts(allowance, tenant) and self._index(k, began_s) == self._window[k]:
                self._spent[k] += spent.get(allowance.resource, 0.0)

    def become(self, allowances: Sequence[Allowance], now_s: float) -> None:
        """Go by other allowances from now on, with all that is known of those that stay.

        One stays that has the name, resource, tenant and window of an old one, whatever its amount:
        what it spent, its arrivals and its price remain. A new one begins in the window of now,
        with nothing spent. Requests are remembered where no new resource would be missing of them.

        Parameters
        ----------
        allowances : at least one.
        """
        if tuple(allowances) == self.allowances:
            return
        other = Pacer(allowances, self.started_s, self._forecast)
        other._roll(now_s)
        old = {_lasting(allowance): k for k, allowance in enumerate(self.allowances)}
        for n, allowance in enumerate(other.allowances):
            other._arrivals[n].since_s = now_s
            if (k := old.get(_lasting(allowance))) is not None:
                other._window[n], other._spent[n] = self._window[k], self._spent[k]
                other._arrivals[n], other._prices[n] = self._arrivals[k], self._prices[k]
        if set(other.resources) <= set(self.resources):
            columns = [self.resources.index(name) for name in other.resources]
            for quality, usage, tenant in self._sample.rows():
                other._sample.add(np.array(quality), np.array(usage)[:, columns], tenant)
        other._n_seen, other._solved_s = self._n_seen, -math.inf
        self.__dict__.update(other.__dict__)

    def left(self, now_s: float) -> tuple[float, ...]:
        """What is left of each allowance in its present window; negative when overspent."""
        self._roll(now_s)
        pairs = zip(self.allowances, self._spent, strict=True)
        return tuple(allowance.amount - spent for allowance, spent in pairs)

    def decliner(self, usage: Mapping[str, float], tenant: str | None = None) -> Allowance | None:
        """The allowance that asks most for ``usage``, per resource, of those that may decline.

        At the prices last worked out; the first one on ties, ``None`` where none asks anything.
        """
        asked = [
            price * usage.get(a.resource, 0.0) * (a.may_decline and _counts(a, tenant))
            for a, price in zip(self.allowances, self._asked(), strict=True)
        ]
        most = int(np.argmax(asked))
        return self.allowances[most] if asked[most] > 0 else None

    def state(self) -> dict[str, Any]:
        """All that it has learned and booked, as plain lists and numbers; JSON can hold it."""
        return {
            "started_s": self.started_s,
            "window": list(self._window),
            "spent": list(self._spent),
            "arrivals": [[a.count, a.at_s if a.count else a.since_s] for a in self._arrivals],
            "prices": self._prices.tolist(),
            "solved_s": self._solved_s if math.isfinite(self._solved_s) else None,
            "n_new": self._n_new,
            "n_seen": self._n_seen,
            "turn": self._turn,
            "sample": self._sample.rows(),
        }

    @classmethod
    def restored(
        cls,
        allowances: Sequence[Allowance],
        state: Mapping[str, Any],
        forecast: Forecast | None = None,
    ) -> Pacer:
        """The pacer of the same allowances that gave this `state`."""
        pacer = cls(allowances, state["started_s"], forecast)
        pacer._window = list(state["window"])
        pacer._spent = list(state["spent"])
        for arrivals, (count, at_s) in zip(pacer._arrivals, state["arrivals"], strict=True):
            arrivals.count, arrivals.at_s = count, at_s
        pacer._prices = np.array(state["prices"], dtype=float)
        pacer._solved_s = -math.inf if state["solved_s"] is None else state["solved_s"]
        pacer._n_new, pacer._n_seen = state["n_new"], state["n_seen"]
        pacer._turn = state["turn"]
        for quality, usage, tenant in state["sample"]:
            pacer._sample.add(np.array(quality), np.array(usage), tenant)
        return pacer

    def _index(self, k: int, at_s: float) -> int:
        return math.floor((at_s - self.started_s) / self.allowances[k].window_s)

    def _roll(self, now_s: float) -> bool:
        """Open the windows of ``now_s``; whether any is new."""
        rolled = False
        for k in range(len(self.allowances)):
            index = self._index(k, now_s)
            if index > self._window[k]:
                self._window[k], self._spent[k], rolled = index, 0.0, True
        # a window that `settle` opened leaves the prices of the old one: solve at the next look
        self._solved_s = -math.inf if rolled else self._solved_s
        return rolled

    def _asked(self) -> list[float]:
        """The price of each allowance for the request at hand: one of the two of its mixture."""
        place = (self._n_seen * _GOLDEN) % 1.0
        return [below if place < share else price for price, below, share in self._prices.tolist()]

    def _is_due(self, now_s: float) -> bool:
        n_turns = len(self.allowances)
        rest_s = min(allowance.window_s for allowance in self.allowances) * _REST
        return n_turns * self._n_new >= _EVERY or n_turns * (now_s - self._solved_s) >= rest_s

    def _solve(self, now_s: float, turn: int | None) -> None:
        """Work out the price of the allowance whose turn it is, or (``None``) all prices."""
        self._n_new, self._solved_s = 0, now_s
        counted = np.array([self._sample.counted(a) for a in self.allowances])
        counted &= counted.sum(axis=1, keepdims=True) >= _ENOUGH
        if not counted.any():
            return
        per_request = []
        for k, left in enumerate(self.left(now_s)):
            end_s = self.started_s + (self._window[k] + 1) * self.allowances[k].window_s
            if self._forecast is None:
                expected = self._arrivals[k].per_s(now_s) * (end_s - now_s)
            else:
                expected = self._forecast(self.allowances[k], now_s, end_s)
            per_request.append(max(left, 0.0) / max(expected, 1.0))
        self._prices = shadow_prices(
            self._sample.quality,
            self._sample.usage,
            counted,
            np.array([self.resources.index(a.resource) for a in self.allowances]),
            np.array(per_request),
            self._prices,
            None if turn is None else (turn,),
        )


class _Sample:
    """The latest requests with their options, in arrays that widen to the most options."""

    def __init__(self, n_resources: int) -> None:
        self.quality: Floats = np.empty((0, 0))
        self.usage: Floats = np.empty((0, 0, n_resources))
        self._tenants: list[str | None] = []
        self._oldest = 0

    def add(self, quality: Floats, usage: Floats, tenant: str | None) -> None:
        n_options = quality.size
        if n_options == 0 or quality.ndim != 1:
            raise ValueError("quality must have shape (n_options,), at least one")
        if usage.shape != (n_options, self.usage.shape[2]):
            raise ValueError(f"usage must have shape ({n_options}, {self.usage.shape[2]})")
        if not (np.isfinite(quality).all() and np.isfinite(usage).all() and (usage >= 0).all()):
            raise ValueError("quality and usage must be finite, usage not negative")
        row = self._oldest
        self._widen(min(max(len(self._tenants), row + 1), KEPT), n_options)
        self.quality[row], self.usage[row] = -np.inf, 0.0
        self.quality[row, :n_options], self.usage[row, :n_options] = quality, usage
        self._tenants[row : row + 1] = [tenant]
        self._oldest = (row + 1) % KEPT

    def counted(self, allowance: Allowance) -> NDArray[np.bool_]:
        return np.array([_counts(allowance, tenant) for tenant in self._tenants], dtype=bool)

    def rows(self) -> list[list[Any]]:
        """Options and tenant of each request, oldest first."""
        n_rows = len(self._tenants)
        first = self._oldest if n_rows == KEPT else 0
        found = []
        for row in ((first + k) % n_rows for k in range(n_rows)):
            there = self.quality[row] > -np.inf
            options = self.quality[row, there].tolist(), self.usage[row, there].tolist()
            found.append([*options, self._tenants[row]])
        return found

    def _widen(self, n_rows: int, n_options: int) -> None:
        more = (max(n_rows - len(self.quality), 0), max(n_options - self.quality.shape[1], 0))
        if any(more):
            pads = [(0, more[0]), (0, more[1])]
            self.quality = np.pad(self.quality, pads, constant_values=-np.inf)
            self.usage = np.pad(self.usage, [*pads, (0, 0)])


def _lasting(allowance: Allowance) -> tuple[str, str, str | None, float]:
    """What makes an allowance the same one as before."""
    return allowance.name, allowance.resource, allowance.tenant, allowance.window_s


def _counts(allowance: Allowance, tenant: str | None) -> bool:
    return allowance.tenant is None or allowance.tenant == tenant

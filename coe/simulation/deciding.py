"""Decisions as `coe serve` takes them, for many requests at once."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from coe.core import Policy, Prices
from coe.offers import Offers
from coe.optimizer.options import Options, ceilings_of, prices_of
from coe.optimizer.pacing import Pacer
from coe.optimizer.select import select, select_each
from coe.optimizer.steering import decliner, note, running_prices, sum_of
from coe.simulation.foreseen import N_TIMES, Caps, Foreseen, Offered, foresee
from coe.simulation.outlook import Outlook
from coe.simulation.workload import Workload

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

REFUSED = -1
BLOCK = 4096
"""Requests of which everything but the load is worked out at once."""

_NO_CEILINGS, _NO_PRICES = np.full(4, np.inf), Prices()


@dataclass(slots=True)
class Deciding:
    """Chooses experts by their estimates under a load, with the selection of `coe.router`.

    Parameters
    ----------
    policy : ceilings and prices of every request.
    offers : what a plan leaves to choose from; ``None``: every expert alone.
    """

    outlook: Outlook
    workload: Workload
    policy: Policy
    offers: Offers | None = None
    _caps: Caps = field(init=False)
    _offered: Offered | None = field(init=False)
    _slots: Floats = field(init=False)
    _block: Foreseen | None = None

    def __post_init__(self) -> None:
        self._caps = Caps.of(self.outlook, self.workload, self.policy.budget)
        self._offered = None if self.offers is None else Offered.of(self.offers, self.outlook)
        self._slots = np.array([float(spec.slots) for spec in self.outlook.specs])

    def foreseen(self, request: int) -> Foreseen:
        """The block of requests that holds this one."""
        if self._block is None or not self._block.first <= request < self._block.last:
            first = request - request % BLOCK
            rows = slice(first, min(first + BLOCK, self.workload.n_requests))
            self._block = foresee(self.outlook, self.workload, self._caps, self._offered, rows)
        return self._block

    def options(
        self, rows: slice, n_in_flight: Integers, slowdown: Floats, running: Prices = _NO_PRICES
    ) -> Options:
        """What the requests of ``rows``, all of one block, may choose from.

        Parameters
        ----------
        n_in_flight, slowdown : (n_rows, n_experts) or (n_experts,) the loads that they find.
        running : what budgets over time add to the policy's prices.
        """
        foreseen = self.foreseen(rows.start)
        part = slice(rows.start - foreseen.first, rows.stop - foreseen.first)
        stretch = slowdown * np.maximum((n_in_flight + 1) / self._slots, 1.0)
        usage, paid = foreseen.cautious[part].copy(), foreseen.mean[part].copy()
        for figures in (usage, paid):
            figures[..., :N_TIMES] *= stretch[..., None]
        return Options(
            quality=foreseen.quality[part],
            usage=usage,
            ceilings=ceilings_of(self.policy.budget),
            prices=prices_of(sum_of(self.policy.prices, running)),
            expected_usage=paid,
        )

    def choose(
        self, rows: slice, n_in_flight: Integers, slowdown: Floats
    ) -> tuple[Integers, NDArray[np.bool_]]:
        """(n_rows,) who answers each request of ``rows``, or `REFUSED`, and whether it fits.

        Parameters as for `options`.
        """
        foreseen = self.foreseen(rows.start)
        able = foreseen.able[rows.start - foreseen.first : rows.stop - foreseen.first]
        options = self.options(rows, n_in_flight, slowdown)
        return select_each(options, able, self.policy.on_infeasible == "nearest")

    def choose_paced(
        self, request: int, n_in_flight: Integers, slowdown: Floats, pacer: Pacer
    ) -> tuple[int, bool]:
        """As `choose`, for one request at the running prices of its moment, which learn of it.

        As in `coe.engine`: a request that some budget declines counts as demand.
        """
        foreseen, now_s = self.foreseen(request), float(self.workload.at_s[request])
        able = np.flatnonzero(foreseen.able[request - foreseen.first])
        running = running_prices(pacer, now_s)
        options = self.options(slice(request, request + 1), n_in_flight, slowdown, running)
        options = _of_one(options, able)
        choice = select(options)
        index = choice.taken(self.policy.on_infeasible)
        if index is None:
            return REFUSED, False
        fitting = options.rows([index, *(k for k in choice.ranking if k != index)])
        refused = decliner(pacer, options.rows([index]))
        note(pacer, now_s, _at_prices(fitting, self.policy.prices))
        return REFUSED if refused else int(able[index]), choice.index is not None


def _of_one(options: Options, able: Integers) -> Options:
    """The first request's options that are able."""
    assert options.expected_usage is not None
    paid = options.expected_usage[0, able]
    quality, usage = options.quality[0, able], options.usage[0, able]
    return Options(quality, usage, options.ceilings, options.prices, paid)


def _at_prices(options: Options, prices: Prices) -> Options:
    """These options without ceilings, at other prices."""
    return Options(
        options.quality, options.usage, _NO_CEILINGS, prices_of(prices), options.expected_usage
    )

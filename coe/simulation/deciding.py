"""Decisions as `coe serve` takes them, for many requests at once."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from coe.core import Policy
from coe.offers import Offers
from coe.optimizer.options import Options, ceilings_of, prices_of
from coe.optimizer.pacing import Pacer
from coe.optimizer.select import select, select_each
from coe.optimizer.steering import decliner, note, running_prices, sum_of
from coe.simulation.foreseen import N_TIMES, Admission, Caps, Foreseen, Offered, foresee
from coe.simulation.outlook import Outlook
from coe.simulation.workload import Workload

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

REFUSED = -1
BLOCK = 4096
"""Requests of which everything but the load is worked out at once."""

_NO_CEILINGS = np.full(4, np.inf)


@dataclass(slots=True)
class Deciding:
    """Chooses experts by their estimates under a load, with the selection of `coe.router`.

    Parameters
    ----------
    policy : ceilings, prices and experts of every request.
    offers : what a plan leaves to choose from; ``None``: every expert alone.
    """

    outlook: Outlook
    workload: Workload
    policy: Policy
    offers: Offers | None = None
    _caps: Caps = field(init=False)
    _admission: Admission = field(init=False)
    _offered: Offered | None = field(init=False)
    _slots: Floats = field(init=False)
    _ceilings: Floats = field(init=False)
    _block: Foreseen | None = None

    def __post_init__(self) -> None:
        self._caps = Caps.of(self.outlook, self.workload, self.policy.budget)
        self._admission = Admission.of(self.policy, self.outlook)
        self._offered = None if self.offers is None else Offered.of(self.offers, self.outlook)
        self._slots = np.array([float(spec.slots) for spec in self.outlook.specs])
        self._ceilings = ceilings_of(self.policy.budget)

    def foreseen(self, request: int) -> Foreseen:
        """The block of requests that holds this one."""
        if self._block is None or not self._block.first <= request < self._block.last:
            first = request - request % BLOCK
            rows = slice(first, min(first + BLOCK, self.workload.n_requests))
            self._block = foresee(
                self.outlook, self.workload, self._caps, self._admission, self._offered, rows
            )
        return self._block

    def choose(
        self, rows: slice, n_in_flight: Integers, slowdown: Floats
    ) -> tuple[Integers, NDArray[np.bool_]]:
        """(n_rows,) who answers each request of ``rows``, or `REFUSED`, and whether it fits.

        Parameters
        ----------
        rows : all of one block, with both ends.
        n_in_flight, slowdown : (n_rows, n_experts) or (n_experts,) the loads that they find.
        """
        able, quality, usage, paid = self._under(rows, n_in_flight, slowdown)
        options = Options(quality, usage, self._ceilings, prices_of(self.policy.prices), paid)
        return select_each(options, able, self.policy.on_infeasible == "nearest")

    def choose_paced(
        self, request: int, n_in_flight: Integers, slowdown: Floats, pacer: Pacer
    ) -> tuple[int, bool]:
        """As `choose`, for one request at the running prices of its moment, which learn of it.

        As in `coe.engine`: a request that some budget declines counts as demand.
        """
        now_s, own = float(self.workload.at_s[request]), self.policy.prices
        one = self._under(slice(request, request + 1), n_in_flight, slowdown)
        able = np.flatnonzero(one[0][0])
        quality, usage, paid = (figures[0, able] for figures in one[1:])
        running = running_prices(pacer, now_s)
        prices = prices_of(sum_of(own, running))
        options = Options(quality, usage, self._ceilings, prices, paid)
        choice = select(options)
        index = choice.taken(self.policy.on_infeasible)
        if index is None:
            return REFUSED, False
        refused = None if options.utility[index] >= 0 else decliner(pacer, options.rows([index]))
        order = [index, *(k for k in choice.ranking if k != index)]
        fitting = quality[order], usage[order], _NO_CEILINGS, prices_of(own), paid[order]
        note(pacer, now_s, Options(*fitting))
        return REFUSED if refused else int(able[index]), choice.index is not None

    def _under(
        self, rows: slice, n_in_flight: Integers, slowdown: Floats
    ) -> tuple[NDArray[np.bool_], Floats, Floats, Floats]:
        """Who is able, quality, and under a load what cautious and what mean answers take."""
        foreseen = self.foreseen(rows.start)
        part = slice(rows.start - foreseen.first, rows.stop - foreseen.first)
        stretch = slowdown * np.maximum((n_in_flight + 1) / self._slots, 1.0)
        usage, paid = foreseen.cautious[part].copy(), foreseen.mean[part].copy()
        for figures in (usage, paid):
            figures[..., :N_TIMES] *= stretch[..., None]
        return foreseen.able[part], foreseen.quality[part], usage, paid

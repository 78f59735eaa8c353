"""What is held and spent of hard limits, as gauges that are read when somebody scrapes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from coe.ledger.amounts import NOTHING, Amounts
from coe.ledger.book import Ledger
from coe.ledger.protocol import Store
from coe.services.store.books import Books

_SCALES = (("energy_j", 1e-6), ("cost_usd", 1e-6), ("tokens", 1.0), ("requests", 1.0))
"""Resources as they are shown, in the order of `Amounts`, and what one of each is."""


@dataclass(slots=True, eq=False)
class LedgerCollector(Collector):
    """Sums over the holders of a limit, in the windows of now; holders are not named.

    Who holds an account may be anybody's words, and there may be very many.

    Parameters
    ----------
    ledger : the books of this gateway with the wall clock in ms; ``None``: there are none.
    """

    ledger: Callable[[], tuple[Ledger, int] | None] = lambda: None

    def collect(self) -> Iterator[Metric]:
        """One family for each of ceiling, held, spent, and the share taken by the fullest."""
        labels = ("limit", "resource")
        ceilings = GaugeMetricFamily(
            "coe_ledger_ceiling", "Ceiling of a hard limit, for every holder.", labels=labels
        )
        held = GaugeMetricFamily("coe_ledger_held", "Held now, by all holders.", labels=labels)
        spent = GaugeMetricFamily(
            "coe_ledger_spent", "Spent in this window, by all holders.", labels=labels
        )
        fullest = GaugeMetricFamily(
            "coe_ledger_fullest", "Share taken by the holder who took most.", labels=labels
        )
        found = self.ledger()
        if found is not None:
            ledger, now_ms = found
            for limit in ledger.limits:
                balances = [
                    balance
                    for account, balance in ledger.accounts.items()
                    if account.limit == limit.name
                    and account.started_ms <= now_ms < account.ends_ms
                ]
                all_held = _summed(balance.held for balance in balances)
                all_spent = _summed(balance.spent for balance in balances)
                for k, (resource, unit) in enumerate(_SCALES):
                    if (ceiling := limit.ceilings()[k]) is None:
                        continue
                    most = max((balance.taken[k] for balance in balances), default=0)
                    named = (limit.name, resource)
                    ceilings.add_metric(named, ceiling * unit)
                    held.add_metric(named, all_held[k] * unit)
                    spent.add_metric(named, all_spent[k] * unit)
                    fullest.add_metric(named, most / ceiling if ceiling else 1.0)
        yield from (ceilings, held, spent, fullest)


def balances_of(store: Store | None) -> tuple[Ledger, int] | None:
    """The books of a store and the time on their clock; ``None``: this process keeps none."""
    books = getattr(store, "books", None)
    return (books.ledger, books.now_ms()) if isinstance(books, Books) else None


def _summed(amounts: Iterator[Amounts]) -> Amounts:
    total = NOTHING
    for one in amounts:
        total = total.plus(one)
    return total

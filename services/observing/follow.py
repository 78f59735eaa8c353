"""Gauges that look at what a gateway serves, whenever somebody scrapes."""

from __future__ import annotations

from collections.abc import Callable

from coe.crowd import Crowd
from coe.engine import Engine
from coe.guard.guards import Figures
from coe.ledger.book import Ledger
from coe.services.observing.metrics import Metrics
from coe.services.store.books import Books


def follow(metrics: Metrics, engine: Callable[[], Engine], crowd: Crowd) -> None:
    """Have metrics show who is inside, how experts are guarded, and the balances of hard limits.

    Parameters
    ----------
    engine : the one that serves now.
    """

    def balances() -> tuple[Ledger, int] | None:
        books = getattr(engine().store, "books", None)
        return (books.ledger, books.now_ms()) if isinstance(books, Books) else None

    def figures() -> Figures:
        serving = engine()
        return serving.guards.figures(serving.now())

    metrics.ledger.ledger, metrics.guards.figures = balances, figures
    metrics.inside.set_function(lambda: crowd.n)
    metrics.inside_limit.set_function(lambda: crowd.most)

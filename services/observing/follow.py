"""Gauges that look at what a gateway serves, whenever somebody scrapes."""

from __future__ import annotations

from collections.abc import Callable

from coe.crowd import Crowd
from coe.engine import Engine
from coe.guard.guards import Figures
from coe.services.observing.ledger import balances_of
from coe.services.observing.metrics import Metrics


def follow(metrics: Metrics, engine: Callable[[], Engine], crowd: Crowd) -> None:
    """Have metrics show who is inside, how experts are guarded, and the balances of hard limits.

    Parameters
    ----------
    engine : the one that serves now.
    """

    def figures() -> Figures:
        serving = engine()
        return serving.guards.figures(serving.now())

    metrics.ledger.ledger = lambda: balances_of(engine().store)
    metrics.guards.figures = figures
    metrics.inside.set_function(lambda: crowd.n)
    metrics.inside_limit.set_function(lambda: crowd.most)

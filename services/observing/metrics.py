"""Prometheus metrics of one gateway."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Info,
    ProcessCollector,
    generate_latest,
)

import coe
from coe.energy import EnergyAccount
from coe.errors.callers import BudgetExhaustedError
from coe.services.enduring import UNFORESEEN
from coe.services.observing.answers import Answers
from coe.services.observing.counts import Counts
from coe.services.observing.exchange import Exchange
from coe.services.observing.guards import GuardCollector
from coe.services.observing.ledger import LedgerCollector
from coe.services.observing.spread import Spread, Spreads
from coe.services.reloading import Outcome
from coe.shadow import OUTCOMES, Comparison

_LAG_SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)


@dataclass(slots=True)
class Metrics:
    """Counters of what the gateway did; a registry of its own, so that tests do not share.

    Attributes
    ----------
    answers : counted as their receipts come.
    n_in_flight : requests being answered.
    inside, inside_limit : to be given functions that say so.
    ledger : where the balances of hard limits are read.
    guards : where it is read how experts are guarded.
    log_lines : by what became of them.
    """

    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    answers: Answers = field(init=False)
    requests: Counts = field(init=False)
    refusals: Counts = field(init=False)
    ledger_refusals: Counts = field(init=False)
    n_in_flight: int = 0
    loop_lag: Spread = field(init=False)
    log_lines: Gauge = field(init=False)
    reloads: Counter = field(init=False)
    stale: Gauge = field(init=False)
    shadow: Gauge = field(init=False)
    shadow_difference: Gauge = field(init=False)
    metered: Gauge = field(init=False)
    inside: Gauge = field(init=False)
    inside_limit: Gauge = field(init=False)
    ledger: LedgerCollector = field(init=False)
    guards: GuardCollector = field(init=False)

    def __post_init__(self) -> None:
        r = self.registry
        self.answers = Answers(r)
        self.requests = Counts(
            "coe_requests", "HTTP requests by route and status.", ("route", "status"), r
        )
        self.refusals = Counts("coe_refusals", "Requests refused, by code.", ("code",), r)
        self.ledger_refusals = Counts(
            "coe_ledger_refusals",
            "Requests that a hard limit did not leave enough for.",
            ("limit", "resource"),
            r,
        )
        in_flight = Gauge("coe_in_flight", "Requests being answered.", registry=r)
        in_flight.set_function(lambda: self.n_in_flight)
        self.loop_lag = Spreads(
            "coe_loop_lag_seconds", "How late the event loop is.", (), _LAG_SECONDS, r
        ).of()
        self.log_lines = Gauge(
            "coe_log_lines", "Lines of the log, by what became of them.", ("fate",), registry=r
        )
        self.metered = Gauge(
            "coe_meter_joules", "Joules that a machine's meter counted, and whose they are.",
            ("machine", "part"), registry=r,
        )  # fmt: skip
        self.reloads = Counter(
            "coe_reloads", "Readings of the configuration, by outcome.", ("outcome",), registry=r
        )
        self.stale = Gauge(
            "coe_config_refused", "1 while the files on disk are refused, else 0.", registry=r
        )
        self.shadow = Gauge(
            "coe_shadow_decisions", "Decisions of a second router, by what they come to.",
            ("outcome",), registry=r,
        )  # fmt: skip
        self.shadow_difference = Gauge(
            "coe_shadow_difference", "Sum of what it predicts beyond the first router's choice.",
            ("figure",), registry=r,
        )  # fmt: skip
        build = Info("coe_build", "What runs.", registry=r)
        build.info({"version": coe.__version__, "python": platform.python_version()})
        self.inside = Gauge("coe_inside", "HTTP requests that were let in.", registry=r)
        self.inside_limit = Gauge(
            "coe_inside_limit", "HTTP requests that are let in at once.", registry=r
        )
        self.ledger, self.guards = LedgerCollector(), GuardCollector()
        r.register(self.ledger)
        r.register(self.guards)
        r.register(UNFORESEEN)
        ProcessCollector(registry=r)
        GCCollector(registry=r)

    def tell(self, exchange: Exchange) -> None:
        """Count a request that has ended, however it ended."""
        self.requests.of(exchange.route, str(exchange.status)).add()
        if exchange.code:
            self.refusals.of(exchange.code).add()
        if isinstance(exchange.error, BudgetExhaustedError):
            limit, _, resource = (exchange.error.param or "").rpartition(".")
            self.ledger_refusals.of(limit.removeprefix("limits."), resource).add()
        if (reply := exchange.reply) is not None and reply.receipt is not None:
            self.answers.settle(reply.decision, reply.receipt, reply.request)
        self.answers.note(exchange.steps.done, exchange.decided)

    def shadowed(self, comparison: Comparison) -> None:
        """Say how a second router compares with the first, under the present configuration."""
        said = comparison.document()
        for outcome in OUTCOMES:
            self.shadow.labels(outcome).set(said[outcome])
        for figure, total in comparison.sums.items():
            self.shadow_difference.labels(figure).set(total)

    def reloaded(self, outcome: Outcome) -> None:
        """Count a reading of the configuration."""
        self.reloads.labels(outcome.status).inc()
        self.stale.set(outcome.status == "refused")

    def page(self, machines: Mapping[str, EnergyAccount]) -> bytes:
        """The text that Prometheus scrapes.

        Parameters
        ----------
        machines : accounts of the machines whose joules are measured, by name.
        """
        for name, account in machines.items():
            parts = {
                "metered": account.metered_j,
                "idle": account.idle_j,
                "requests": account.requests_j,
                "carried": account.carried_j,
            }
            for part, energy_j in parts.items():
                self.metered.labels(name, part).set(energy_j)
        return generate_latest(self.registry)

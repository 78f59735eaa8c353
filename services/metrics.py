"""Prometheus metrics of one gateway."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from coe.decision import Decision, Receipt
from coe.energy import EnergyAccount
from coe.services.reloading import Outcome
from coe.shadow import OUTCOMES, Comparison

_SECONDS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
_DECIDE_SECONDS = (0.0003, 0.001, 0.002, 0.005, 0.01, 0.03, 0.1)


@dataclass(slots=True)
class Metrics:
    """Counters of what the gateway did; a registry of its own, so that tests do not share."""

    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    answers: Counter = field(init=False)
    refusals: Counter = field(init=False)
    failovers: Counter = field(init=False)
    escalations: Counter = field(init=False)
    early_ends: Counter = field(init=False)
    joules: Counter = field(init=False)
    dollars: Counter = field(init=False)
    tokens: Counter = field(init=False)
    decide: Histogram = field(init=False)
    ttft: Histogram = field(init=False)
    latency: Histogram = field(init=False)
    in_flight: Gauge = field(init=False)
    metered: Gauge = field(init=False)
    reloads: Counter = field(init=False)
    stale: Gauge = field(init=False)
    shadow: Gauge = field(init=False)
    shadow_difference: Gauge = field(init=False)

    def __post_init__(self) -> None:
        r = self.registry
        expert = ("expert",)
        self.answers = Counter(
            "coe_answers", "Answers by expert, category and outcome.",
            ("expert", "category", "outcome"), registry=r,
        )  # fmt: skip
        self.refusals = Counter("coe_refusals", "Requests refused, by code.", ("code",), registry=r)
        self.failovers = Counter(
            "coe_failovers", "Experts that did not answer.", expert, registry=r
        )
        self.escalations = Counter(
            "coe_escalations", "Cascades that were not sure enough, by what became of that.",
            ("outcome",), registry=r,
        )  # fmt: skip
        self.early_ends = Counter(
            "coe_early_ends", "Answers of several experts that did not wait for all.", registry=r
        )
        self.joules = Counter(
            "coe_energy_joules", "Joules of answers.", ("expert", "source"), registry=r
        )
        self.dollars = Counter("coe_cost_usd", "Dollars of answers.", expert, registry=r)
        self.tokens = Counter("coe_tokens", "Tokens.", ("expert", "kind"), registry=r)
        self.decide = Histogram(
            "coe_decide_seconds", "Time of one decision.", buckets=_DECIDE_SECONDS, registry=r
        )
        self.ttft = Histogram(
            "coe_ttft_seconds", "Time to the first piece.", expert, buckets=_SECONDS, registry=r
        )
        self.latency = Histogram(
            "coe_latency_seconds", "Time of a whole answer.", expert, buckets=_SECONDS, registry=r
        )
        self.in_flight = Gauge("coe_in_flight", "Requests being answered.", registry=r)
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
            "coe_shadow_difference", "Mean of what it predicts beyond the first router's choice.",
            ("figure",), registry=r,
        )  # fmt: skip

    def settle(self, decision: Decision, receipt: Receipt) -> None:
        """Count a finished answer; what it took counts for the experts that took it."""
        name = receipt.expert_id
        self.answers.labels(name, decision.category.name, receipt.outcome).inc()
        for failed in receipt.failed_over:
            self.failovers.labels(failed).inc()
        for part in receipt.parts or (receipt,):
            self.joules.labels(part.expert_id, part.energy_source).inc(part.energy_j)
            self.dollars.labels(part.expert_id).inc(part.cost_usd)
            self.tokens.labels(part.expert_id, "prompt").inc(part.prompt_tokens)
            self.tokens.labels(part.expert_id, "output").inc(part.output_tokens)
        if (agreed := receipt.agreement) is not None:
            self.early_ends.inc(bool(agreed.cancelled))
            if agreed.escalation != "none":
                self.escalations.labels(agreed.escalation).inc()
        self.decide.observe(decision.decide_ms / 1000)
        self.ttft.labels(name).observe(receipt.ttft_ms / 1000)
        self.latency.labels(name).observe(receipt.latency_ms / 1000)

    def shadowed(self, comparison: Comparison) -> None:
        """Say how a second router compares with the first, under the present configuration."""
        said = comparison.document()
        for outcome in OUTCOMES:
            self.shadow.labels(outcome).set(said[outcome])
        for figure, value in said["mean_difference"].items():
            self.shadow_difference.labels(figure).set(value or 0.0)

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

"""What answers took, by expert: counters and histograms, and how they kept to their ceilings."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry

from coe.core import Budget, Request
from coe.decision import Decision, Receipt
from coe.optimizer.options import AXES
from coe.services.observing.counts import Count, Counts
from coe.services.observing.labels import Bound
from coe.services.observing.spread import Spread, Spreads
from coe.steps import Step

SECONDS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
STEP_SECONDS = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 10.0)
TOKEN_SECONDS = (0.003, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0)
SLACK = (-1.0, -0.5, -0.1, 0.0, 0.1, 0.25, 0.5, 0.75, 0.9)
DECIDE_SECONDS = (0.0003, 0.001, 0.002, 0.005, 0.01, 0.03, 0.1)

_NO_CEILINGS = Budget()


@dataclass(frozen=True, slots=True)
class Delivered:
    """The histograms of the answers that an expert delivered."""

    ttft: Spread
    latency: Spread
    token: Spread


@dataclass(frozen=True, slots=True)
class Spent:
    """The counters of what an expert took."""

    energy_j: Count
    cost_usd: Count
    prompt_tokens: Count
    output_tokens: Count


@dataclass(slots=True)
class Answers:
    """Counts answers as their receipts come."""

    registry: CollectorRegistry
    answers: Counts = field(init=False)
    failovers: Counts = field(init=False)
    escalations: Counts = field(init=False)
    violations: Counts = field(init=False)
    slack: Spreads = field(init=False)
    steps: Spreads = field(init=False)
    delivered: Bound[Delivered] = field(init=False)
    spent: Bound[Spent] = field(init=False)
    copies: Count = field(init=False)
    early_ends: Count = field(init=False)
    decide: Spread = field(init=False)

    def __post_init__(self) -> None:
        r = self.registry
        self.answers = Counts(
            "coe_answers",
            "Answers by expert, category and outcome.",
            ("expert", "category", "outcome"),
            r,
        )
        self.failovers = Counts("coe_failovers", "Experts that did not answer.", ("expert",), r)
        self.escalations = Counts(
            "coe_escalations",
            "Cascades that were not sure enough, by what became of that.",
            ("outcome",),
            r,
        )
        self.violations = Counts(
            "coe_ceiling_violations",
            "Answers that were measured above a ceiling.",
            ("resource",),
            r,
        )
        self.slack = Spreads(
            "coe_ceiling_slack", "Share of a ceiling that an answer left; below 0: exceeded.",
            ("resource",), SLACK, r,
        )  # fmt: skip
        self.steps = Spreads(
            "coe_step_seconds", "Time of the steps of a request.", ("step",), STEP_SECONDS, r
        )
        self.copies = Counts("coe_cache_hits", "Answers that were copies.", (), r).of()
        self.early_ends = Counts(
            "coe_early_ends", "Answers of several experts that did not wait for all.", (), r
        ).of()
        self.decide = Spreads(
            "coe_decide_seconds", "Time of one decision.", (), DECIDE_SECONDS, r
        ).of()
        self.delivered = Bound(_delivered(r))
        self.spent = Bound(_spent(r))

    def settle(self, decision: Decision, receipt: Receipt, request: Request) -> None:
        """Count a finished answer; what it took counts for the experts that took it."""
        name = receipt.expert_id
        self.answers.of(name, decision.category.name, receipt.outcome).add()
        for failed in receipt.failed_over:
            self.failovers.of(failed).add()
        for part in receipt.parts or (receipt,):
            spent = self.spent.of(part.expert_id, part.energy_source)
            spent.energy_j.add(part.energy_j)
            spent.cost_usd.add(part.cost_usd)
            spent.prompt_tokens.add(part.prompt_tokens)
            spent.output_tokens.add(part.output_tokens)
        if (agreed := receipt.agreement) is not None:
            self.early_ends.add(bool(agreed.cancelled))
            if agreed.escalation != "none":
                self.escalations.of(agreed.escalation).add()
        self.copies.add(receipt.copied_from is not None)
        self.decide.observe(decision.decide_ms / 1000)
        self._deliver(receipt, request)
        if decision.budget != _NO_CEILINGS:
            self._compare(receipt, request)

    def note(self, steps: Iterable[Step], decision: Decision | None) -> None:
        """Count the steps of a request, and those of its decision."""
        for step in steps:
            if not step.error:
                self.steps.of(step.name).observe(step.ended_s - step.started_s)
        if decision is not None:
            for name, took_ms in decision.steps_ms.items():
                self.steps.of(f"decide.{name}").observe(took_ms / 1000)

    def _deliver(self, receipt: Receipt, request: Request) -> None:
        delivered = self.delivered.of(receipt.expert_id)
        delivered.ttft.observe(receipt.ttft_ms / 1000)
        delivered.latency.observe(receipt.latency_ms / 1000)
        # an elected answer comes at once, and so does a whole one
        passed_on = request.stream and receipt.agreement is None
        if passed_on and receipt.output_tokens > 1:
            between_ms = (receipt.latency_ms - receipt.ttft_ms) / (receipt.output_tokens - 1)
            delivered.token.observe(between_ms / 1000)

    def _compare(self, receipt: Receipt, request: Request) -> None:
        """What the answer left of the ceilings of its request, all of it measured."""
        complete = receipt.outcome == "complete"
        for axis in AXES:
            given = [c for b in (request.budget, request.policy.budget) if (c := getattr(b, axis))]
            if not given:
                continue
            ceiling = min(given)
            left = 1.0 - getattr(receipt, axis) / ceiling
            if left < 0:
                self.violations.of(axis).add()
            if complete:
                self.slack.of(axis).observe(left)


def _delivered(registry: CollectorRegistry) -> Callable[[str], Delivered]:
    expert = ("expert",)
    ttft = Spreads("coe_ttft_seconds", "Time to the first piece.", expert, SECONDS, registry)
    latency = Spreads("coe_latency_seconds", "Time of a whole answer.", expert, SECONDS, registry)
    token = Spreads(
        "coe_token_seconds", "Mean time between the tokens of a stream.", expert, TOKEN_SECONDS,
        registry,
    )  # fmt: skip

    def of(name: str) -> Delivered:
        return Delivered(ttft.of(name), latency.of(name), token.of(name))

    return of


def _spent(registry: CollectorRegistry) -> Callable[[str, str], Spent]:
    joules = Counts("coe_energy_joules", "Joules of answers.", ("expert", "source"), registry)
    dollars = Counts("coe_cost_usd", "Dollars of answers.", ("expert",), registry)
    tokens = Counts("coe_tokens", "Tokens.", ("expert", "kind"), registry)

    def of(name: str, source: str) -> Spent:
        return Spent(
            joules.of(name, source),
            dollars.of(name),
            tokens.of(name, "prompt"),
            tokens.of(name, "output"),
        )

    return of

"""The section of ``coe.yaml`` about experts that fail or are full, and the guards that it makes."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Annotated

from pydantic import Field

from coe.guard.circuit import Ejection
from coe.guard.group import Group
from coe.guard.guards import Guards
from coe.guard.hedging import Hedging
from coe.guard.lag import Lag
from coe.guard.retries import Retries
from coe.kinds import ExpertSection, HttpSection
from coe.yamlfile import NonNegative, Positive, Section


class ResilienceSection(Section):
    """When replicas are left out, how long requests wait for room, what is tried again.

    See `coe.guard.circuit.Ejection`, `coe.guard.group.Group` and `coe.guard.retries.Retries`.
    """

    failures_in_a_row: Annotated[int, Field(gt=0)] = 5
    least_success: Annotated[float, Field(ge=0, le=1)] = 0.8
    success_window_s: Positive = 30.0
    success_requests: Annotated[int, Field(gt=0)] = 20
    ejected_s: Positive = 30.0
    ejected_most_s: Positive = 300.0
    queue_wait_s: NonNegative = 2.0
    retry_percent: Annotated[int, Field(ge=0, le=100)] = 10
    retries_per_s: NonNegative = 1.0

    def guards(self, experts: Sequence[ExpertSection]) -> Guards:
        """Of these experts, about which nothing is known yet."""
        rules = Ejection(
            failures=self.failures_in_a_row,
            success=self.least_success,
            window_s=self.success_window_s,
            requests=self.success_requests,
            base_s=self.ejected_s,
            most_s=self.ejected_most_s,
        )
        rng, lag = Random(), Lag()
        groups = {
            expert.id: Group(
                expert.id,
                slots=expert.slots if is_limited(expert) else None,
                patience_s=expert.first_token_timeout_s,
                rules=rules,
                wait_s=self.queue_wait_s,
                lag=lag,
                rng=rng,
            )
            for expert in experts
        }
        retries = Retries(self.retry_percent, self.retries_per_s)
        return Guards(groups, retries, lag, {e.id: Hedging() for e in experts if e.hedge})


def is_limited(expert: ExpertSection) -> bool:
    """Whether requests for an expert wait in the gateway once its slots are taken.

    Unless its section says so itself: those for an address of which the slots are stated. Engines
    of ours have a queue, by which fleets are scaled.
    """
    if expert.limit != "auto":
        return expert.limit == "adaptive"
    return isinstance(expert, HttpSection) and "slots" in expert.model_fields_set

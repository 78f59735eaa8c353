"""``budgets.yaml``: what one request may take, and what all of them may per window."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import model_validator

from coe.core import Budget, Policy, Prices
from coe.optimizer.pacing import Allowance
from coe.yamlfile import Name, NonNegative, Positive, Section, read_yaml


class _CeilingSection(Section):
    latency_ms: Positive | None = None
    ttft_ms: Positive | None = None
    energy_j: Positive | None = None
    cost_usd: Positive | None = None


class _PriceSection(Section):
    per_second: NonNegative = 0.0
    per_joule: NonNegative = 0.0
    per_usd: NonNegative = 0.0


class PolicySection(Section):
    """One named policy of ``budgets.yaml``."""

    description: str = ""
    ceilings: _CeilingSection = _CeilingSection()
    prices: _PriceSection = _PriceSection()
    on_infeasible: Literal["reject", "nearest"] = "reject"


class PeriodSection(Section):
    """What all requests together may take per window."""

    window_s: Positive
    energy_j: Positive | None = None
    cost_usd: Positive | None = None
    may_decline: bool = False

    @model_validator(mode="after")
    def _limits_something(self) -> PeriodSection:
        if self.energy_j is None and self.cost_usd is None:
            raise ValueError("this period limits nothing: give it energy_j, cost_usd or both")
        return self


class Budgets(Section):
    """The whole of ``budgets.yaml``; the policy ``default`` serves ``model: auto``."""

    policies: dict[Name, PolicySection]
    periods: dict[Name, PeriodSection] | None = None

    @model_validator(mode="after")
    def _has_default(self) -> Budgets:
        if "default" not in self.policies:
            raise ValueError("there is no policy named 'default': add one, it serves model 'auto'")
        return self

    def as_policies(self) -> dict[str, Policy]:
        """Every policy by name."""
        return {
            name: Policy(
                name=name,
                budget=Budget(**section.ceilings.model_dump()),
                prices=Prices(**section.prices.model_dump()),
                on_infeasible=section.on_infeasible,
                description=section.description,
            )
            for name, section in self.policies.items()
        }

    def as_allowances(self) -> tuple[Allowance, ...]:
        """The budgets of every period, in the order of the file."""
        return tuple(
            Allowance(
                resource, amount, section.window_s, name=name, may_decline=section.may_decline
            )
            for name, section in (self.periods or {}).items()
            for resource in ("energy_j", "cost_usd")
            if (amount := getattr(section, resource)) is not None
        )


def load_budgets(path: Path) -> Budgets:
    """The policies and periods in a ``budgets.yaml``.

    Raises
    ------
    ConfigError
        As for `coe.config.load_config`.
    """
    return read_yaml(path, Budgets)


def load_policies(path: Path) -> dict[str, Policy]:
    """The policies alone, where nothing is answered.

    Raises
    ------
    ConfigError
        As for `coe.config.load_config`.
    """
    return load_budgets(path).as_policies()

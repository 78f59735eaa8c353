"""``budgets.yaml``: what one request may take."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import model_validator

from coe.core import Budget, Policy, Prices
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


class Budgets(Section):
    """The whole of ``budgets.yaml``; the policy ``default`` serves ``model: auto``."""

    policies: dict[Name, PolicySection]

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


def load_policies(path: Path) -> dict[str, Policy]:
    """The policies in a ``budgets.yaml``.

    Raises
    ------
    ConfigError
        As for `coe.config.load_config`.
    """
    return read_yaml(path, Budgets).as_policies()

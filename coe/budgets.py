"""``budgets.yaml``: what one request may take, and what all of them may per window."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from coe.core import MOST_EXPERTS, Budget, Policy, Prices
from coe.ledger.amounts import MOST
from coe.ledger.limits import Limit, Scope
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


class _ExpertsSection(Section):
    """Experts that never take part, and experts that always do."""

    ban: list[str] = Field(default=[])
    force: list[str] = Field(default=[])

    @field_validator("ban", "force")
    @classmethod
    def _exist(cls, names: list[str], info: ValidationInfo) -> list[str]:
        known = info.context or names
        for name in names:
            if name not in known:
                raise ValueError(f"there is no expert {name!r}; there are {', '.join(known)}")
        return names

    @model_validator(mode="after")
    def _agree(self) -> _ExpertsSection:
        for name in self.force:
            if name in self.ban:
                raise ValueError(f"{name!r} is both banned and forced: keep one")
        return self


class PolicySection(Section):
    """One named policy of ``budgets.yaml``."""

    description: str = ""
    ceilings: _CeilingSection = _CeilingSection()
    prices: _PriceSection = _PriceSection()
    on_infeasible: Literal["reject", "nearest"] = "reject"
    combine: Literal["never", "whole", "always"] = "whole"
    most_experts: Annotated[int, Field(ge=1, le=MOST_EXPERTS)] | None = None
    local_only: bool = False
    experts: _ExpertsSection = _ExpertsSection()


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


_Millions = Annotated[float, Field(ge=1e-6, le=MOST // 10**6, allow_inf_nan=False)]
_Count = Annotated[int, Field(gt=0, le=MOST)]


class LimitSection(Section):
    """What every holder of a scope may take per window, and not a joule, dollar or token more."""

    scope: Scope
    of: str | None = None
    window_s: Annotated[int, Field(gt=0, le=MOST // 10**6)]
    energy_j: _Millions | None = None
    cost_usd: _Millions | None = None
    tokens: _Count | None = None
    requests: _Count | None = None

    @model_validator(mode="after")
    def _limits_something(self) -> LimitSection:
        if not any((self.energy_j, self.cost_usd, self.tokens, self.requests)):
            raise ValueError(
                "this limit limits nothing: give it energy_j, cost_usd, tokens or requests"
            )
        if self.scope == "global" and self.of is not None:
            raise ValueError("a global limit is for all: leave out `of`, or choose another scope")
        return self

    def limit(self, name: str) -> Limit:
        """The noun that the ledger sees; ceilings are cut to whole millionths."""
        return Limit(
            name=name,
            scope=self.scope,
            window_s=self.window_s,
            energy_uj=None if self.energy_j is None else int(round(self.energy_j * 1e6, 3)),
            cost_uusd=None if self.cost_usd is None else int(round(self.cost_usd * 1e6, 3)),
            tokens=self.tokens,
            requests=self.requests,
            of=self.of,
        )


class Budgets(Section):
    """The whole of ``budgets.yaml``; the policy ``default`` serves ``model: auto``."""

    policies: dict[Name, PolicySection]
    periods: dict[Name, PeriodSection] | None = None
    limits: dict[Name, LimitSection] | None = None

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
                combine=section.combine,
                most_experts=section.most_experts,
                local_only=section.local_only,
                ban=frozenset(section.experts.ban),
                force=frozenset(section.experts.force),
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

    def as_limits(self) -> tuple[Limit, ...]:
        """The hard limits, in the order of the file."""
        return tuple(section.limit(name) for name, section in (self.limits or {}).items())


def load_budgets(path: Path, experts: Collection[str] = ()) -> Budgets:
    """The policies, periods and limits in a ``budgets.yaml``.

    Parameters
    ----------
    experts : those that policies may name; any, where none are given.

    Raises
    ------
    ConfigError
        As for `coe.config.load_config`; or a policy names an expert that does not exist.
    """
    return read_yaml(path, Budgets, list(experts))


def load_policies(path: Path, experts: Collection[str] = ()) -> dict[str, Policy]:
    """The policies alone, where nothing is answered.

    Raises
    ------
    ConfigError
        As for `load_budgets`.
    """
    return load_budgets(path, experts).as_policies()

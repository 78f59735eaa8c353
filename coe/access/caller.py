"""Who asks: what the key of a request stands for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Role = Literal["user", "viewer", "admin"]
"""``user`` asks experts; ``viewer`` reads what happens, of all tenants; ``admin`` may do all."""


@dataclass(frozen=True, slots=True)
class Rates:
    """What a key may take per minute; ``None``: as much as it likes."""

    requests: float | None = None
    tokens: float | None = None
    joules: float | None = None


NO_RATES = Rates()


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks.

    Parameters
    ----------
    key_id : public part of the key; "" for the operator's token.
    tenant : whose requests these are; "" for nobody's in particular.
    models : the experts that it may ask, ``None``: all that its tenant may know of.
    overrides : whether it may choose experts and modes itself, or only policies.
    """

    key_id: str = ""
    tenant: str = ""
    role: Role = "user"
    models: frozenset[str] | None = None
    overrides: bool = True
    rates: Rates = NO_RATES


OPERATOR = Caller(role="admin")
"""Whoever shows the operator's token."""

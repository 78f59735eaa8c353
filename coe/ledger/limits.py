"""For whom something is counted, per which window, and how much there may be of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

from coe.ledger.amounts import RESOURCES, Amounts

Scope = Literal["global", "tenant", "key"]
"""Whose requests share an account: everybody's, a tenant's, or those of one API key."""


class Payer(NamedTuple):
    """Whose request it is: the tenant, and the public id of the API key; "" where nobody said."""

    tenant: str = ""
    key: str = ""


NOBODY = Payer()


class Account(NamedTuple):
    """What one holder may take under one limit in one window, by name.

    ``holder`` is the tenant, the key, or "" under a global limit. Windows of a limit follow each
    other without a gap since 1970-01-01 UTC, so that all gateways agree on them.
    """

    limit: str
    holder: str
    started_ms: int
    window_ms: int

    @property
    def ends_ms(self) -> int:
        """The first millisecond that no longer belongs to it."""
        return self.started_ms + self.window_ms


@dataclass(frozen=True, slots=True)
class Limit:
    """Hard ceilings per window, for every holder of a scope; ``None``: no ceiling.

    Parameters
    ----------
    window_s : whole seconds.
    of : the one holder that it is for; ``None``: each has an account of its own.

    Raises
    ------
    ValueError
        The window is not positive, a ceiling is not a whole number from 0 to `MOST`, or there is
        none.
    """

    name: str
    scope: Scope
    window_s: int
    energy_uj: int | None = None
    cost_uusd: int | None = None
    tokens: int | None = None
    requests: int | None = None
    of: str | None = None

    def __post_init__(self) -> None:
        if self.window_s <= 0:
            raise ValueError(f"window_s must be positive, not {self.window_s!r}")
        if all(ceiling is None for ceiling in self.ceilings()):
            raise ValueError("a limit must have a ceiling")
        Amounts(*(ceiling or 0 for ceiling in self.ceilings())).checked()

    def ceilings(self) -> tuple[int | None, ...]:
        """In the order of `RESOURCES`."""
        return (self.energy_uj, self.cost_uusd, self.tokens, self.requests)

    def account(self, payer: Payer, at_ms: int) -> Account | None:
        """The account that a request of ``payer`` is charged to; ``None``: this is not for it.

        Requests that name no tenant, or no key, share the account of the holder "".
        """
        holder = {"global": "", "tenant": payer.tenant, "key": payer.key}[self.scope]
        if self.of is not None and holder != self.of:
            return None
        window_ms = self.window_s * 1000
        return Account(self.name, holder, at_ms // window_ms * window_ms, window_ms)

    def exceeded_by(self, taken: Amounts) -> str | None:
        """The first resource of which ``taken`` is more than the ceiling; ``None``: none is."""
        for resource, amount, ceiling in zip(RESOURCES, taken, self.ceilings(), strict=True):
            if ceiling is not None and amount > ceiling:
                return resource
        return None


def stated(limits: Iterable[Limit]) -> list[dict[str, Any]]:
    """The limits as JSON can hold them, for `limits_of`."""
    return [asdict(limit) for limit in limits]


def limits_of(said: Iterable[dict[str, Any]]) -> tuple[Limit, ...]:
    """The limits that were `stated`.

    Raises
    ------
    TypeError, ValueError
        They are none.
    """
    return tuple(Limit(**limit) for limit in said)

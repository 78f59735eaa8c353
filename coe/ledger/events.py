"""What happens to a request, how it stands, and what that makes of an account."""

from __future__ import annotations

from typing import Literal, NamedTuple

from coe.ledger.amounts import NOTHING, Amounts
from coe.ledger.limits import NOBODY, Account, Payer

Kind = Literal[
    "reserved", "refused", "renewed", "settled", "estimated", "released", "expired", "limited"
]
"""What can happen to a request; ``estimated`` is settled with figures that nobody stated.

``limited`` happens to all that come after it: other limits are in force.
"""

Status = Literal["held", "refused", "settled", "estimated", "released", "expired"]
"""How a request stands. One whose lease ran out is booked at its hold until the truth is known."""


class Event(NamedTuple):
    """What happened to a request: a row of the journal.

    Parameters
    ----------
    amounts : the hold of one that reserved or was refused, else what it is booked at.
    until_ms : when its lease ends; of a refusal, when the window of ``limit`` does.
    limit, resource : what refused it; of ``limited``, the `stated` limits as JSON.
    """

    kind: Kind
    request_id: str
    at_ms: int
    payer: Payer = NOBODY
    amounts: Amounts = NOTHING
    until_ms: int = 0
    limit: str = ""
    resource: str = ""


class Entry(NamedTuple):
    """How a request stands, and the accounts that it is charged to: those of its reservation.

    ``booked`` is what it counts as spent; ``changed_ms`` and ``seq`` are those of its last event.
    """

    status: Status
    payer: Payer
    hold: Amounts
    at_ms: int
    until_ms: int
    accounts: tuple[Account, ...] = ()
    booked: Amounts = NOTHING
    limit: str = ""
    resource: str = ""
    changed_ms: int = 0
    seq: int = 0


class Balance(NamedTuple):
    """What is held and spent of an account; ``overrun`` is the part spent beyond holds."""

    held: Amounts = NOTHING
    spent: Amounts = NOTHING
    overrun: Amounts = NOTHING

    @property
    def taken(self) -> Amounts:
        """Held and spent together."""
        return self.held.plus(self.spent)

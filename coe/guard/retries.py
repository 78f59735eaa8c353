"""How many requests may be tried a second time: a share of all, so that no outage is multiplied.

The budget is Finagle's: requests of the last ten seconds pay in, second attempts are paid from it,
and a few a second are free, so that a gateway with little to do is not kept from trying again.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from coe.guard.window import Window

MOST_ATTEMPTS = 2
"""That one request makes before its first byte, the first among them."""


@dataclass(slots=True)
class Retries:
    """What is left of the budget.

    Parameters
    ----------
    percent : second attempts per hundred requests, whole.
    per_s : free ones.
    ttl_s : how long what was paid in lasts.
    n_spent, n_refused : second attempts since the start that were made, and that were not.
    """

    percent: int = 10
    per_s: float = 1.0
    ttl_s: float = 10.0
    n_spent: int = 0
    n_refused: int = 0
    _paid: Window = field(init=False)

    def __post_init__(self) -> None:
        self._paid = Window(self.ttl_s)

    def asked(self, now_s: float) -> None:
        """A request has come."""
        self._paid.add(now_s, self.percent)

    def take(self, now_s: float) -> bool:
        """Whether one may be tried a second time; if so, that is paid for."""
        self._paid.forget(now_s)
        # in hundredths of an attempt, whole numbers: nothing is lost to rounding
        if self._paid.n + int(100 * self.per_s * self.ttl_s) < 100:
            self.n_refused += 1
            return False
        self._paid.add(now_s, -100)
        self.n_spent += 1
        return True

"""Requests that wait for room, and whose turn it is."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from coe.guard.member import Seat

WAIT_S = 2.0
"""Nobody waits longer: by then a refusal is worth more than an answer that comes late."""


@dataclass(slots=True, eq=False)
class Waiting:
    """One that waits.

    Parameters
    ----------
    among : ids of the replicas that it may go to.
    choose : the one of several that have room.
    wake : called once, when it has a seat.
    came_s : when.
    """

    among: frozenset[str]
    choose: Callable[[list[str]], str]
    wake: Callable[[], None]
    came_s: float
    seat: Seat | None = None


@dataclass(slots=True)
class Line:
    """Those who wait, in the order of coming.

    Up to half of its room the first is served first. Beyond that the last is: those at the front
    will have waited too long in any case, and serving them would make everybody late.

    Parameters
    ----------
    n_waited, waited_s : those that got a seat here, and how long they waited for it together.
    n_full, n_late : those that were sent away because it was full, or left after their time.
    """

    n_waited: int = 0
    waited_s: float = 0.0
    n_full: int = 0
    n_late: int = 0
    _waiting: OrderedDict[Waiting, None] = field(default_factory=OrderedDict)

    def __len__(self) -> int:
        return len(self._waiting)

    def join(self, one: Waiting, room: int) -> bool:
        """Whether there was room to wait; ``room`` is for how many."""
        if len(self._waiting) >= room:
            self.n_full += 1
            return False
        self._waiting[one] = None
        return True

    def leave(self, one: Waiting, late: bool = False) -> None:
        """It waits no longer; harmless if it did not."""
        if one in self._waiting:
            del self._waiting[one]
            self.n_late += late

    def next(self, roomy: set[str], room: int) -> Waiting | None:
        """Whose turn it is of those that may go to one of ``roomy``."""
        newest = 2 * len(self._waiting) > room
        order = reversed(self._waiting) if newest else iter(self._waiting)
        return next((one for one in order if not roomy.isdisjoint(one.among)), None)

    def seat(self, one: Waiting, seat: Seat, now_s: float) -> None:
        """It has a seat, and waits no longer."""
        del self._waiting[one]
        self.n_waited += 1
        self.waited_s += now_s - one.came_s
        one.seat = seat
        one.wake()

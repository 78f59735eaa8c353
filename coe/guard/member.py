"""One replica of an expert, as who asks it knows it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from coe.guard.circuit import Circuit
from coe.guard.limit import Limit
from coe.guard.verdict import Verdict

BUSY_S = 1.0
"""How long one that has too much to do is asked only by who has nobody else."""


class Seat(NamedTuple):
    """A request's place at a replica.

    Parameters
    ----------
    age, probe : of its circuit when it was sent, and whether it is to find out if it is well.
    """

    member: Member
    sent_s: float
    age: int
    probe: bool


@dataclass(slots=True)
class Member:
    """A replica: whether it may be asked, and how much it takes.

    Parameters
    ----------
    limit : ``None``: it takes as many as come, and lets them wait itself.
    held_until_s : it has said itself that it is not to be asked before.
    busy_until_s : it has said that it has too much to do, and not until when.
    """

    replica_id: str
    circuit: Circuit
    limit: Limit | None = None
    n_in_flight: int = 0
    held_until_s: float = -math.inf
    busy_until_s: float = -math.inf

    @property
    def has_room(self) -> bool:
        """Whether it takes one more."""
        return self.limit is None or self.n_in_flight < self.limit.now

    @property
    def line_room(self) -> int:
        """For how many more there is room to wait for it."""
        return 0 if self.limit is None else 2 * self.limit.now

    def is_open(self, now_s: float) -> bool:
        """Whether it is asked like any other, if only by a probe."""
        if now_s < self.held_until_s or now_s < self.busy_until_s:
            return False
        return not self.circuit.tripped or self.circuit.phase(now_s) == "half-open"

    def sit(self, now_s: float) -> Seat:
        """A request is sent to it."""
        seat = Seat(self, now_s, self.circuit.age, self.circuit.sent(now_s))
        self.n_in_flight += 1
        return seat

    def began(self, seat: Seat, first_s: float, usual_s: float | None) -> None:
        """The first piece is there.

        Parameters
        ----------
        usual_s : how long that takes when it is idle; ``None``: the piece is no first token.
        """
        self.circuit.began(seat.age, first_s)
        if self.limit is not None and usual_s is not None:
            self.limit.good(seat.sent_s, first_s, usual_s, self.n_in_flight)

    def left(self, seat: Seat, verdict: Verdict, now_s: float, told: bool) -> None:
        """A request has ended.

        Parameters
        ----------
        told : whether the limit has heard of its first token.
        """
        try:
            self.circuit.ended(seat.age, seat.probe, verdict, now_s)
            if verdict == "busy":
                self.busy_until_s = now_s + BUSY_S
            if self.limit is not None:
                if verdict in ("bad", "busy"):
                    self.limit.bad(seat.sent_s, now_s)
                elif verdict == "good" and not told:
                    self.limit.good(seat.sent_s, None, 1.0, self.n_in_flight)
        finally:
            # what is learned may fail; a place that is not given back is lost
            self.n_in_flight -= 1

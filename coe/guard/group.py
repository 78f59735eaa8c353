"""The replicas of one expert together: who is asked, who waits, who is left out."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from random import Random

from coe.errors.experts import ExpertOverloadedError
from coe.guard.circuit import Circuit, Ejection
from coe.guard.lag import Lag
from coe.guard.limit import Limit
from coe.guard.line import WAIT_S, Line, Waiting
from coe.guard.member import Member, Seat
from coe.guard.verdict import Verdict

MOST_HELD_S = 300.0


@dataclass(slots=True)
class Group:
    """An expert's replicas; one of a single address has one, which bears the expert's name.

    At most half of them are ejected at a time, and never the last: where more are failing, those
    whose time is up soonest are asked on.

    Parameters
    ----------
    slots : that each replica serves at once; ``None``: as many as come, no limit is kept.
    patience_s : the shortest silence that the expert's section allows before it gives up.
    wait_s : the longest wait for room.
    lag : of the gateway; where it was late, silence says nothing of who was waited for.
    rng : draws jitter.
    """

    expert_id: str
    slots: int | None = None
    patience_s: float = 60.0
    rules: Ejection = field(default_factory=Ejection)
    wait_s: float = WAIT_S
    lag: Lag = field(default_factory=Lag)
    rng: Random = field(default_factory=Random)
    members: dict[str, Member] = field(default_factory=dict)
    line: Line = field(default_factory=Line)
    _n_ejections_before: int = 0

    @property
    def n_ejections(self) -> int:
        """Of all replicas since the start."""
        now = sum(member.circuit.n_ejections for member in self.members.values())
        return self._n_ejections_before + now

    def know(self, replica_ids: Collection[str]) -> None:
        """These are there; of one that has left nothing is kept."""
        if self.members.keys() != set(replica_ids):
            known = self.members
            self.members = {name: known.get(name) or self._member(name) for name in replica_ids}
            for name in known.keys() - self.members.keys():
                # a seat keeps its member until it is left
                self._n_ejections_before += known[name].circuit.n_ejections

    def choose(
        self,
        now_s: float,
        among: Collection[str],
        insists: bool,
        choose: Callable[[list[str]], str] = min,
    ) -> str | None:
        """The replica to ask; ``None``: all that may be asked have no room.

        Parameters
        ----------
        among : ids of the replicas that the request may go to.
        insists : nobody else can answer it, so it goes to one that is failing rather than to none.
        choose : the one of several.

        Raises
        ------
        ExpertOverloadedError
            None of them may be asked now.
        """
        able = self._able(now_s, among, insists)
        roomy = [] if self.line else [m.replica_id for m in able if m.has_room]
        return choose(roomy) if len(roomy) > 1 else roomy[0] if roomy else None

    def sit(self, replica_id: str, now_s: float) -> Seat:
        """A seat at a replica that was chosen, and nothing waited for since."""
        return self.members[replica_id].sit(now_s)

    def wait(self, now_s: float, one: Waiting) -> None:
        """Stand in line.

        Raises
        ------
        ExpertOverloadedError
            It is full.
        """
        if not self.line.join(one, self._line_room(one.among)):
            raise self.overloaded("has all the requests that it takes, and as many waiting")
        self.serve(now_s)

    def give_up(self, one: Waiting, now_s: float, late: bool = False) -> None:
        """It waits no longer, and if it has just got a seat, gives that back."""
        try:
            self.line.leave(one, late)
        finally:
            if one.seat is not None:
                self.leave(one.seat, "nothing", now_s)

    def serve(self, now_s: float) -> None:
        """Give what room there is to those who wait."""
        while self.line:
            able = self._able(now_s, self.members, insists=True, strict=False)
            roomy = {m.replica_id for m in able if m.has_room}
            room = self._line_room(self.members)
            if not roomy or (one := self.line.next(roomy, room)) is None:
                return
            named = sorted(roomy & one.among)
            name = named[0] if len(named) == 1 else one.choose(named)
            self.line.seat(one, self.sit(name, now_s), now_s)

    def began(self, seat: Seat, first_s: float, usual_s: float | None) -> None:
        """As `Member.began`."""
        seat.member.began(seat, first_s, usual_s)
        self.serve(first_s)

    def leave(
        self,
        seat: Seat,
        verdict: Verdict,
        now_s: float,
        told: bool = False,
        held_s: float | None = None,
    ) -> None:
        """A request has ended.

        Parameters
        ----------
        told : as in `Member.left`.
        held_s : how long the replica itself wants to be left alone.
        """
        member = seat.member
        member.left(seat, verdict, now_s, told)
        if held_s is not None:
            until_s = now_s + min(held_s, MOST_HELD_S)
            member.held_until_s = max(member.held_until_s, until_s)
        self.serve(now_s)

    def failing(self, now_s: float) -> str | None:
        """Why no replica is to be asked while another expert can answer; ``None``: one is."""
        members = self.members.values()
        # no generator: everybody is asked this for every request
        for member in members:
            if member.is_open(now_s):
                return None
        if not members:
            return None
        if all(now_s < member.held_until_s for member in members):
            return "asked to be left alone"
        return "failing" if any(member.circuit.tripped for member in members) else "busy"

    def overloaded(self, reason: str, after_s: float | None = None) -> ExpertOverloadedError:
        """The error of an expert that is not asked; by default it is to be in 1 to 5 s."""
        return ExpertOverloadedError(self.expert_id, reason, after_s or 1 + 4 * self.rng.random())

    def _able(
        self, now_s: float, among: Iterable[str], insists: bool, strict: bool = True
    ) -> list[Member]:
        """Who of these may be asked.

        Raises
        ------
        ExpertOverloadedError
            Nobody, if that is ``strict``.
        """
        able = [m for m in self.members.values() if m.is_open(now_s)]
        if len(able) < len(self.members):
            able += self._asked_on(now_s, len(able), insists)
        if among is not self.members:
            wanted = set(among)
            able = [m for m in able if m.replica_id in wanted]
        if able or not strict:
            return able
        if self.members and all(now_s < m.held_until_s for m in self.members.values()):
            left_s = min(m.held_until_s for m in self.members.values()) - now_s
            raise self.overloaded(f"asks to be left alone for {math.ceil(left_s)} s", left_s)
        raise self.overloaded(f"is {self.failing(now_s) or 'failing'}, and not asked for a while")

    def _asked_on(self, now_s: float, n_open: int, insists: bool) -> list[Member]:
        """Who is asked though it is ejected, for half of them must be, and the last in any case."""
        free = [m for m in self.members.values() if now_s >= m.held_until_s]
        lacking = len(free) - len(free) // 2 - n_open
        if lacking <= 0 or not (insists or n_open):
            return []
        ejected = [m for m in free if not m.is_open(now_s)]
        return sorted(ejected, key=lambda m: m.circuit.until_s)[:lacking]

    def _line_room(self, among: Iterable[str]) -> int:
        return sum(self.members[name].line_room for name in among if name in self.members)

    def _member(self, replica_id: str) -> Member:
        limit = None if self.slots is None else Limit(float(self.slots), 4.0 * self.slots)
        return Member(replica_id, Circuit(self.rules, self.rng), limit)

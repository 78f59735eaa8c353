"""All experts of a gateway: who is failing, what is tried again, and figures of both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from coe.guard.circuit import Phase
from coe.guard.group import Group
from coe.guard.hedging import Hedging
from coe.guard.lag import Lag
from coe.guard.member import Member
from coe.guard.retries import Retries


@dataclass(frozen=True, slots=True)
class ReplicaFigures:
    """One replica at a moment.

    Parameters
    ----------
    phase : ``held``: it has asked to be left alone.
    out_s : until it is asked again as any other; 0 where it is.
    limit : requests that it gets at once; ``None``: as many as come.
    """

    replica_id: str
    phase: Phase | Literal["held"]
    out_s: float
    limit: int | None
    n_in_flight: int


@dataclass(frozen=True, slots=True)
class ExpertFigures:
    """One expert at a moment, and what was counted since the start.

    Parameters
    ----------
    n_queued : requests that wait for room now.
    n_waited, waited_s : that got it after a wait, and those waits summed.
    n_full, n_late : that found no room to wait, and that waited in vain.
    n_hedged, n_hedges_won : streams that were asked for twice, and those that began at the second.
    """

    n_queued: int
    n_ejections: int
    n_waited: int
    waited_s: float
    n_full: int
    n_late: int
    replicas: tuple[ReplicaFigures, ...]
    n_hedged: int = 0
    n_hedges_won: int = 0


@dataclass(frozen=True, slots=True)
class Figures:
    """Of every guarded expert, and of the retries that were made and that were refused."""

    experts: Mapping[str, ExpertFigures]
    n_retries: int
    n_retries_refused: int


@dataclass(slots=True)
class Guards:
    """The groups of a gateway's experts by id; what is not among them is not guarded.

    ``lag`` is of the gateway itself; ``hedges`` are of the experts that are hedged.
    """

    groups: dict[str, Group] = field(default_factory=dict)
    retries: Retries = field(default_factory=Retries)
    lag: Lag = field(default_factory=Lag)
    hedges: dict[str, Hedging] = field(default_factory=dict)

    def absent(self, now_s: float) -> dict[str, str]:
        """The experts that are not to be asked while others can answer, and why, in words."""
        found = {}
        for name, group in self.groups.items():
            if (why := group.failing(now_s)) is not None:
                found[name] = why
        return found

    def figures(self, now_s: float) -> Figures:
        """How everything is now."""
        experts = {
            name: _of_group(group, self.hedges.get(name), now_s)
            for name, group in self.groups.items()
        }
        return Figures(experts, self.retries.n_spent, self.retries.n_refused)


def _of_group(group: Group, hedging: Hedging | None, now_s: float) -> ExpertFigures:
    line = group.line
    return ExpertFigures(
        n_queued=len(line),
        n_ejections=group.n_ejections,
        n_waited=line.n_waited,
        waited_s=line.waited_s,
        n_full=line.n_full,
        n_late=line.n_late,
        replicas=tuple(_of_replica(member, now_s) for member in group.members.values()),
        n_hedged=0 if hedging is None else hedging.n_hedged,
        n_hedges_won=0 if hedging is None else hedging.n_won,
    )


def _of_replica(member: Member, now_s: float) -> ReplicaFigures:
    held_s, out_s = member.held_until_s - now_s, member.circuit.until_s - now_s
    return ReplicaFigures(
        replica_id=member.replica_id,
        phase="held" if held_s > 0 else member.circuit.phase(now_s),
        out_s=max(held_s, out_s, 0.0),
        limit=None if member.limit is None else member.limit.now,
        n_in_flight=member.n_in_flight,
    )

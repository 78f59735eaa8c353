"""What a gateway makes of the meters of a fleet's nodes: one account each, fed by snapshots."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from coe.energy import EnergyAccount
from coe.meter import MeterReading
from coe.replica import NodeReading, Replica, Snapshot

Say = Callable[[str], None]

FRESH_S = 2.0
"""Readings come about once a second; where one is older, its host has fallen silent."""


@dataclass(frozen=True, slots=True)
class _Metered:
    """A copy whose host has read a meter, and when on our clock; ``busy`` as of ``told_s``."""

    replica: Replica
    reading: NodeReading
    read_s: float
    told_s: float

    @property
    def busy(self) -> int:
        return self.replica.report.n_running + self.replica.report.n_waiting


@dataclass(slots=True)
class _Fed:
    """What an account was fed last, and whether others were seen on its node then."""

    account: EnergyAccount
    meter: str
    origin: int = -1
    energy_j: float = -1.0
    read_s: float = -math.inf
    crowded: bool = False


@dataclass(slots=True)
class NodeAccounts:
    """The accounts of a fleet's nodes.

    Copies on one node read the same meter, each from a beginning of its own: an account goes by
    one of them for as long as that one is heard of. (While a change of meter is carried out some
    copies read the old one and some the new: those that read another one are not metered.)

    Parameters
    ----------
    idle_w : power that belongs to no request, by node; 0 where it is not stated.
    say : told which meters there are.
    now : monotonic seconds, on which nothing but ages of readings is laid.
    machines : the accounts, by node; where a node's GPUs have one of their own, as ``node/nvml``.
    copies : the accounts again, by the ids of the copies that are metered now.
    """

    idle_w: Mapping[str, float] = field(default_factory=dict)
    say: Say = lambda line: None
    now: Callable[[], float] = time.monotonic
    machines: dict[str, EnergyAccount] = field(default_factory=dict)
    copies: dict[str, EnergyAccount] = field(default_factory=dict)
    _fed: dict[str, _Fed] = field(default_factory=dict)

    def note(self, snapshot: Snapshot) -> None:
        """Share out what the meters of the nodes have counted since the last snapshot."""
        now_s = self.now()
        by_machine: dict[str, list[_Metered]] = {}
        for replica in snapshot.replicas.values():
            if (reading := replica.report.meter) is not None:
                told_s = now_s - replica.report.age_s
                metered = _Metered(replica, reading, told_s - reading.age_s, told_s)
                by_machine.setdefault(_machine(replica), []).append(metered)
        self.copies.clear()
        for machine, found in by_machine.items():
            fed = self._fed.get(machine) or self._opened(machine, found[0])
            heard = [each for each in found if now_s - each.read_s <= FRESH_S]
            if heard:
                _feed(fed, heard)
            same = [each for each in found if each.reading.meter == fed.meter]
            self.copies.update((each.replica.replica_id, fed.account) for each in same)

    def _opened(self, machine: str, metered: _Metered) -> _Fed:
        reading, node = metered.reading, metered.replica.node
        account = EnergyAccount(reading.scope, self.idle_w.get(node, 0.0), now=self.now)
        self.machines[machine] = account
        self._fed[machine] = _Fed(account, reading.meter)
        self.say(f"energy of copies on {node}: measured by {reading.meter}, scope {reading.scope}")
        return self._fed[machine]


def _machine(replica: Replica) -> str:
    """What is metered; of one node that is either all of it, or its GPUs."""
    reading = replica.report.meter
    return f"{replica.node}/nvml" if reading and reading.meter == "nvml" else replica.node


def _feed(fed: _Fed, heard: Sequence[_Metered]) -> None:
    source = min(heard, key=lambda each: (each.reading.origin != fed.origin, -each.read_s))
    reading = source.reading
    if (reading.origin, reading.energy_j) == (fed.origin, fed.energy_j):
        return
    crowded = _crowded(fed.account, [each for each in heard if each.told_s > fed.read_s])
    fed.account.note_reading(
        MeterReading(source.read_s, reading.energy_j, reading.origin),
        alone=not (crowded and fed.crowded),
    )
    fed.account.scope, fed.meter = reading.scope, reading.meter
    fed.origin, fed.energy_j = reading.origin, reading.energy_j
    fed.read_s, fed.crowded = source.read_s, crowded


def _crowded(account: EnergyAccount, heard: Sequence[_Metered]) -> bool:
    """Whether the copies have more requests than those of the account.

    One report may have caught a request at its end, so two in a row have to say so.
    """
    own = max((account.in_flight(each.told_s) for each in heard), default=0)
    return sum(each.busy for each in heard) > own

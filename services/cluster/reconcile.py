"""What to start and what to drain, so that what runs becomes what is wanted. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from coe.replica import Deployment, HostReport


@dataclass(frozen=True, slots=True)
class Copy:
    """One copy of an expert that runs, is about to, or is on its way out.

    Parameters
    ----------
    digest : of the deployment that it was started for.
    node : where it is; empty while nobody knows.
    leaving : whether it drains already.
    avoided : nodes that it is not placed on; none where it is placed already.
    quiet : whether its host did not answer just now; what it has begun may go on.
    """

    replica_id: str
    expert_id: str
    digest: str
    node: str
    report: HostReport
    leaving: bool = False
    avoided: frozenset[str] = frozenset()
    quiet: bool = False


@dataclass(frozen=True, slots=True)
class Changes:
    """Experts to start one more copy of each, and copies to drain."""

    start: tuple[str, ...]
    drain: tuple[str, ...]


def changes(
    wanted: Mapping[str, Deployment],
    targets: Mapping[str, int],
    copies: Sequence[Copy],
    shunned: Collection[str] = (),
) -> Changes:
    """What brings the copies of every expert to their target.

    A copy counts if it was started for today's deployment, stays, and is not on a shunned node; nor
    does one that waits for a node and avoids some that may be used again.
    One that does not count is drained once as many that count are ready as are wanted, so that an
    expert whose configuration changes, or whose node is emptied, goes on answering; at once where
    it is not ready itself, for longer than a moment, or where its expert is wanted no more. Of too
    many that count, those that are not ready go first, then the least busy.

    Parameters
    ----------
    targets : copies wanted, by expert id.
    """
    start: list[str] = []
    drain: list[str] = []
    for expert_id, deployment in wanted.items():
        target = targets[expert_id]
        own = [c for c in copies if c.expert_id == expert_id and not c.leaving]
        counted = [c for c in own if c.digest == deployment.digest and _stays(c, shunned)]
        start += [expert_id] * (target - len(counted))
        surplus = sorted(counted, key=_worth)[: max(0, len(counted) - target)]
        drain += [c.replica_id for c in surplus]
        n_ready = sum(c.report.state == "ready" for c in counted)
        drain += [
            c.replica_id
            for c in own
            if c not in counted and (n_ready >= target or not _may_answer(c))
        ]
    drain += [c.replica_id for c in copies if c.expert_id not in wanted and not c.leaving]
    return Changes(tuple(start), tuple(drain))


def _stays(copy: Copy, shunned: Collection[str]) -> bool:
    return copy.node not in shunned and copy.avoided.issubset(shunned)


def _may_answer(copy: Copy) -> bool:
    return copy.quiet or copy.report.state == "ready"


def _worth(copy: Copy) -> tuple[bool, int, str]:
    """Small for a copy that will not be missed."""
    report = copy.report
    return report.state == "ready", report.n_running + report.n_waiting, copy.replica_id

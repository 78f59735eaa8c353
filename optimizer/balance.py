"""Which replica of an expert takes a request: the better of two drawn ones, by recent slowness.

Two choices instead of one (Mitzenmacher 2001), compared by ``peak EWMA * (in flight + 1)``, as
Finagle's load balancer does: slower answers count at once, faster ones gradually. What is averaged
here is the time that answers take over the time expected of them, so that long answers do not make
a replica look slow; equations ours. The optimiser chooses among experts; this chooses among equals,
in microseconds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

MEMORY_S = 30.0
"""Time constant with which what was measured is forgotten: some answers, not hours."""

PENALTY_S, MOST_PENALTY_S = 1.0, 60.0
"""How long a replica is avoided after a failure; twice as long after each further one, up to."""


class Sent(NamedTuple):
    """A request in flight.

    Parameters
    ----------
    at_s : when it was sent.
    expected_s : how long its answer is to take, positive; the same for all where nothing is known.
    """

    at_s: float
    expected_s: float = 1.0


@dataclass(slots=True)
class ReplicaState:
    """What is known of a replica, by who sends requests to it.

    Parameters
    ----------
    replica_id : names it.
    draining : takes nothing new.
    n_in_flight : requests that it has not ended.
    began_s, expected_s : sums over those: when they began, and how long they were to take.
    slowness : peak EWMA at ``seen_s`` of time taken over time usual; 0 before its first answer.
    seen_s : when it last answered; ``-inf``: never.
    n_failures : since its last answer.
    avoided_until_s : after failures.
    """

    replica_id: str
    draining: bool = False
    n_in_flight: int = 0
    began_s: float = 0.0
    expected_s: float = 0.0
    slowness: float = 0.0
    seen_s: float = -math.inf
    n_failures: int = 0
    avoided_until_s: float = -math.inf

    def begin(self, sent: Sent) -> None:
        """A request was sent to it."""
        self.n_in_flight += 1
        self.began_s += sent.at_s
        self.expected_s += sent.expected_s

    def end(
        self, sent: Sent, now_s: float, measured: bool = True, usual_s: float | None = None
    ) -> None:
        """A request has ended.

        Parameters
        ----------
        measured : whether the time that it took is to be learned from; not where the caller gave
            up.
        usual_s : how long an answer as long as this one usually takes, positive; by default as
            expected.
        """
        self._forget(sent)
        if not measured:
            return
        slowness = max(now_s - sent.at_s, 0.0) / (usual_s or sent.expected_s)
        if slowness >= self.slowness:
            self.slowness = slowness
        else:
            kept = math.exp((self.seen_s - now_s) / MEMORY_S)
            self.slowness = kept * self.slowness + (1.0 - kept) * slowness
        self.seen_s, self.n_failures, self.avoided_until_s = now_s, 0, -math.inf

    def fail(self, sent: Sent, now_s: float) -> None:
        """A request has failed: it is avoided for a while, twice as long as the time before."""
        self._forget(sent)
        self.n_failures += 1
        doublings = min(self.n_failures - 1, 32)
        self.avoided_until_s = now_s + min(PENALTY_S * 2.0**doublings, MOST_PENALTY_S)

    def cost(self, now_s: float) -> float:
        """How many times as long as expected another request would take here; less is better.

        A slowness is forgotten while nothing is measured, so that a replica that was slow is tried
        again; but those in flight have taken as long as they are old already, so one that hangs is
        not. Before the first answer 0 when idle, infinite with a request in flight: tried by one,
        not by all.
        """
        if self.seen_s == -math.inf:
            return math.inf if self.n_in_flight else 0.0
        slowness = self.slowness * math.exp((self.seen_s - now_s) / MEMORY_S)
        if self.n_in_flight:
            age_s = self.n_in_flight * now_s - self.began_s
            slowness = max(slowness, age_s / self.expected_s)
        return slowness * (self.n_in_flight + 1)

    def _forget(self, sent: Sent) -> None:
        self.n_in_flight -= 1
        # what rounding leaves of the sums must not outlive the requests
        self.began_s = self.began_s - sent.at_s if self.n_in_flight else 0.0
        self.expected_s = self.expected_s - sent.expected_s if self.n_in_flight else 0.0


def pick(replicas: Sequence[ReplicaState], rng: Random, now_s: float) -> ReplicaState | None:
    """The cheaper of two replicas drawn at random; ``None`` without any that takes requests.

    Draining ones are never picked, those that failed lately only where there are no others. Of
    equal cost the one with fewer requests in flight, then the one drawn first. O(1), O(n) where
    one that was drawn is out.

    Parameters
    ----------
    rng : of the standard library, whose numbers take an eighth of the time of NumPy's.
    """
    n = len(replicas)
    if n > 1:
        one, other = _two(replicas, rng)
        if _is_open(one, now_s) and _is_open(other, now_s):
            return _cheaper(one, other, now_s)
    taking = [replica for replica in replicas if not replica.draining]
    able = [replica for replica in taking if now_s >= replica.avoided_until_s] or taking
    if len(able) < 2:
        return able[0] if able else None
    return _cheaper(*_two(able, rng), now_s)


def _two(replicas: Sequence[ReplicaState], rng: Random) -> tuple[ReplicaState, ReplicaState]:
    """Two different ones, all ordered pairs as likely."""
    n = len(replicas)
    first, second = int(rng.random() * n), int(rng.random() * (n - 1))
    return replicas[first], replicas[second + (second >= first)]


def _is_open(replica: ReplicaState, now_s: float) -> bool:
    return not replica.draining and now_s >= replica.avoided_until_s


def _cheaper(one: ReplicaState, other: ReplicaState, now_s: float) -> ReplicaState:
    mine, theirs = one.cost(now_s), other.cost(now_s)
    if mine == theirs:
        return one if one.n_in_flight <= other.n_in_flight else other
    return one if mine < theirs else other

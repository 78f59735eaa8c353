"""How many replicas of an expert the load asks for: enough for a short queue, no flapping.

Expected waiting by Little's law and Erlang's formula (1917) for ``n_replicas * slots`` servers;
up at once, down once less has sufficed for a while.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count


@dataclass(frozen=True, slots=True)
class Scaling:
    """How an expert is scaled.

    Parameters
    ----------
    target_queue : requests that may wait per replica.
    least, most : replicas; 0 to have none while nobody asks.
    slots : requests that a replica answers at once.
    stable_s : how long fewer must suffice before there are fewer.

    Raises
    ------
    ValueError
        A figure is out of its range; the field is named.
    """

    target_queue: float = 1.0
    least: int = 1
    most: int = 8
    slots: int = 1
    stable_s: float = 300.0

    def __post_init__(self) -> None:
        if not 0 < self.target_queue < math.inf:
            raise ValueError(f"target_queue must be positive, not {self.target_queue!r}")
        if not 0 <= self.least <= self.most or self.most < 1:
            raise ValueError(f"least and most must be 0 <= {self.least} <= {self.most} >= 1")
        if self.slots < 1:
            raise ValueError(f"slots must be at least 1, not {self.slots}")
        if not self.stable_s >= 0:
            raise ValueError(f"stable_s must not be negative, not {self.stable_s!r}")


@dataclass(frozen=True, slots=True)
class Demand:
    """What is asked of an expert now.

    Parameters
    ----------
    rate_per_s : requests that come.
    service_s : that one of them keeps a slot.
    n_waiting : requests that wait at this moment, in all replicas together.

    Raises
    ------
    ValueError
        A figure is NaN, negative or infinite; the field is named.
    """

    rate_per_s: float
    service_s: float
    n_waiting: int = 0

    def __post_init__(self) -> None:
        for name in ("rate_per_s", "service_s", "n_waiting"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be finite and not negative")

    @property
    def busy(self) -> float:
        """Slots that are busy on average (Little's law)."""
        return self.rate_per_s * self.service_s


@dataclass(frozen=True, slots=True)
class Scaled:
    """How many replicas there should be, and what is remembered of why.

    Parameters
    ----------
    recent : (moment, replicas) that sufficed lately, more and more moments with fewer and fewer:
        none that a later and larger one outdoes.
    """

    n_replicas: int
    recent: tuple[tuple[float, int], ...] = ()


def scaled(rule: Scaling, demand: Demand, before: Scaled, now_s: float) -> Scaled:
    """The replicas that there should be from now on.

    As many as `sufficient` says, at once, if those are more; otherwise the most that it said in
    the last ``stable_s``, as soon as that are fewer than there are. Amortised O(1) beside it.

    Parameters
    ----------
    before : what was returned the last time; `Scaled(n)` at first, with the n that there are.
    now_s : never less than the last time.
    """
    enough = sufficient(rule, demand)
    # a memory that is younger than the window knows only how many there were
    past = before.recent or ((now_s, before.n_replicas),)
    more = [(at_s, n) for at_s, n in past if n > enough and now_s - at_s <= rule.stable_s]
    recent = (*more, (now_s, enough))
    return Scaled(min(max(recent[0][1], rule.least), rule.most), recent)


def sufficient(rule: Scaling, demand: Demand) -> int:
    """The fewest replicas whose queue, expected and present, is short enough; within limits.

    Short enough is ``target_queue`` for each. ``most`` where no number of them would do, 0 only
    where ``least`` is and nobody asks. Monotone in rate, service time and waiting requests.
    O(most slots).
    """
    if demand.rate_per_s == 0 and demand.n_waiting == 0:
        return rule.least
    for n, expected in zip(range(1, rule.most), _queues(demand.busy, rule.slots), strict=False):
        short = max(expected, demand.n_waiting) <= rule.target_queue * n
        if short and n >= rule.least:
            return n
    return rule.most


def _queues(busy: float, slots: int) -> Iterator[float]:
    """Requests expected to wait, with 1, 2, 3 and so on replicas."""
    blocked = 1.0
    for n in count(1):
        blocked = busy * blocked / (n + busy * blocked)  # Erlang B
        if n % slots == 0:
            waits = n * blocked / (n - busy * (1.0 - blocked))  # Erlang C
            yield waits * busy / (n - busy) if busy < n else math.inf

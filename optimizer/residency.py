"""Which experts are in the memory of one node, for requests whose expert is known: a state machine.

Routing comes before dispatch, so waiting requests say which expert is needed next: they are grouped
by expert, the next expert is loaded while the present ones answer, and who is evicted is decided by
expected use (Pre-gated MoE, Read-ME and CoServe do so inside one model or engine; reconstruction,
mechanisms ours). Nothing here sees a clock or waits: every verb is told the time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

Phase = Literal["out", "loading", "in"]


@dataclass(frozen=True, slots=True)
class Loadable:
    """An expert that is loaded on demand.

    Parameters
    ----------
    memory_gb : that it takes, from the beginning of its loading.
    load_s : from the beginning of its loading to its first answer, bytes over bandwidth.
    rate_per_s : requests expected, such as a plan's.
    slots : requests that it answers at once.

    Raises
    ------
    ValueError
        A figure is NaN, negative or infinite, or there is no slot; the field is named.
    """

    memory_gb: float
    load_s: float
    rate_per_s: float = 0.0
    slots: int = 1

    def __post_init__(self) -> None:
        for name in ("memory_gb", "load_s", "rate_per_s"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be finite and not negative")
        if self.slots < 1:
            raise ValueError(f"slots must be at least 1, not {self.slots}")

    @property
    def stake_s(self) -> float:
        """Seconds of loading, per second, that its requests would cause if it were never in."""
        return self.rate_per_s * self.load_s


@dataclass(frozen=True, slots=True)
class Waiting:
    """A request that has not started."""

    request_id: str
    since_s: float


@dataclass(slots=True)
class Occupant:
    """What an expert is doing.

    Parameters
    ----------
    queue : its waiting requests, oldest first.
    n_running : requests that it is answering.
    owed : of those that waited when it was loaded, how many it may start before it is evicted.
    used_s : when it last started or ended an answer.
    """

    phase: Phase = "out"
    queue: list[Waiting] = field(default_factory=list)
    n_running: int = 0
    owed: int = 0
    used_s: float = float("-inf")


@dataclass(frozen=True, slots=True)
class Load:
    """Take some experts out of memory, then load another."""

    expert_id: str
    evict: tuple[str, ...] = ()


Policy = Callable[["Residency", float], Load | None]
"""What to load next, if anything. Called while nothing is being loaded; experts to evict that still
answer are drained first."""


class Residency:
    """The memory of one node: who is in it, who waits for whom. Not thread-safe.

    After every verb that reports something, call `start` for requests that may go to their expert
    now, then `order` for the next thing to load. With nothing to report, call both at `due_s`.

    Parameters
    ----------
    experts : by id; every one fits into the memory alone.
    memory_gb : of the node, for all of them together.
    policy : `coe.optimizer.eviction.grouped`, or its plain twin.
    max_wait_s : a request that has waited for so long is overdue.
    max_group : most requests that are owed to an expert once it is loaded.
    in_order : whether requests start strictly in the order of their arrival: all wait for the
        expert of the oldest, and nothing is loaded ahead.

    Raises
    ------
    ValueError
        There is no expert, one does not fit, ``max_wait_s`` is negative or ``max_group`` below 1.
    """

    def __init__(
        self,
        experts: Mapping[str, Loadable],
        memory_gb: float,
        policy: Policy,
        max_wait_s: float = 30.0,
        max_group: int = 16,
        in_order: bool = False,
    ) -> None:
        large = [name for name, one in experts.items() if one.memory_gb > memory_gb]
        if large or not experts:
            raise ValueError(f"memory_gb: {memory_gb!r} are too few for {', '.join(large) or '-'}")
        if not (max_wait_s >= 0 and max_group >= 1):
            raise ValueError(
                f"max_wait_s, {max_wait_s!r}, must not be negative, and max_group, {max_group}, "
                "at least 1"
            )
        self.experts = dict(experts)
        self.memory_gb = memory_gb
        self.max_wait_s = max_wait_s
        self.max_group = max_group
        self.in_order = in_order
        self.occupants = {name: Occupant() for name in experts}
        self.planned: Load | None = None
        self.n_loads = 0
        self._policy = policy

    def wait(self, request_id: str, expert_id: str, now_s: float) -> None:
        """A request has come."""
        self.occupants[expert_id].queue.append(Waiting(request_id, now_s))

    def cancel(self, request_id: str, expert_id: str) -> bool:
        """A request is no longer wanted; whether it had been waiting."""
        one = self.occupants[expert_id]
        n_before = len(one.queue)
        one.queue = [waiting for waiting in one.queue if waiting.request_id != request_id]
        one.owed = min(one.owed, len(one.queue))
        return len(one.queue) < n_before

    def start(self, now_s: float) -> list[tuple[str, str]]:
        """(request, expert) of all that may start now: count as running until `end`, oldest first.

        Requests of an expert that is about to be evicted wait.
        """
        closed = self.planned.evict if self.planned is not None else ()
        open_ = [name for name in self.inside() if name not in closed]
        started = []
        while ready := [name for name in open_ if self._may_start(name)]:
            name = min(ready, key=self.waits_since_s)
            if self.in_order and self.oldest() != name:
                break
            one = self.occupants[name]
            started.append((one.queue.pop(0).request_id, name))
            one.n_running += 1
            one.owed, one.used_s = max(one.owed - 1, 0), now_s
        return started

    def order(self, now_s: float) -> Load | None:
        """What to evict and load now, at most once: counts as loading until `loaded`."""
        if self.loading is not None:
            return None
        if self.planned is None:
            self.planned = self._policy(self, now_s)
        load = self.planned
        if load is None or any(self.occupants[name].n_running for name in load.evict):
            return None
        self.planned = None
        for name in load.evict:
            self.occupants[name].phase = "out"
            self.occupants[name].owed = 0
        self.occupants[load.expert_id].phase = "loading"
        self.n_loads += 1
        return load

    def loaded(self, expert_id: str, now_s: float) -> None:
        """The expert can answer; also said of one that was in memory before."""
        one = self.occupants[expert_id]
        one.phase, one.used_s = "in", now_s
        one.owed = min(len(one.queue), self.max_group)

    def lost(self, expert_id: str) -> None:
        """The expert is out of memory, or could not be loaded: its answers have ended.

        Requests for it go on waiting, and it is loaded again: whoever has tried often enough
        cancels them.
        """
        one = self.occupants[expert_id]
        one.phase, one.n_running, one.owed = "out", 0, 0

    def end(self, expert_id: str, now_s: float) -> None:
        """An answer of the expert has ended, however."""
        one = self.occupants[expert_id]
        one.n_running = max(one.n_running - 1, 0)
        one.used_s = now_s

    def due_s(self, now_s: float) -> float:
        """When the next request that waits for an expert outside is overdue; ``inf``: never."""
        due = [self.waits_since_s(name) + self.max_wait_s for name in self.outside()]
        return min((moment for moment in due if moment > now_s), default=float("inf"))

    @property
    def loading(self) -> str | None:
        """The expert that is being loaded."""
        return next((e for e, one in self.occupants.items() if one.phase == "loading"), None)

    @property
    def free_gb(self) -> float:
        """Memory that nobody is in."""
        return self.memory_gb - self.taken_gb(
            e for e, one in self.occupants.items() if one.phase != "out"
        )

    def taken_gb(self, expert_ids: Iterable[str]) -> float:
        """What some experts take together."""
        return sum(self.experts[name].memory_gb for name in expert_ids)

    def inside(self) -> list[str]:
        """Experts that can answer."""
        return [name for name, one in self.occupants.items() if one.phase == "in"]

    def outside(self) -> list[str]:
        """Experts that are not in memory, and for which requests wait."""
        return [name for name, one in self.occupants.items() if one.phase == "out" and one.queue]

    def waits_since_s(self, expert_id: str) -> float:
        """Arrival of the oldest waiting request of an expert; ``inf`` without any."""
        queue = self.occupants[expert_id].queue
        return queue[0].since_s if queue else float("inf")

    def oldest(self) -> str:
        """The expert of the oldest waiting request; the first one where nobody waits."""
        return min(self.occupants, key=self.waits_since_s)

    def _may_start(self, expert_id: str) -> bool:
        one = self.occupants[expert_id]
        return bool(one.queue) and one.n_running < self.experts[expert_id].slots

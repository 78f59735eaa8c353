"""What was done for one request, and when: times taken in passing, made into figures afterwards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

MOST_STEPS = 64
"""That are kept of one request; what is done after them is done unnoted."""


class Step(NamedTuple):
    """Something that was done for a request, from when to when.

    A tuple, as all that is made several times per request. ``of`` is the expert it was done with,
    "" where there is none; ``error`` the name of the error that it ended with.
    """

    name: str
    started_s: float
    ended_s: float
    of: str = ""
    error: str = ""


@dataclass(slots=True)
class Steps:
    """The steps of one request, in the order in which they ended.

    Everybody who has the request in hand may note what he did; all on one monotonic clock.
    """

    done: list[Step] = field(default_factory=list)

    def note(
        self, name: str, started_s: float, ended_s: float, of: str = "", error: str = ""
    ) -> None:
        """Note a step; beyond `MOST_STEPS` nothing is."""
        if len(self.done) < MOST_STEPS:
            self.done.append(Step(name, started_s, ended_s, of, error))


class Laps:
    """A stopwatch for what follows each other without a gap: called with a name at each end.

    Parameters
    ----------
    now : monotonic seconds.
    """

    __slots__ = ("_last_s", "_now", "started_s", "took_ms")

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.started_s = self._last_s = now()
        self.took_ms: dict[str, float] = {}

    def __call__(self, name: str) -> None:
        """All since the last call was ``name``; what has that name before, it adds to."""
        now_s = self._now()
        self.took_ms[name] = self.took_ms.get(name, 0.0) + (now_s - self._last_s) * 1000.0
        self._last_s = now_s

    @property
    def total_ms(self) -> float:
        """Since the start, by the last call."""
        return (self._last_s - self.started_s) * 1000.0


def untimed(name: str) -> None:
    """Nothing: the stopwatch of whoever has no use for times."""

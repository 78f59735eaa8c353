"""How many requests are being answered, of whom, whether one more may be, and when it begins."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np

from coe.errors.gateway import OverloadedError

T = TypeVar("T")

_SOONEST_S, _LATEST_S = 1, 5
# a turn of so many beginnings is over sooner; in one that is not, the process stood still
_LONGEST_TURN_S = 0.25


@dataclass(slots=True)
class Crowd:
    """The requests that are being answered.

    Parameters
    ----------
    most : at once; positive.
    most_per_caller : at once of one caller; positive. Who is nobody in particular (``""``) shares
        the first limit only.
    rng : spreads the times at which those who are refused may ask again.
    """

    most: int
    most_per_caller: int
    rng: np.random.Generator
    n: int = 0
    _by_caller: Counter[str] = field(default_factory=Counter)

    def enter(self, caller: str) -> None:
        """Count a request in; to be followed by exactly one `leave`. Constant time.

        Raises
        ------
        OverloadedError
            There are as many as there may be; nothing was counted.
        """
        if self.n >= self.most:
            raise self.refusal(f"{self.most} requests are being answered, and no more may be")
        if caller and self._by_caller[caller] >= self.most_per_caller:
            own = self.most_per_caller
            raise self.refusal(f"{own} of your requests are being answered, and no more may be")
        self.n += 1
        if caller:
            self._by_caller[caller] += 1

    def leave(self, caller: str) -> None:
        """Count a request out."""
        self.n -= 1
        if caller:
            self._by_caller[caller] -= 1
            if not self._by_caller[caller]:
                del self._by_caller[caller]

    def refusal(self, why: str) -> OverloadedError:
        """The error of one who is not let in."""
        after_s = int(self.rng.integers(_SOONEST_S, _LATEST_S, endpoint=True))
        return OverloadedError(f"{why}: ask again later", after_s)


@dataclass(slots=True)
class Line(Generic[T]):
    """Who waits to begin, so that no turn of an event loop is full of beginnings.

    What a request takes of the processor it takes mostly when it begins, and without a pause. If
    all that come at once began at once, everything else would wait for as long: pieces of answers,
    and the deadlines of experts. While the process stands still nobody's patience ends: who came
    meanwhile has begun a few turns later.

    Parameters
    ----------
    per_turn : how many begin in a turn; positive.
    patience_s : nobody should stand in line when the first of it has waited for longer.
    now : monotonic seconds.
    """

    per_turn: int
    patience_s: float
    now: Callable[[], float]
    _n_begun: int = 0
    _turned_s: float = 0.0
    _still_s: float = 0.0
    _waiting: deque[tuple[float, T]] = field(default_factory=deque)

    @property
    def too_long(self) -> bool:
        """Whether nobody should join it now."""
        waiting = self._waiting
        return bool(waiting) and self._moving_s() - waiting[0][0] > self.patience_s

    @property
    def begun(self) -> bool:
        """Whether somebody has begun in this turn."""
        return self._n_begun > 0

    def begins(self) -> bool:
        """Whether one who comes now begins at once; if so, that is counted."""
        if self._waiting or self._n_begun >= self.per_turn:
            return False
        if not self._n_begun:
            self._turned_s = self.now()
        self._n_begun += 1
        return True

    def join(self, who: T) -> None:
        """Wait behind everybody else."""
        self._waiting.append((self._moving_s(), who))

    def next_turn(self) -> list[T]:
        """Who begins in the turn that begins now, those first who have waited longest."""
        now_s = self.now()
        self._still_s += max(0.0, now_s - self._turned_s - _LONGEST_TURN_S)
        self._turned_s = now_s
        n = self._n_begun = min(self.per_turn, len(self._waiting))
        return [self._waiting.popleft()[1] for _ in range(n)]

    def _moving_s(self) -> float:
        """Seconds, without those in which nothing turned."""
        now_s = self.now()
        return now_s - self._still_s - max(0.0, now_s - self._turned_s - _LONGEST_TURN_S)

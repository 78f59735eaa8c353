"""A token bucket: what may be taken per minute, with debt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_ROUNDING: Final = 1e-9


@dataclass(slots=True)
class Bucket:
    """Holds at most a minute's worth, which is also what it begins with.

    What is taken may be more than it holds: then it owes, and nobody gets in before it is paid
    back. A clock that steps back stands still.

    Parameters
    ----------
    per_minute : what flows in; positive.
    at_s : monotonic seconds at which ``level`` held.
    """

    per_minute: float
    level: float
    at_s: float

    @classmethod
    def full(cls, per_minute: float, now_s: float) -> Bucket:
        """One that nothing was taken of yet."""
        return cls(per_minute, per_minute, now_s)

    def at(self, now_s: float) -> float:
        """What it holds at ``now_s``, negative where it owes."""
        if now_s > self.at_s:
            gained = (now_s - self.at_s) * self.per_minute / 60.0
            self.level = min(self.per_minute, self.level + gained)
            self.at_s = now_s
        return self.level

    def wait_s(self, now_s: float) -> float:
        """Seconds until it holds one unit, or all it can where that is less; 0: it does."""
        short = min(1.0, self.per_minute) - self.at(now_s)
        return short * 60.0 / self.per_minute if short > _ROUNDING else 0.0

    def full_in_s(self, now_s: float) -> float:
        """Seconds until it holds a minute's worth."""
        return (self.per_minute - self.at(now_s)) * 60.0 / self.per_minute

    def take(self, amount: float, now_s: float) -> None:
        """Take so much, whatever it holds."""
        self.at(now_s)
        self.level -= amount

"""What meters of energy say: cumulative joules at a time; watts and counters turned into them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class MeterReading:
    """Joules that a meter has counted by a moment.

    Parameters
    ----------
    at_s : when it was read, on the monotonic clock of whoever uses it.
    energy_j : since an arbitrary beginning; never falls.
    origin : which beginning. Readings of two origins cannot be subtracted: between them the
        meter was not watched, or began anew.
    """

    at_s: float
    energy_j: float
    origin: int = 0


class Meter(Protocol):
    """Something that counts joules. One verb."""

    def read(self) -> MeterReading:
        """The joules counted by now.

        Raises
        ------
        MeterError
            The meter cannot be read at present.
        """
        ...


@dataclass(slots=True)
class PowerIntegral:
    """Joules from samples of power, by the trapezoid rule.

    Parameters
    ----------
    longest_gap_s : between samples further apart nobody knows what was drawn: nothing is added,
        and a new origin begins.
    """

    longest_gap_s: float = 2.0
    _last: tuple[float, float] | None = None
    _energy_j: float = 0.0
    _origin: int = 0

    def add(self, at_s: float, power_w: float) -> MeterReading:
        """The reading after one more sample; one that is not later than the last adds nothing."""
        if self._last is not None:
            last_s, last_w = self._last
            gap_s = at_s - last_s
            if gap_s <= 0:
                return MeterReading(last_s, self._energy_j, self._origin)
            if gap_s <= self.longest_gap_s:
                self._energy_j += gap_s * (last_w + power_w) / 2.0
            else:
                self._origin += 1
        self._last = (at_s, power_w)
        return MeterReading(at_s, self._energy_j, self._origin)


@dataclass(slots=True)
class WrappingCounter:
    """A sum without end from a counter that begins again at 0 after ``largest``.

    Right as long as it is read more than once per turn.
    """

    largest: int
    _last: int | None = None
    _sum: int = field(default=0)

    def add(self, count: int) -> int:
        """What was counted since the first call, whose result is 0."""
        if self._last is not None:
            step = count - self._last
            self._sum += step if step >= 0 else step + self.largest + 1
        self._last = count
        return self._sum

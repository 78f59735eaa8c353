"""A meter that can be read here, and what it covers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from coe.device import Scope
from coe.meter import Meter, MeterReading, PowerIntegral


@dataclass(frozen=True, slots=True)
class FoundMeter:
    """A meter that was read once, successfully.

    Parameters
    ----------
    name : its kind, such as ``"rapl"``.
    covers : what its joules are the joules of, for people.
    """

    name: str
    scope: Scope
    covers: str
    meter: Meter

    def __str__(self) -> str:
        return f"{self.name}, scope {self.scope}: {self.covers}"


@dataclass(frozen=True, slots=True)
class PowerMeter:
    """A meter made of something that only says watts: joules are integrated between reads.

    Parameters
    ----------
    power_w : the watts of now; may raise `MeterError`.
    """

    power_w: Callable[[], float]
    now: Callable[[], float]
    integral: PowerIntegral

    def read(self) -> MeterReading:
        """The joules of the samples so far."""
        power_w = self.power_w()
        return self.integral.add(self.now(), power_w)

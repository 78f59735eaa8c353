"""A meter read in the background, and in between whenever that is quick."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Never, Protocol

from coe.errors.gateway import MeterError
from coe.meter import Meter, MeterReading
from coe.services.enduring import Enduring, alongside, for_ever

Say = Callable[[str], None]


class Readings(Protocol):
    """Who wants to know what a meter says, such as `coe.energy.EnergyAccount`."""

    refresh: Callable[[], None] | None
    """Reads the meter now; ``None`` as long as it is not known to be quick."""

    def note_reading(self, reading: MeterReading) -> None:
        """The meter was read."""


@dataclass(slots=True)
class Sampler:
    """Reads a meter for an account, for one event loop.

    Parameters
    ----------
    say : told when the meter fails, and when it works again.
    period_s : time between two reads.
    quick_s : a meter that was once read in that time is read by the event loop itself, also when
        the account asks; another one in a thread, and only every ``period_s``.
    """

    meter: Meter
    account: Readings
    say: Say = lambda line: None
    period_s: float = 0.2
    quick_s: float = 100e-6
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    timer: Callable[[], float] = time.perf_counter
    _failing: bool = False
    _least_s: float = math.inf
    _reads: Enduring = field(default_factory=lambda: Enduring("reading the meter"))

    async def run(self) -> Never:
        """Sample until cancelled."""
        try:
            await for_ever("sampling the meter", self._turn, self.period_s, self.sleep)
        finally:
            self.account.refresh = None

    async def _turn(self) -> None:
        if self.account.refresh is None:
            self._hand_on(await asyncio.to_thread(self._attempt))
            # the least of all reads: other work in the process only adds to them
            if self._least_s <= self.quick_s:
                self.account.refresh = self.refresh
        else:
            self.refresh()
        await self.sleep(self.period_s)

    def refresh(self) -> None:
        """Read the meter now, for the account; raises nothing."""
        with self._reads:
            self._hand_on(self._attempt())

    def _attempt(self) -> MeterReading | MeterError:
        started = self.timer()
        with self._reads:
            try:
                reading = self.meter.read()
            except MeterError as error:
                return error
            self._least_s = min(self._least_s, self.timer() - started)
            return reading
        return MeterError("meter", self._reads.why)

    def _hand_on(self, read: MeterReading | MeterError) -> None:
        failing = isinstance(read, MeterError)
        if failing != self._failing:
            self.say(f"energy: {read}: modelled meanwhile" if failing else "energy: measured again")
        self._failing = failing
        if not isinstance(read, MeterError):
            self.account.note_reading(read)


def sampled(sampler: Sampler) -> AbstractAsyncContextManager[None]:
    """While it lasts, the sampler runs in the background."""
    return alongside(sampler.run, "meter")

"""A host that also says what the meter of its machine counts."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from coe.errors.gateway import MeterError
from coe.meter import MeterReading
from coe.replica import Host, HostReport, NodeReading
from coe.services.enduring import Enduring
from coe.services.metering.found import FoundMeter
from coe.services.metering.sampling import Sampler

Find = Callable[[], tuple[FoundMeter | None, list[MeterError]]]
"""The meter of this machine, or why there is none."""

_MEAN_S = 1.0
# an older reading says nothing of now
_OLDEST_S = 5.0


@dataclass(slots=True)
class NodeMeter:
    """The latest readings of this machine's meter.

    Parameters
    ----------
    origin : of this watch over the meter, drawn anew for each.
    refresh : as the sampler sets it.
    """

    found: FoundMeter
    origin: int = field(default_factory=lambda: secrets.randbits(62))
    now: Callable[[], float] = time.monotonic
    refresh: Callable[[], None] | None = None
    _recent: deque[MeterReading] = field(default_factory=deque)

    def note_reading(self, reading: MeterReading) -> None:
        """The meter was read; what the mean power needs is kept."""
        recent = self._recent
        if recent and recent[-1].origin != reading.origin:
            recent.clear()
        if recent and reading.at_s <= recent[-1].at_s:
            return
        recent.append(reading)
        while len(recent) > 2 and recent[1].at_s <= reading.at_s - _MEAN_S:
            recent.popleft()

    def reading(self) -> NodeReading | None:
        """The latest one, read now where that is quick; ``None``: for too long there was none."""
        if self.refresh is not None:
            self.refresh()
        if not self._recent:
            return None
        first, last = self._recent[0], self._recent[-1]
        age_s = self.now() - last.at_s
        if age_s > _OLDEST_S:
            return None
        span_s = last.at_s - first.at_s
        power_w = (last.energy_j - first.energy_j) / span_s if span_s > _MEAN_S / 2 else None
        origin, found = self.origin + last.origin, self.found
        return NodeReading(last.energy_j, origin, age_s, found.scope, found.name, power_w)


class MeteredHost:
    """A `coe.replica.Host` whose reports hold what the meter of this machine counts.

    The meter is looked for at the first start. Without one, reports say why.

    Parameters
    ----------
    host : keeps the engine.
    find : may take a while, and is called in a thread.
    now : the clock of the readings.
    """

    def __init__(self, host: Host, find: Find, now: Callable[[], float] = time.monotonic) -> None:
        self._host = host
        self.find = find
        self._now = now
        self._meter: NodeMeter | None = None
        self._why = ""
        self._metering: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to read the meter, and as `Host.start`."""
        if self._metering is None:
            self._metering = asyncio.create_task(self._measure(), name="meter")
        await self._host.start()

    async def report(self) -> HostReport:
        """The host's, with the joules of the moment in which it was made."""
        report = await self._host.report()
        reading = None if self._meter is None else self._meter.reading()
        return replace(report, meter=reading, unmetered="" if reading else self._why)

    async def changed(self) -> None:
        """As `Host.changed`."""
        await self._host.changed()

    async def drain(self, timeout_s: float) -> bool:
        """As `Host.drain`."""
        return await self._host.drain(timeout_s)

    async def stop(self) -> None:
        """As `Host.stop`; the meter is read no more."""
        metering, self._metering = self._metering, None
        if metering is not None:
            metering.cancel()
            await asyncio.gather(metering, return_exceptions=True)
        self._meter = None
        await self._host.stop()

    async def _measure(self) -> None:
        looking = Enduring("looking for a meter")
        with looking:
            await self._sample()
            return
        self._why = looking.why

    async def _sample(self) -> None:
        found, failed = await asyncio.to_thread(self.find)
        if found is None:
            self._why = "; ".join(f"{error.meter}: {error.reason}" for error in failed)
        else:
            self._meter = NodeMeter(found, now=self._now)
            await Sampler(found.meter, self._meter, self._remark).run()

    def _remark(self, line: str) -> None:
        self._why = line

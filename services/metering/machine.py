"""The account of the machine that the gateway runs on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from coe.config import MeteringSection
from coe.energy import EnergyAccount
from coe.errors.files import ConfigError
from coe.errors.gateway import MeterError
from coe.services.metering.detect import ON_CPU, survey
from coe.services.metering.found import FoundMeter
from coe.services.metering.sampling import Sampler, sampled

Say = Callable[[str], None]


@asynccontextmanager
async def metered(
    section: MeteringSection,
    say: Say = lambda line: None,
    now: Callable[[], float] = time.monotonic,
) -> AsyncIterator[EnergyAccount | None]:
    """The account of this machine, its meter sampled while the context lasts.

    ``None`` where joules are modelled: as configured, or because ``auto`` found no meter.

    Raises
    ------
    ConfigError
        The configured meter cannot be read.
    """
    found = await asyncio.to_thread(_required, section, say, now)
    if found is None:
        yield None
        return
    say(f"energy of embedded experts: measured by {found}")
    account = EnergyAccount(found.scope, section.idle_w, now=now)
    async with sampled(Sampler(found.meter, account, say)):
        yield account


def kinds(section: MeteringSection, auto: tuple[str, ...] = ON_CPU) -> tuple[str, ...]:
    """The kinds of meter to try, best first; ``auto`` are those that ``meter: auto`` stands for."""
    if section.meter == "auto":
        return auto
    return () if section.meter == "modelled" else (section.meter,)


def chosen(
    section: MeteringSection,
    auto: tuple[str, ...] = ON_CPU,
    now: Callable[[], float] = time.monotonic,
) -> tuple[FoundMeter | None, list[MeterError]]:
    """The first of the `kinds` that can be read here, and why those before it cannot."""
    failed: list[MeterError] = []
    for kind in kinds(section, auto):
        found, errors = survey((kind,), section.sysfs, now)
        if found:
            return found[0], failed
        failed += errors
    return None, failed


def _required(section: MeteringSection, say: Say, now: Callable[[], float]) -> FoundMeter | None:
    found, failed = chosen(section, now=now)
    if found is not None:
        return found
    if section.meter != "auto" and failed:
        raise ConfigError(f"metering.meter: {failed[0]}") from failed[0]
    for error in failed:
        if error.remedy:
            say(f"energy of embedded experts: modelled, not measured: {error}")
    return None

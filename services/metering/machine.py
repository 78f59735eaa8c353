"""The account of the machine that the gateway runs on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from coe.config import MeteringSection
from coe.energy import EnergyAccount
from coe.errors import ConfigError
from coe.services.metering.detect import ON_CPU, SYSFS, survey
from coe.services.metering.found import FoundMeter
from coe.services.metering.sampling import Sampler, sampled

Say = Callable[[str], None]


@asynccontextmanager
async def metered(
    section: MeteringSection,
    say: Say = lambda line: None,
    sysfs: Path = SYSFS,
    now: Callable[[], float] = time.monotonic,
) -> AsyncIterator[EnergyAccount | None]:
    """The account of this machine, its meter sampled while the context lasts.

    ``None`` where joules are modelled: as configured, or because ``auto`` found no meter.

    Raises
    ------
    ConfigError
        The configured meter cannot be read.
    """
    found = await asyncio.to_thread(_chosen, section, say, sysfs, now)
    if found is None:
        yield None
        return
    say(f"energy of embedded experts: measured by {found}")
    account = EnergyAccount(found.scope, section.idle_w, now=now)
    async with sampled(Sampler(found.meter, account, say)):
        yield account


def kinds(section: MeteringSection) -> tuple[str, ...]:
    """The kinds of meter to try for the engines of this machine, best first."""
    if section.meter == "auto":
        return ON_CPU
    return () if section.meter == "modelled" else (section.meter,)


def _chosen(
    section: MeteringSection, say: Say, sysfs: Path, now: Callable[[], float]
) -> FoundMeter | None:
    failed = []
    for kind in kinds(section):
        found, errors = survey((kind,), sysfs, now)
        if found:
            return found[0]
        failed += errors
    if section.meter != "auto" and failed:
        raise ConfigError(f"metering.meter: {failed[0]}") from failed[0]
    for error in failed:
        if error.remedy:
            say(f"energy of embedded experts: modelled, not measured: {error}")
    return None

"""Which meters this machine has, best first, and why not the others."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path

from coe.errors.gateway import MeterError
from coe.services.metering.found import FoundMeter
from coe.services.metering.ina3221 import open_ina3221
from coe.services.metering.jtop import open_jtop
from coe.services.metering.nvml import open_nvml
from coe.services.metering.rapl import open_rapl

ALL = ("ina3221", "jtop", "nvml", "rapl")
"""Every kind. A board's rails cover all that works in it; a GPU board or a processor less."""

ON_CPU = ("ina3221", "jtop", "rapl")
"""What sees an engine that runs on the processor: a GPU's meter does not."""


def open_meter(name: str, root: Path, now: Callable[[], float] = time.monotonic) -> FoundMeter:
    """The meter of this kind, read once.

    Parameters
    ----------
    name : one of `ALL`.
    root : where sysfs is mounted.
    now : monotonic seconds, for the readings.

    Raises
    ------
    MeterError
        This machine has none, or it may not be read.
    """
    if name == "ina3221":
        return open_ina3221(root, now)
    if name == "rapl":
        return open_rapl(root, now)
    return open_jtop(now) if name == "jtop" else open_nvml(now)


def survey(
    names: Iterable[str], root: Path, now: Callable[[], float] = time.monotonic
) -> tuple[list[FoundMeter], list[MeterError]]:
    """The meters that can be read, in the order of ``names``, and why each other one cannot."""
    found, failed = [], []
    for name in names:
        try:
            found.append(open_meter(name, root, now))
        except MeterError as error:
            failed.append(error)
    return found, failed

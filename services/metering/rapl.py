"""Energy counters of x86 processors (RAPL) in the kernel's powercap tree."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from coe.errors.gateway import MeterError
from coe.meter import MeterReading, WrappingCounter
from coe.services.metering.found import FoundMeter

NAME = "rapl"
# subzones end in another number; the same package appears again as intel-rapl-mmio:0
_ZONE = re.compile(r"intel-rapl:\d+")


@dataclass(frozen=True, slots=True)
class RaplMeter:
    """The sum of the packages' counters, each of which turns over by itself."""

    packages: Sequence[tuple[Path, WrappingCounter]]
    now: Callable[[], float]

    def read(self) -> MeterReading:
        """Joules since the first read."""
        try:
            counts = [counter.add(int(file.read_text())) for file, counter in self.packages]
        except (OSError, ValueError) as error:
            raise MeterError(NAME, f"stopped giving figures ({error})") from error
        return MeterReading(self.now(), sum(counts) / 1e6)


def open_rapl(root: Path, now: Callable[[], float]) -> FoundMeter:
    """The meter of this machine's processor packages.

    Of the zones only whole packages count: cores and uncore are parts of one, and ``psys``
    holds them all. Memory (``dram``) is left out, so that machines with and without that zone
    compare.

    Parameters
    ----------
    root : where sysfs is mounted.

    Raises
    ------
    MeterError
        There is no package, or its counter may not be read.
    """
    folder = root / "class/powercap"
    zones = sorted(zone for zone in folder.glob("intel-rapl:*") if _ZONE.fullmatch(zone.name))
    packages, names = [], []
    for zone in zones:
        try:
            name = (zone / "name").read_text().strip()
            if not name.startswith("package"):
                continue
            (zone / "energy_uj").read_text()
            largest = int((zone / "max_energy_range_uj").read_text())
        except PermissionError as error:
            raise MeterError(
                NAME,
                f"{zone / 'energy_uj'} may only be read by root",
                "allow it as docs/energy.md says",
            ) from error
        except (OSError, ValueError) as error:
            raise MeterError(NAME, f"{zone} gives no figures ({error})") from error
        packages.append((zone / "energy_uj", WrappingCounter(largest)))
        names.append(name)
    if not packages:
        raise MeterError(NAME, f"no processor package in {folder}")
    meter = RaplMeter(packages, now)
    meter.read()
    return FoundMeter(NAME, "rail", " + ".join(names), meter)

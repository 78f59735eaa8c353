"""Power rails of a Jetson: INA3221 sensors in the kernel's hwmon tree."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from coe.errors.gateway import MeterError
from coe.meter import PowerIntegral
from coe.services.metering.found import FoundMeter, PowerMeter
from coe.services.metering.rails import counted_rails

NAME = "ina3221"
# in4 to in7 are shunt voltages and their sum
_LABEL = re.compile(r"in([123])_label")


@dataclass(frozen=True, slots=True)
class _Rail:
    voltage_mv: Path
    current_ma: Path

    def power_w(self) -> float:
        """Raises `OSError` or `ValueError` where there is no figure."""
        return int(self.voltage_mv.read_text()) * int(self.current_ma.read_text()) / 1e6


def open_ina3221(root: Path, now: Callable[[], float]) -> FoundMeter:
    """The meter of this board's rails, whose watts are integrated between reads.

    Parameters
    ----------
    root : where sysfs is mounted.

    Raises
    ------
    MeterError
        There is no such sensor, or no rail of it can be read.
    """
    rails = _readable(root)
    labels, scope = counted_rails(rails)
    if not labels:
        raise MeterError(NAME, f"no sensor with a readable rail in {root / 'class/hwmon'}")

    def power_w() -> float:
        try:
            return sum(rails[label].power_w() for label in labels)
        except (OSError, ValueError) as error:
            raise MeterError(NAME, f"stopped giving figures ({error})") from error

    meter = PowerMeter(power_w, now, PowerIntegral())
    meter.read()
    return FoundMeter(NAME, scope, " + ".join(labels), meter)


def _readable(root: Path) -> Mapping[str, _Rail]:
    """The rails by label, without those of disabled channels."""
    rails = {}
    for sensor in sorted(root.glob("class/hwmon/hwmon*")):
        if _text(sensor / "name") != NAME:
            continue
        for file in sorted(sensor.iterdir()):
            if channel := _LABEL.fullmatch(file.name):
                rail = _Rail(sensor / f"in{channel[1]}_input", sensor / f"curr{channel[1]}_input")
                try:
                    rail.power_w()
                except (OSError, ValueError):
                    continue
                rails[_text(file)] = rail
    return rails


def _text(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""

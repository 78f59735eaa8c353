"""NVIDIA GPU boards, by NVIDIA's management library (extra ``nvidia``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from coe.errors.gateway import MeterError
from coe.meter import MeterReading, PowerIntegral
from coe.services.metering.found import FoundMeter

NAME = "nvml"


@dataclass(frozen=True, slots=True)
class _Gpu:
    """One board: its energy counter, or the integral of its power where it has none."""

    library: Any
    handle: Any
    now: Callable[[], float]
    integral: PowerIntegral | None

    def read(self) -> MeterReading:
        if self.integral is None:
            energy_mj = self.library.nvmlDeviceGetTotalEnergyConsumption(self.handle)
            return MeterReading(self.now(), energy_mj / 1000.0)
        power_mw = self.library.nvmlDeviceGetPowerUsage(self.handle)
        return self.integral.add(self.now(), power_mw / 1000.0)


@dataclass(frozen=True, slots=True)
class NvmlMeter:
    """The sum of the machine's GPU boards."""

    library: Any
    gpus: Sequence[_Gpu]

    def read(self) -> MeterReading:
        """Joules of all boards since their drivers were loaded."""
        try:
            readings = [gpu.read() for gpu in self.gpus]
        except self.library.NVMLError as error:
            raise MeterError(NAME, f"stopped giving figures ({error})") from error
        return MeterReading(
            at_s=readings[-1].at_s,
            energy_j=sum(reading.energy_j for reading in readings),
            origin=sum(reading.origin for reading in readings),
        )


def open_nvml(now: Callable[[], float], library: Any = None) -> FoundMeter:
    """The meter of all GPUs of this machine that report energy or power.

    Parameters
    ----------
    library : the module ``pynvml``, or what answers like it; imported by default.

    Raises
    ------
    MeterError
        The library or the driver is not here, or no GPU reports anything (a Jetson's does not).
    """
    if library is None:
        library = _library()
    try:
        library.nvmlInit()
        handles = [
            library.nvmlDeviceGetHandleByIndex(k) for k in range(library.nvmlDeviceGetCount())
        ]
        names = [library.nvmlDeviceGetName(handle) for handle in handles]
    except library.NVMLError as error:
        raise MeterError(NAME, f"no NVIDIA driver ({error})") from error
    found = [
        (name, gpu)
        for name, handle in zip(names, handles, strict=True)
        if (gpu := _readable(library, handle, now)) is not None
    ]
    if not found:
        raise MeterError(NAME, f"neither energy nor power of {', '.join(names) or 'any GPU'}")
    meter = NvmlMeter(library, [gpu for _, gpu in found])
    return FoundMeter(NAME, "board", " + ".join(name for name, _ in found), meter)


def _library() -> Any:
    try:
        import pynvml
    except ImportError as error:
        raise MeterError(NAME, "nvidia-ml-py is not installed") from error
    return pynvml


def _readable(library: Any, handle: Any, now: Callable[[], float]) -> _Gpu | None:
    for integral in (None, PowerIntegral()):
        gpu = _Gpu(library, handle, now, integral)
        try:
            gpu.read()
        except library.NVMLError:
            continue
        return gpu
    return None

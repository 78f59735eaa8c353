"""Power rails of a Jetson, by the service of jetson-stats (extra ``jetson``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from coe.errors.gateway import MeterError
from coe.meter import MeterReading, PowerIntegral
from coe.services.metering.found import FoundMeter
from coe.services.metering.rails import counted_rails

NAME = "jtop"
_INTERVAL_S = 0.5
# the service goes by the interval of whoever came first: a second by default
_LONGEST_GAP_S = 5.0
_SENSORS = frozenset({"INA3221", "INA238"})


@dataclass(slots=True)
class JtopMeter:
    """Integrates what the service says, once per message: its own totals count rails twice."""

    client: Any
    library: Any
    labels: tuple[str, ...]
    now: Callable[[], float]
    _integral: PowerIntegral = field(default_factory=lambda: PowerIntegral(_LONGEST_GAP_S))
    _message: Any = None
    _reading: MeterReading | None = None

    def read(self) -> MeterReading:
        """The joules by the newest message, and when that was first seen."""
        message = _message(self.client, self.library)
        if self._reading is None or message is not self._message:
            rails = _rails(message)
            try:
                power_w = sum(rails[label] for label in self.labels)
            except KeyError as error:
                raise MeterError(NAME, f"rail {error} is gone") from error
            self._message, self._reading = message, self._integral.add(self.now(), power_w)
        return self._reading


def open_jtop(now: Callable[[], float], library: Any = None) -> FoundMeter:
    """The meter of this board's rails, as the running ``jtop.service`` reports them.

    Parameters
    ----------
    library : the module ``jtop``, or what answers like it; imported by default.

    Raises
    ------
    MeterError
        The library or its service is not here, or it knows no rail.
    """
    if library is None:
        library = _library()
    client = library.jtop(interval=_INTERVAL_S)
    try:
        client.start()
    except (library.JtopException, OSError) as error:
        reason = " ".join(str(error).split())
        raise MeterError(NAME, f"its service does not answer ({reason})") from error
    labels, scope = counted_rails(_rails(_message(client, library)))
    if not labels:
        client.close()
        raise MeterError(NAME, "its service knows no power rail")
    meter = JtopMeter(client, library, labels, now)
    meter.read()
    return FoundMeter(NAME, scope, " + ".join(labels), meter)


def _library() -> Any:
    try:
        import jtop
    except ImportError as error:
        raise MeterError(NAME, "jetson-stats is not installed") from error
    return jtop


def _message(client: Any, library: Any) -> Mapping[str, Any]:
    try:
        if not client.ok(spin=True):
            raise MeterError(NAME, "its service has ended")
        power: Mapping[str, Any] = client.power
    except (library.JtopException, OSError, EOFError) as error:
        raise MeterError(NAME, f"its service is lost ({error})") from error
    return power


def _rails(power: Mapping[str, Any]) -> dict[str, float]:
    """Watts by rail, without batteries and USB supplies; the total, where it is a rail, too."""
    rows = dict(power.get("rail", {}))
    total = power.get("tot", {})
    if "name" in total:
        rows[total["name"]] = total
    return {name: row["power"] / 1000.0 for name, row in rows.items() if row["type"] in _SENSORS}

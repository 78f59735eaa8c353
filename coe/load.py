"""How busy an expert is, and how much of it is there."""

from __future__ import annotations

from typing import NamedTuple

_SMOOTHING = 0.2  # weight of the latest request in what is learned of an expert's slowdown


class Load(NamedTuple):
    """How busy an expert is: requests it is answering, and measured over predicted time.

    ``n_copies`` share the requests. ``delay_ms`` passes before anything is done for the next one.
    A tuple, as every request makes a few of them.
    """

    n_in_flight: int = 0
    slowdown: float = 1.0
    n_copies: int = 1
    delay_ms: float = 0.0

    def entered(self) -> Load:
        """With one request more."""
        return Load(self.n_in_flight + 1, self.slowdown, self.n_copies, self.delay_ms)

    def shared(self, there: Presence) -> Load:
        """With the requests of all gateways, for the copies that are there."""
        n_in_flight = max(self.n_in_flight, there.n_in_flight)
        return Load(n_in_flight, self.slowdown, there.n_copies, there.delay_ms)

    def left(self, slowdown: float | None = None) -> Load:
        """With one request less, which took ``slowdown`` times what was predicted, if it is known.

        One request cannot say much: it counts as between a tenth and ten times.
        """
        learned = self.slowdown
        if slowdown is not None:
            learned += _SMOOTHING * (min(max(slowdown, 0.1), 10.0) - learned)
        return Load(self.n_in_flight - 1, learned, self.n_copies, self.delay_ms)


class Presence(NamedTuple):
    """The copies of an expert that can answer now, and the requests in all of them.

    ``delay_ms``: how long a new request waits for the expert to be loaded.
    """

    n_copies: int
    n_in_flight: int
    delay_ms: float = 0.0

"""When a stream that is slow to begin is asked for a second time, of another copy (Dean 2013)."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from coe.guard.window import Window

QUANTILE = 0.95
LEAST_KNOWN = 20
"""First tokens that must be known before one is called late."""

_KEPT, _RENEWED_EVERY = 200, 20


@dataclass(slots=True)
class Hedging:
    """One expert's first tokens of late, and how many second requests are left.

    Parameters
    ----------
    percent : second requests per hundred streams of the last minute; whole, 5 at most. There is no
        floor: of few streams none is asked for twice.
    n_hedged, n_won : second requests since the start, and those that began first.
    """

    percent: int = 2
    n_hedged: int = 0
    n_won: int = 0
    _paid: Window = field(default_factory=lambda: Window(60.0))
    _firsts_s: deque[float] = field(default_factory=lambda: deque(maxlen=_KEPT))
    _late_s: float | None = None
    _n_since: int = 0

    @property
    def delay_s(self) -> float | None:
        """After how long a first token is late; ``None``: too few are known."""
        return self._late_s

    def asked(self, now_s: float) -> None:
        """A stream is asked for."""
        self._paid.add(now_s, self.percent)

    def began(self, first_s: float) -> None:
        """A first token came after so long, or was given up then."""
        self._firsts_s.append(first_s)
        self._n_since += 1
        if len(self._firsts_s) >= LEAST_KNOWN and self._n_since >= _RENEWED_EVERY:
            self._n_since = 0
            ordered = sorted(self._firsts_s)
            self._late_s = ordered[int(QUANTILE * len(ordered))]

    def take(self, now_s: float) -> bool:
        """Whether a second request may be made now; if so, it is counted."""
        self._paid.forget(now_s)
        if self._paid.n < 100:
            return False
        self._paid.add(now_s, -100)
        self.n_hedged += 1
        return True

"""How often a cascade may go on to its dearer stages: a token bucket for each tenant.

Whoever finds words that make every prompt look hard could have the dearest experts answer all of
them. So the share of that is bounded, whatever the words: of any tenant at most ``burst`` and a
rate times the time go on; the others are answered by the first stage. Nothing is refused.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Escalations:
    """Buckets that fill with time and are emptied by going on.

    Parameters
    ----------
    per_minute : that each tenant may go on for good; positive.
    burst : that it may go on at once after a pause; at least 1.
    now : monotonic seconds.
    most_tenants : buckets kept. Who comes when all of them are in use shares one with all others
        that do: new names are no way to a full bucket.
    """

    per_minute: float
    burst: float
    now: Callable[[], float]
    most_tenants: int = 10_000
    _kept: OrderedDict[str, tuple[float, float]] = field(default_factory=OrderedDict)
    _shared: tuple[float, float] | None = None

    def take(self, tenant: str) -> bool:
        """Whether ``tenant`` may go on now; if so, that is booked. Constant time, amortised."""
        now = self.now()
        self._forget(now)
        bucket = self._kept.get(tenant)
        if bucket is None and len(self._kept) >= self.most_tenants:
            left = self._filled(self._shared, now)
            self._shared = (left - (left >= 1), now)
            return left >= 1
        left = self._filled(bucket, now)
        self._kept[tenant] = (left - (left >= 1), now)
        self._kept.move_to_end(tenant)
        return left >= 1

    def _filled(self, bucket: tuple[float, float] | None, now: float) -> float:
        """What is in a bucket of which this was left then; a new one is full."""
        if bucket is None:
            return self.burst
        left, then = bucket
        return min(self.burst, left + (now - then) * self.per_minute / 60.0)

    def _forget(self, now: float) -> None:
        """Drop buckets that are full again, longest unused first: they are as good as new."""
        while self._kept:
            tenant, bucket = next(iter(self._kept.items()))
            if self._filled(bucket, now) < self.burst:
                return
            del self._kept[tenant]

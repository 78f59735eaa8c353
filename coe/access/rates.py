"""What each key takes per minute: requests when they come, tokens and joules once known."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from typing import Final

from coe.access.bucket import Bucket
from coe.access.caller import NO_RATES, Caller, Rates
from coe.errors.callers import RateLimitError

_RESOURCES: Final = tuple(rate.name for rate in fields(Rates))


@dataclass(slots=True)
class RateMeter:
    """The buckets of every key that has rates; as many as there are such keys.

    A request is let in where the key has a request left, and owes neither tokens nor joules. What
    those come to is known from the receipt, and taken then: a bucket may owe, so that over the long
    run no more is taken than flows in, and what is asked for at once only shifts it.

    Parameters
    ----------
    now : monotonic seconds.
    """

    now: Callable[[], float]
    _kept: dict[str, tuple[Rates, dict[str, Bucket]]] = field(default_factory=dict)

    def admit(self, caller: Caller) -> None:
        """Count a request of ``caller``, or of nobody without rates.

        Raises
        ------
        RateLimitError
            It may not ask now; nothing was counted.
        """
        buckets, now_s = self._of(caller), self.now()
        waits = {name: bucket.wait_s(now_s) for name, bucket in buckets.items()}
        late = max(waits, key=waits.__getitem__, default="")
        if late and waits[late] > 0:
            raise RateLimitError(
                f"this key takes more than {buckets[late].per_minute:g} {late} per minute",
                None,
                retry_after_s=math.ceil(waits[late]),
            )
        if "requests" in buckets:
            buckets["requests"].take(1.0, now_s)

    def charge(self, key_id: str, tokens: float, joules: float) -> None:
        """Take what an answer took; of a key without rates, nothing."""
        (_, buckets), now_s = self._kept.get(key_id, (NO_RATES, {})), self.now()
        for name, amount in (("tokens", tokens), ("joules", joules)):
            if name in buckets:
                buckets[name].take(amount, now_s)

    def told(self, caller: Caller) -> Iterator[tuple[str, str]]:
        """Headers that say what the key has left: whole units, and seconds until all is back."""
        now_s = self.now()
        for name, bucket in self._of(caller).items():
            left = max(0, math.floor(bucket.at(now_s)))
            yield f"x-ratelimit-limit-{name}", f"{bucket.per_minute:g}"
            yield f"x-ratelimit-remaining-{name}", str(left)
            yield f"x-ratelimit-reset-{name}", f"{bucket.full_in_s(now_s):.3f}s"

    def _of(self, caller: Caller) -> dict[str, Bucket]:
        """The buckets of a key under the rates that it has now; of changed ones, new."""
        if caller.rates == NO_RATES:
            self._kept.pop(caller.key_id, None)
            return {}
        rates, known = self._kept.get(caller.key_id, (NO_RATES, {}))
        if rates == caller.rates:
            return known
        buckets = dict[str, Bucket]()
        for name in _RESOURCES:
            per_minute = getattr(caller.rates, name)
            if per_minute is None:
                continue
            if name in known and known[name].per_minute == per_minute:
                buckets[name] = known[name]
            else:
                buckets[name] = Bucket.full(per_minute, self.now())
        self._kept[caller.key_id] = (caller.rates, buckets)
        return buckets

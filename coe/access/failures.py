"""Addresses that show keys which are none: how many of them are answered, and when no more."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_address

from coe.access.bucket import Bucket


@dataclass(slots=True)
class Failures:
    """A bucket for every address that fails; the one unheard of longest goes first.

    Parameters
    ----------
    per_minute : wrong keys of one address that are called wrong; those beyond are put off.
    now : monotonic seconds.
    most_addresses : kept at once. Who has more can have the oldest forgotten.
    """

    per_minute: float
    now: Callable[[], float]
    most_addresses: int = 10_000
    _buckets: OrderedDict[str, Bucket] = field(default_factory=OrderedDict)

    def __len__(self) -> int:
        """How many addresses are kept."""
        return len(self._buckets)

    def note(self, address: str) -> int | None:
        """Count a wrong key from ``address``; ``None``, or whole seconds that it is put off for.

        The addresses of an IPv6 network of 64 bits, which one machine has, count as one.
        """
        place, now_s = _place(address), self.now()
        bucket = self._buckets.get(place)
        if bucket is None:
            if len(self._buckets) >= self.most_addresses:
                self._buckets.popitem(last=False)
            bucket = self._buckets[place] = Bucket.full(self.per_minute, now_s)
        self._buckets.move_to_end(place)
        if (wait_s := bucket.wait_s(now_s)) > 0:
            return math.ceil(wait_s)
        bucket.take(1.0, now_s)
        return None


def _place(address: str) -> str:
    try:
        parsed = ip_address(address)
    except ValueError:
        return ""
    if not isinstance(parsed, IPv6Address):
        return str(parsed)
    return str(parsed.ipv4_mapped or parsed.packed[:8].hex())

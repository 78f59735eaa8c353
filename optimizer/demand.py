"""How many requests are still to come."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(slots=True)
class Arrivals:
    """Recent rate of requests: a count in which older ones fade.

    Parameters
    ----------
    memory_s : a request this old counts 1 / e.
    since_s : when counting began.
    count, at_s : the faded count as of then.
    """

    memory_s: float
    since_s: float
    count: float = 0.0
    at_s: float = -math.inf

    def add(self, now_s: float) -> None:
        """Count one request."""
        self.count = self._faded(now_s) + 1.0
        self.at_s = max(now_s, self.at_s)

    def per_s(self, now_s: float) -> float:
        """Requests per second, unbiased for a steady stream however short the count has run.

        Finite: at the very start the count is taken over a hundredth of the memory.
        """
        age = max(now_s - self.since_s, self.memory_s / 100.0)
        return self._faded(now_s) / (self.memory_s * -math.expm1(-age / self.memory_s))

    def _faded(self, now_s: float) -> float:
        return self.count * math.exp(-max(now_s - self.at_s, 0.0) / self.memory_s)

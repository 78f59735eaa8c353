"""Budgets over time of several processes: each knows what all of them saw and spent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coe.optimizer.pacing import Pacer

Floats = NDArray[np.float64]


class CommonPacer(Pacer):
    """A pacer that tells the others of its requests, and hears of theirs.

    All have one clock, and windows that begin together; what is under way between them is missing
    from prices for moments, and from no sum in the end.
    """

    publish: Callable[[str, list[Any]], None] = staticmethod(lambda kind, words: None)
    """Tells the others; set once there are any."""

    def observe(
        self, now_s: float, quality: Floats, usage: Floats, tenant: str | None = None
    ) -> None:
        """As `Pacer.observe`."""
        super().observe(now_s, quality, usage, tenant)
        self.publish("observed", [now_s, quality.tolist(), usage.tolist(), tenant])

    def settle(self, began_s: float, spent: Mapping[str, float], tenant: str | None = None) -> None:
        """As `Pacer.settle`."""
        super().settle(began_s, spent, tenant)
        self.publish("settled", [began_s, dict(spent), tenant])

    def hear(self, kind: str, words: list[Any]) -> None:
        """What another process observed or settled; nothing where it paces other resources yet."""
        if kind == "settled":
            super().settle(*words)
            return
        now_s, quality, usage, tenant = words
        options = np.array(usage, dtype=float).reshape(len(quality), -1)
        if options.shape[1] == len(self.resources):
            super().observe(now_s, np.array(quality, dtype=float), options, tenant)

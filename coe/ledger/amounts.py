"""What is counted, in whole numbers."""

from __future__ import annotations

import math
from typing import NamedTuple

MOST = 2**53 - 1
"""The largest amount of anything: what every store and language keeps exactly."""


class Amounts(NamedTuple):
    """So much of each resource: microjoules, millionths of a US dollar, tokens, requests.

    A tuple, as all that is made several times per request: made in a quarter of the time.
    """

    energy_uj: int = 0
    cost_uusd: int = 0
    tokens: int = 0
    requests: int = 0

    @classmethod
    def of(
        cls, energy_j: float = 0.0, cost_usd: float = 0.0, tokens: int = 0, requests: int = 0
    ) -> Amounts:
        """Joules and dollars as whole millionths, rounded up, and counts as they are.

        Raises
        ------
        ValueError
            A figure is negative, not finite, or above `MOST`.
        """
        for name, value in (("energy_j", energy_j), ("cost_usd", cost_usd)):
            if not math.isfinite(value):
                raise ValueError(f"{name} must be finite, not {value!r}")
        return cls(_millionths(energy_j), _millionths(cost_usd), tokens, requests).checked()

    def checked(self) -> Amounts:
        """These amounts.

        Raises
        ------
        ValueError
            One of them is not a whole number between 0 and `MOST`.
        """
        for name, value in zip(RESOURCES, self, strict=True):
            if type(value) is not int or not 0 <= value <= MOST:
                raise ValueError(f"{name} must be a whole number from 0 to {MOST}, not {value!r}")
        return self

    def plus(self, other: Amounts) -> Amounts:
        """Both together."""
        if other is NOTHING:
            # as most parts of a balance that is booked on
            return self
        return Amounts(
            self.energy_uj + other.energy_uj,
            self.cost_uusd + other.cost_uusd,
            self.tokens + other.tokens,
            self.requests + other.requests,
        )

    def minus(self, other: Amounts) -> Amounts:
        """What is left without ``other``; negative where that was more."""
        return Amounts(
            self.energy_uj - other.energy_uj,
            self.cost_uusd - other.cost_uusd,
            self.tokens - other.tokens,
            self.requests - other.requests,
        )

    def beyond(self, hold: Amounts) -> Amounts:
        """By how much each exceeds ``hold``; 0 where it does not."""
        return Amounts(*map(max, self.minus(hold), NOTHING))


RESOURCES = Amounts._fields
"""Names of what is counted, in the order of the fields of `Amounts`."""

NOTHING = Amounts()


def _millionths(value: float) -> int:
    # seven digits behind the unit are noise of binary fractions: 0.1 J is 100000 uJ, not 100001
    return math.ceil(round(value * 1e6, 6))

"""How many requests are being answered, of whom, and whether one more may be."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from coe.errors import OverloadedError

_SOONEST_S, _LATEST_S = 1, 5


@dataclass(slots=True)
class Crowd:
    """The requests that are being answered.

    Parameters
    ----------
    most : at once; positive.
    most_per_caller : at once of one caller; positive. Who is nobody in particular (``""``) shares
        the first limit only.
    rng : spreads the times at which those who are refused may ask again.
    """

    most: int
    most_per_caller: int
    rng: np.random.Generator
    n: int = 0
    _by_caller: Counter[str] = field(default_factory=Counter)

    def enter(self, caller: str) -> None:
        """Count a request in; to be followed by exactly one `leave`. Constant time.

        Raises
        ------
        OverloadedError
            There are as many as there may be; nothing was counted.
        """
        if self.n >= self.most:
            raise self._refusal(f"{self.most} requests are being answered")
        if caller and self._by_caller[caller] >= self.most_per_caller:
            raise self._refusal(f"{self.most_per_caller} of your requests are being answered")
        self.n += 1
        if caller:
            self._by_caller[caller] += 1

    def leave(self, caller: str) -> None:
        """Count a request out."""
        self.n -= 1
        if caller:
            self._by_caller[caller] -= 1
            if not self._by_caller[caller]:
                del self._by_caller[caller]

    def _refusal(self, why: str) -> OverloadedError:
        after_s = int(self.rng.integers(_SOONEST_S, _LATEST_S, endpoint=True))
        return OverloadedError(f"{why}, and no more may be at once: ask again later", after_s)

"""When this gateway itself was late: what ran out of time then says nothing of an expert."""

from __future__ import annotations

import math
from dataclasses import dataclass

LATE_S = 0.25
"""So late, or later, is late."""


@dataclass(slots=True)
class Lag:
    """When the event loop was last found late.

    Parameters
    ----------
    last_s : ``-inf``: never.
    """

    last_s: float = -math.inf

    def note(self, late_s: float, now_s: float) -> None:
        """It was so late just now."""
        if late_s >= LATE_S:
            self.last_s = now_s

    def since(self, then_s: float) -> bool:
        """Whether it was late at that time or since."""
        return self.last_s >= then_s

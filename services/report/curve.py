"""What retrieving for a share of the questions brings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class GateCurve:
    """Accuracy against the share of questions that a retrieval gate retrieves for.

    Parameters
    ----------
    share_retrieved, accuracy : (n_points,) in [0, 1], by rising share.
    never, always : accuracy of the two constant policies.
    oracle : share and accuracy of retrieving exactly where it helps.
    chosen : share and accuracy of the gate at the price it is used with; ``None`` if none is
        chosen.
    """

    share_retrieved: Floats
    accuracy: Floats
    never: float
    always: float
    oracle: tuple[float, float]
    chosen: tuple[float, float] | None = None

    @property
    def oracle_gap_closed(self) -> float | None:
        """The chosen point's share of the way from the better constant policy to the oracle.

        ``None`` without a chosen point, or where the oracle is no better than a constant.
        """
        constant = max(self.never, self.always)
        if self.chosen is None or self.oracle[1] <= constant:
            return None
        return (self.chosen[1] - constant) / (self.oracle[1] - constant)

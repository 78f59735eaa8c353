"""Whether an expected score of 0.7 comes out as 0.7."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Reliability:
    """Expected against observed scores, in bins of equal width over [0, 1].

    ``expected``, ``observed`` (n_bins,) means of each bin, NaN where it is empty; ``n`` (n_bins,).
    """

    expected: Floats
    observed: Floats
    n: NDArray[np.int64]

    @property
    def error(self) -> float:
        """Expected calibration error: the mean gap over the cells, 0 without any."""
        if not self.n.sum():
            return 0.0
        gaps = np.abs(self.expected - self.observed)
        return float(np.nansum(gaps * self.n) / self.n.sum())


def reliability(quality: Floats, scores: Floats, n_bins: int = 10) -> Reliability:
    """How the expected ``quality`` compares with ``scores``, over all known cells.

    Parameters
    ----------
    quality : expected scores in [0, 1], any shape.
    scores : likewise, observed; NaN where unknown.
    """
    known = ~np.isnan(scores)
    expected, observed = quality[known], scores[known]
    bins = np.minimum((expected * n_bins).astype(np.int64), n_bins - 1)
    n = np.bincount(bins, minlength=n_bins)
    counts = np.where(n > 0, n, np.nan)
    return Reliability(
        expected=np.bincount(bins, weights=expected, minlength=n_bins) / counts,
        observed=np.bincount(bins, weights=observed, minlength=n_bins) / counts,
        n=n,
    )

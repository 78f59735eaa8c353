"""What one request may choose from, as arrays: a row per candidate, and the ceilings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coe.core import Budget, Estimate, Prices

AXES = ("latency_ms", "ttft_ms", "energy_j", "cost_usd")
"""The budgeted resources, in the order of the columns of `Options.usage`."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Options:
    """Choose one of N experts: most utility, no ceiling exceeded.

    Parameters
    ----------
    quality : (n_experts,) expected score in [0, 1].
    usage : (n_experts, 4) finite, non-negative; columns as in `AXES`.
    ceilings : (4,) positive; ``inf`` where there is none.
    prices : (4,) quality points per unit of each axis.
    expected_usage : like ``usage``. Ceilings hold for ``usage``, a cautious figure; prices are
        paid on ``expected_usage``, the mean. By default the two are the same.

    Raises
    ------
    ValueError
        Shapes disagree, a figure is NaN, negative or infinite, or a ceiling is not positive.
    """

    quality: Floats
    usage: Floats
    ceilings: Floats
    prices: Floats
    expected_usage: Floats | None = None

    def __post_init__(self) -> None:
        n_axes = len(AXES)
        usages = [self.usage]
        if self.expected_usage is not None:
            usages.append(self.expected_usage)
        if any(u.shape != (self.quality.size, n_axes) for u in usages) or self.quality.ndim != 1:
            raise ValueError(f"usage must have shape ({self.quality.size}, {n_axes})")
        if self.ceilings.shape != (n_axes,) or self.prices.shape != (n_axes,):
            raise ValueError(f"ceilings and prices must have shape ({n_axes},)")
        # written so that NaN fails too
        if not (np.all(self.quality >= 0) and np.all(self.quality <= 1)):
            raise ValueError("quality must lie in [0, 1]")
        for amounts in (*usages, self.prices):
            if not (np.all(amounts >= 0) and np.all(amounts < np.inf)):
                raise ValueError("usage and prices must be finite and not negative")
        if not np.all(self.ceilings > 0):
            raise ValueError("ceilings must be positive")

    @classmethod
    def of(
        cls,
        expected: Sequence[Estimate],
        cautious: Sequence[Estimate],
        budget: Budget,
        prices: Prices,
    ) -> Options:
        """The options that have these estimates.

        ``cautious`` must fit the budget; ``expected`` gives the quality and is paid for.
        """
        ceilings = budget.ceilings()
        return cls(
            quality=np.array([e.quality for e in expected], dtype=float),
            usage=_usage(cautious),
            expected_usage=_usage(expected),
            ceilings=np.array([ceilings.get(axis, np.inf) for axis in AXES]),
            prices=np.array([prices.per_second / 1000.0, 0.0, prices.per_joule, prices.per_usd]),
        )

    def rows(self, kept: Sequence[int]) -> Options:
        """These options only, in this order."""
        rows = list(kept)
        expected = None if self.expected_usage is None else self.expected_usage[rows]
        return Options(self.quality[rows], self.usage[rows], self.ceilings, self.prices, expected)

    def together(self, members: NDArray[np.bool_], quality: Floats) -> Options:
        """The options of sets that answer together: as slow as the slowest, as dear as all.

        Parameters
        ----------
        members : (n_sets, n_experts) who of these options is in each set.
        quality : (n_sets,) expected score of the sets, in [0, 1].
        """
        paid = self.usage if self.expected_usage is None else self.expected_usage
        return Options(
            quality=quality,
            usage=_of_sets(self.usage, members),
            ceilings=self.ceilings,
            prices=self.prices,
            expected_usage=_of_sets(paid, members),
        )

    @property
    def utility(self) -> Floats:
        """(n_experts,) quality less what the expected usage is worth at the prices."""
        paid = self.usage if self.expected_usage is None else self.expected_usage
        worth: Floats = self.quality - paid @ self.prices
        return worth

    @property
    def excess(self) -> Floats:
        """(n_experts, 4) usage over ceiling, less one: positive where the ceiling is exceeded."""
        over: Floats = self.usage / self.ceilings - 1.0
        return over


def _of_sets(usage: Floats, members: NDArray[np.bool_]) -> Floats:
    """(n_sets, 4) sums over members, of times the largest."""
    total: Floats = members @ usage
    for k, axis in enumerate(AXES):
        if axis.endswith("_ms"):
            total[:, k] = np.max(np.where(members, usage[:, k], 0.0), axis=1)
    return total


def _usage(estimates: Sequence[Estimate]) -> Floats:
    rows = [[getattr(estimate, axis) for axis in AXES] for estimate in estimates]
    return np.array(rows, dtype=float).reshape(len(estimates), len(AXES))

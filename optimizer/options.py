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


def _usage(estimates: Sequence[Estimate]) -> Floats:
    rows = [[getattr(estimate, axis) for axis in AXES] for estimate in estimates]
    return np.array(rows, dtype=float).reshape(len(estimates), len(AXES))

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

    Further dimensions may lead: each of many requests then chooses one of N.

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
        if self.quality.ndim == 0 or any(u.shape != (*self.quality.shape, n_axes) for u in usages):
            raise ValueError(f"usage must have shape {(*self.quality.shape, n_axes)}")
        if self.ceilings.shape != (n_axes,) or self.prices.shape != (n_axes,):
            raise ValueError(f"ceilings and prices must have shape ({n_axes},)")
        # written so that NaN fails too, and that nothing passes for the least and the most
        if not (self.quality.min(initial=0.0) >= 0 and self.quality.max(initial=0.0) <= 1):
            raise ValueError("quality must lie in [0, 1]")
        for amounts in (*usages, self.prices):
            if not (amounts.min(initial=0.0) >= 0 and amounts.max(initial=0.0) < np.inf):
                raise ValueError("usage and prices must be finite and not negative")
        if not self.ceilings.min() > 0:
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
        return cls(
            quality=np.array([e.quality for e in expected], dtype=float),
            usage=_usage(cautious),
            expected_usage=_usage(expected),
            ceilings=ceilings_of(budget),
            prices=prices_of(prices),
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
        return Options(
            quality=quality,
            usage=_of_sets(self.usage, members),
            ceilings=self.ceilings,
            prices=self.prices,
            expected_usage=_of_sets(self.paid, members),
        )

    @property
    def paid(self) -> Floats:
        """(n_experts, 4) the usage that prices are paid on."""
        return self.usage if self.expected_usage is None else self.expected_usage

    @property
    def utility(self) -> Floats:
        """(n_experts,) quality less what the expected usage is worth at the prices."""
        worth: Floats = self.quality - self.paid @ self.prices
        return worth

    @property
    def fits(self) -> NDArray[np.bool_]:
        """(n_experts,) whether no ceiling is exceeded."""
        within: NDArray[np.bool_] = np.all(self.excess <= 0, axis=-1)
        return within

    @property
    def excess(self) -> Floats:
        """(n_experts, 4) usage over ceiling, less one: positive where the ceiling is exceeded."""
        over: Floats = self.usage / self.ceilings - 1.0
        return over


def ceilings_of(budget: Budget) -> Floats:
    """(4,) the ceilings in the order of `AXES`."""
    ceilings = budget.ceilings()
    return np.array([ceilings.get(axis, np.inf) for axis in AXES])


def prices_of(prices: Prices) -> Floats:
    """(4,) points of quality per unit of each of `AXES`."""
    return np.array([prices.per_second / 1000.0, 0.0, prices.per_joule, prices.per_usd])


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

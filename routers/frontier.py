"""What quality each price of a resource buys: the curve from dear to cheap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Point:
    """Routing at one price: mean score and mean usage of the chosen experts."""

    price: float
    score: float
    usage: float


def frontier(
    quality: Floats, expected: Floats, scores: Floats, usage: Floats, n_points: int = 200
) -> list[Point]:
    """Routing by ``quality - price * expected`` at prices from 0 to far beyond every difference.

    Parameters
    ----------
    quality, expected : (n_prompts, n_experts) expected score, and expected usage of one resource.
    scores, usage : likewise, what came out; prompts with an unknown cell are left out.
    n_points : prices besides 0, spaced evenly in their logarithm.
    """
    known = ~np.isnan(expected + scores + usage).any(axis=1)
    if not known.any():
        return []
    quality, expected = quality[known], expected[known]
    scores, usage = scores[known], usage[known]
    here = np.arange(len(scores))
    steepest = 1.0 / max(float(expected.mean(axis=0).max()), 1e-300)
    points = []
    for price in (0.0, *(steepest * np.logspace(-3, 2, n_points)).tolist()):
        picks = (quality - price * expected).argmax(axis=1)
        score, used = scores[here, picks].mean(), usage[here, picks].mean()
        points.append(Point(float(price), float(score), float(used)))
    return points


@dataclass(frozen=True, slots=True)
class Blend:
    """Two prices, the first for ``share`` of the prompts and the second for the others."""

    first: Point
    second: Point
    share: float

    def mean(self, first: float, second: float) -> float:
        """The mean of a figure over prompts, given its means at both prices."""
        return self.share * first + (1.0 - self.share) * second


def cheapest(points: Sequence[Point], least_score: float) -> Blend | None:
    """The blend of least usage whose mean score is at least ``least_score``; ``None``: none.

    Whole categories change experts at one price, so that a curve has gaps; a blend of the
    prices at either side of a gap stands anywhere on the line between them.
    """
    enough = [point for point in points if point.score >= least_score]
    blends = [Blend(point, point, 1.0) for point in enough]
    for dear in enough:
        for cheap in points:
            if cheap.score < least_score and cheap.usage < dear.usage:
                share = (least_score - cheap.score) / (dear.score - cheap.score)
                blends.append(Blend(dear, cheap, share))
    return min(blends, key=lambda b: b.mean(b.first.usage, b.second.usage), default=None)

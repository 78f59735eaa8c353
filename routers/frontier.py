"""What quality each price of a resource buys: the curve from dear to cheap."""

from __future__ import annotations

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
    quality: Floats, expected: Floats, scores: Floats, usage: Floats, n_points: int = 60
) -> list[Point]:
    """Routing by ``quality - price * expected`` at prices from 0 to far beyond every difference.

    Parameters
    ----------
    quality, expected : (n_prompts, n_experts) expected score, and expected usage of one resource.
    scores, usage : likewise, what came out; prompts with an unknown cell are left out.
    n_points : prices besides 0, spaced evenly in their logarithm.
    """
    known = ~np.isnan(scores + usage).any(axis=1)
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


def cheapest(points: list[Point], least_score: float) -> Point | None:
    """The point of least usage whose score is at least ``least_score``; ``None``: no point."""
    enough = [point for point in points if point.score >= least_score]
    return min(enough, key=lambda point: point.usage, default=None)

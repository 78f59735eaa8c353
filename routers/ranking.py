"""Scores to orders, and several orders to one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

FUSION_K = 60


def best(scores: NDArray[Any], k: int) -> NDArray[np.intp]:
    """Positions of the ``k`` largest positive scores, largest first, equal ones as they stand.

    Fewer where fewer are positive. Linear in the number of scores, but for sorting what is found.
    """
    found = np.flatnonzero(scores > 0)
    if 0 < k < len(found):
        least = np.partition(scores[found], -k)[-k]
        found = found[scores[found] >= least]
    order = np.argsort(-scores[found], kind="stable")
    return found[order][:k]


def fused(rankings: Sequence[NDArray[np.intp]], n: int) -> NDArray[np.float64]:
    """Sum of ``1 / (60 + rank)`` of each of n positions over the rankings that name it, (n,).

    Reciprocal rank fusion (Cormack, Clarke and Büttcher, 2009).

    Parameters
    ----------
    rankings : positions, best first, none twice in one ranking.
    """
    scores = np.zeros(n)
    for ranking in rankings:
        scores[ranking] += 1.0 / (FUSION_K + np.arange(1, len(ranking) + 1))
    return scores

"""Distances to nearest neighbours."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def mean_cosine_distance(
    queries: NDArray[np.float32], points: NDArray[np.float32], k: int
) -> NDArray[np.float64]:
    """Mean cosine distance of each query to its ``k`` nearest points, in [0, 2].

    Fewer than ``k`` points: the mean over all of them. A zero vector is at distance 1 from
    everything. One matrix product and a partial sort: O(n_queries n_points (dim + 1)).

    Parameters
    ----------
    queries : (n_queries, dim) rows of unit length or zero.
    points : (n_points, dim) rows of unit length or zero, n_points >= 1.
    k : neighbours, >= 1.
    """
    similarity = queries @ points.T
    k = min(k, points.shape[0])
    nearest = np.partition(similarity, -k, axis=1)[:, -k:]
    distance: NDArray[np.float64] = 1.0 - nearest.astype(np.float64).mean(axis=1)
    return np.clip(distance, 0.0, 2.0)

"""Nearest neighbours by cosine."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_BLOCK = 512  # queries at once: bounds the memory of their similarities


def nearest(
    queries: NDArray[np.float32], points: NDArray[np.float32], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The ``k`` points most similar to each query, in no order, and their cosine distances.

    Fewer than ``k`` points: all of them. A zero vector is at distance 1 from everything. Among
    points at the same distance any may be left out. One matrix product and a partial sort:
    O(n_queries n_points (dim + 1)).

    Parameters
    ----------
    queries : (n_queries, dim) rows of unit length or zero.
    points : (n_points, dim) rows of unit length or zero, n_points >= 1.
    k : neighbours, >= 1.

    Returns
    -------
    indices, distances : both (n_queries, min(k, n_points)); distances in [0, 2].
    """
    k = min(k, points.shape[0])
    indices = np.empty((len(queries), k), dtype=np.int64)
    similarities = np.empty((len(queries), k))
    for start in range(0, len(queries), _BLOCK):
        rows = slice(start, start + _BLOCK)
        similarity = queries[rows] @ points.T
        indices[rows] = np.argpartition(similarity, -k, axis=1)[:, -k:]
        similarities[rows] = similarity[np.arange(len(similarity))[:, None], indices[rows]]
    return indices, np.clip(1.0 - similarities, 0.0, 2.0)

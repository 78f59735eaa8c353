"""The slow, obvious twin of every kernel; tests compare the two."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Twin of `coe.kernels.gating.softmax`."""
    rows = []
    for row in logits.tolist():
        top = max(row)
        weights = [math.exp(x - top) for x in row]
        rows.append([w / sum(weights) for w in weights])
    return np.array(rows, dtype=np.float64).reshape(logits.shape)


def entropy(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Twin of `coe.kernels.gating.entropy`."""
    rows = [-sum(p * math.log(p) for p in row if p > 0) for row in probabilities.tolist()]
    return np.array(rows, dtype=np.float64)


def nearest(
    queries: NDArray[np.float32], points: NDArray[np.float32], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Twin of `coe.kernels.knn.nearest`; neighbours nearest first."""
    indices, distances = [], []
    for query in queries.tolist():
        found = sorted(
            (1.0 - sum(a * b for a, b in zip(query, point, strict=True)), index)
            for index, point in enumerate(points.tolist())
        )[:k]
        distances.append([min(max(distance, 0.0), 2.0) for distance, _ in found])
        indices.append([index for _, index in found])
    shape = (len(queries), min(k, len(points)))
    return (
        np.array(indices, dtype=np.int64).reshape(shape),
        np.array(distances, dtype=np.float64).reshape(shape),
    )

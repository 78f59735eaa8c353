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


def mean_cosine_distance(
    queries: NDArray[np.float32], points: NDArray[np.float32], k: int
) -> NDArray[np.float64]:
    """Twin of `coe.kernels.knn.mean_cosine_distance`."""
    means = []
    for query in queries.tolist():
        distances = sorted(
            1.0 - sum(a * b for a, b in zip(query, point, strict=True)) for point in points.tolist()
        )
        nearest = distances[:k]
        means.append(sum(nearest) / len(nearest))
    return np.array(means, dtype=np.float64)

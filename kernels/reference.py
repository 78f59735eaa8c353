"""The slow, obvious twin of every kernel; tests compare the two."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

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


def best_in_box(
    box: Sequence[int], worth: tuple[Any, ...], ceilings: tuple[Any, ...]
) -> tuple[float, tuple[int, ...] | None]:
    """Twin of `coe.kernels.branch.search`, and what `coe.kernels.boxes.most_in` is not below.

    The most that a set of the box is worth if it exceeds no ceiling, and the first such set.
    """
    best, chosen = -math.inf, None
    for picks in itertools.product((False, True), repeat=len(box)):
        members = tuple(n for n, picked in enumerate(picks) if picked)
        of_box = all(
            state == 2 or picked == state for state, picked in zip(box, picks, strict=True)
        )
        if members and of_box and _fits(members, ceilings):
            value = _worth(members, worth)
            if chosen is None or value > best:
                best, chosen = value, members
    return best, chosen


def _fits(members: tuple[int, ...], ceilings: tuple[Any, ...]) -> bool:
    figures, _, most, limits = (table.tolist() for table in ceilings)
    for parts, count, limit in zip(figures, most, limits, strict=True):
        used = [sorted((part[n] for n in members), reverse=True)[:count] for part in parts]
        if math.fsum(itertools.chain.from_iterable(used)) > limit:
            return False
    return True


def _worth(members: tuple[int, ...], worth: tuple[Any, ...]) -> float:
    scores, weight, gates, outcomes, _, by_logit, k, log = worth
    if not len(weight):
        return float(sum(max(row[n] for n in members) for row in scores.tolist()))
    total = 0.0
    for r in range(len(weight)):
        answering = [n for n in by_logit[r].tolist() if n in members][:k]
        mixed = sum(gates[r, n] * outcomes[r, n] for n in answering)
        mixed /= sum(gates[r, n] for n in answering)
        if log:
            mixed = math.log(mixed) if mixed > 0 else -math.inf
        total += weight[r] * mixed
    return total

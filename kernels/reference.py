"""The slow, obvious twin of every kernel; tests compare the two."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coe.kernels.mixture import FLOOR


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


def relative_weights(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Twin of `coe.kernels.mixture.relative_weights`."""
    rows = []
    for row in logits.tolist():
        top = max(row)
        rows.append([0.0 if x == -math.inf else math.exp(max(x - top, -FLOOR)) for x in row])
    return np.array(rows, dtype=np.float64).reshape(logits.shape)


def gate_weights(
    logits: NDArray[np.float64], members: NDArray[np.bool_], k: int
) -> NDArray[np.float64]:
    """Twin of `coe.kernels.mixture.gate_weights`."""
    gates = np.zeros_like(logits)
    for row, weight, gate in zip(logits, relative_weights(logits), gates, strict=True):
        able = [n for n in np.flatnonzero(members) if weight[n] > 0]
        top = sorted(able, key=lambda n: -row[n])[:k]
        gate[top] = weight[top] / weight[top].sum()
    return gates


def mixtures_of_subsets(
    logits: NDArray[np.float64], outcome: NDArray[np.float64], log: bool, k: int | None = None
) -> NDArray[np.float64]:
    """Twin of `coe.kernels.mixture.mixtures_of_subsets`, and with ``k`` of `top_of_subsets`."""
    n_prompts, n_experts = logits.shape
    weight = relative_weights(logits)
    worth = np.full(1 << n_experts, np.nan)
    worth[0] = -np.inf
    for mask in range(1, worth.size if n_prompts else 0):
        members = np.array([mask >> n & 1 == 1 for n in range(n_experts)])
        gate = weight * members
        if k is not None:
            gate = gate_weights(logits, members, k)
        mixed = np.sum(gate * outcome, axis=1)
        mixed = np.divide(mixed, gate.sum(axis=1), where=mixed > 0, out=np.zeros(n_prompts))
        with np.errstate(divide="ignore"):
            worth[mask] = np.mean(np.log(mixed) if log else mixed)
    return worth


def sums_of_subsets(figures: NDArray[np.float64]) -> NDArray[np.float64]:
    """Twin of `coe.kernels.staircase.sums_of_subsets`."""
    return np.array([figures[_bits(m)].sum() for m in range(1 << figures.size)])


def largest_of_subsets(figures: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    """Twin of `coe.kernels.staircase.largest_of_subsets`."""
    return np.array([np.sort(figures[_bits(m)])[::-1][:k].sum() for m in range(1 << figures.size)])


def best_of_subsets(
    scores: NDArray[np.float64], weight: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Twin of `coe.kernels.staircase.best_of_subsets`."""
    n_sets = 1 << scores.shape[1]
    best = [weight @ scores[:, _bits(m)].max(axis=1) for m in range(1, n_sets)]
    return np.array([-np.inf, *best])


def closure(
    values: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Twin of `coe.kernels.staircase.closure`; of equal subsets the smallest."""
    found = []
    for mask in range(values.size):
        inside = [m for m in range(mask + 1) if m & mask == m]
        found.append(min(inside, key=lambda m: (-values[m], m.bit_count(), m)))
    subset = np.array(found, dtype=np.int64)
    return values[subset], subset


def staircase(usage: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Twin of `coe.kernels.staircase.staircase`."""
    steps: list[int] = []
    able = [i for i in range(usage.size) if math.isfinite(usage[i]) and values[i] > -math.inf]
    for i in sorted(able, key=lambda i: (usage[i], -values[i], i)):
        if not steps or values[i] > values[steps[-1]]:
            steps.append(i)
    return np.array(steps, dtype=np.int64)


def neighbour_means(indices: NDArray[np.int64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Twin of `coe.kernels.votes.neighbour_means`."""
    means: NDArray[np.float64] = values[indices].mean(axis=1)
    return means


def _bits(mask: int) -> list[int]:
    return [n for n in range(mask.bit_length()) if mask >> n & 1]


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


def queues(
    at_s: list[float],
    expert: list[int],
    service_s: list[float],
    replicas: list[int],
    slots: list[int],
    pick: Callable[[list[int], int], int],
    leave: Callable[[int, int, float], None],
) -> tuple[list[tuple[int, float, float]], list[int], list[list[int]]]:
    """Twin of `coe.kernels.queues.serve`, event after event, without a thought to what is to come.

    Per request its replica, start and end, (-1, nan, nan) for those that ask nobody; the requests
    in the order of their ends; and per request those that each expert had inside as it came.

    Parameters
    ----------
    pick : one of some replicas for a request.
    leave : told of the replica, the request and the time when one ends.
    """
    first = [sum(replicas[:e]) for e in range(len(replicas))]
    room = [slots[e] for e in range(len(replicas)) for _ in range(replicas[e])]
    running: list[list[tuple[float, int]]] = [[] for _ in room]
    waiting: list[list[int]] = [[] for _ in room]
    found = [(-1, math.nan, math.nan)] * len(at_s)
    ended, seen = list[int](), list[list[int]]()

    def begin(r: int, i: int, now_s: float) -> None:
        found[i] = (r, now_s, now_s + service_s[i])
        running[r].append((now_s + service_s[i], i))

    def end_all(until_s: float) -> None:
        while any(running):
            end_s, i, r = min((*pair, r) for r, pairs in enumerate(running) for pair in pairs)
            if end_s > until_s:
                return
            running[r].remove((end_s, i))
            ended.append(i)
            leave(r, i, end_s)
            if waiting[r]:
                begin(r, waiting[r].pop(0), end_s)

    for i, now_s in enumerate(at_s):
        end_all(now_s)
        inside = [len(running[r]) + len(waiting[r]) for r in range(len(room))]
        seen.append([sum(inside[f : f + n]) for f, n in zip(first, replicas, strict=True)])
        if expert[i] < 0:
            continue
        mine = range(first[expert[i]], first[expert[i]] + replicas[expert[i]])
        chosen = pick(list(mine), i)
        if len(running[chosen]) < room[chosen]:
            begin(chosen, i, now_s)
        else:
            waiting[chosen].append(i)
    end_all(math.inf)
    return found, ended, seen


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

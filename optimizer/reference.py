"""The slow, obvious twin of every exact solver: all sets, one after the other, in plain loops."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np

from coe.optimizer.figures import ROUNDING, Floats
from coe.optimizer.problem import Problem

Set = tuple[int, ...]


def optimum(problem: Problem) -> tuple[float, tuple[Set, ...] | None]:
    """The largest value of any feasible sets, and the first sets that have it; ``-inf``, none.

    O(2 ** n_experts) for a shared set, O(2 ** (n_experts n_categories)) otherwise.
    """
    best, chosen = -math.inf, None
    for sets in _choices(problem):
        if feasible(problem, sets):
            worth = value(problem, sets)
            if chosen is None or worth > best:
                best, chosen = worth, sets
    return best, chosen


def _choices(problem: Problem) -> Iterator[tuple[Set, ...]]:
    experts = range(problem.n_experts)
    every = [s for n in range(1, len(experts) + 1) for s in itertools.combinations(experts, n)]
    if problem.sets == "shared":
        return ((one,) * problem.n_categories for one in every)
    return itertools.product(every, repeat=problem.n_categories)


def feasible(problem: Problem, sets: Sequence[Set]) -> bool:
    """Whether the sets, one per category, are able and exceed no ceiling by more than rounding."""
    if problem.able is not None and not all(
        problem.able[c, n] for c, one in enumerate(sets) for n in one
    ):
        return False
    shares, memory = problem.shares.tolist(), problem.memory
    used = [("max_energy_j", _mean_taken(problem, problem.energy_j, sets))]
    used.append(("max_cost_usd", _mean_taken(problem, problem.costs_usd, sets)))
    for c in range(len(shares)):
        slowest = max(problem.latency_ms[c, n] for n in sets[c]) + problem.overhead_ms
        used += [(f"max_latency_ms[{c}]", slowest), ("max_latency_ms", slowest)]
    for v in range(0 if memory is None else len(memory.node_gb)):
        assert memory is not None
        resident = {n for one in sets for n in one if memory.node[n] == v}
        used.append((f"node_gb[{v}]", sum(memory.expert_gb[n] for n in resident)))
    ceilings = problem.ceilings()
    return all(took <= ceilings.get(name, math.inf) * (1 + ROUNDING) for name, took in used)


def value(problem: Problem, sets: Sequence[Set]) -> float:
    """Mean worth over the traffic of the sets, one per category."""
    return math.fsum(
        share * _worth(problem, c, sets[c])
        for c, share in enumerate(problem.shares.tolist())
        if share > 0
    )


def _worth(problem: Problem, c: int, members: Set) -> float:
    if problem.aggregation in ("best", "sum"):
        assert problem.quality is not None
        scores = [float(problem.quality[c, n]) for n in members]
        return max(scores) if problem.aggregation == "best" else sum(scores)
    assert problem.prompts is not None
    worths = []
    for x in np.flatnonzero(problem.prompts.category == c):
        logits = problem.prompts.logits[x]
        k = 1 if problem.aggregation == "choose" else problem.k
        answering = sorted(members, key=lambda n: -logits[n])[:k]
        top = max(logits[n] for n in answering)
        weight = {n: math.exp(logits[n] - top) for n in answering}
        mixed = sum(weight[n] * problem.prompts.outcome[x, n] for n in answering)
        mixed /= sum(weight.values())
        if problem.aggregation == "likelihood":
            mixed = math.log(mixed) if mixed > 0 else -math.inf
        worths.append(mixed)
    return float(sum(worths) / len(worths))


def _mean_taken(problem: Problem, figures: Floats, sets: Sequence[Set]) -> float:
    """Mean over traffic of what the dearest answers take."""
    return math.fsum(
        share * sum(sorted((float(figures[c, n]) for n in sets[c]), reverse=True)[: problem.k])
        for c, share in enumerate(problem.shares.tolist())
    )

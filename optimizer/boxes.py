"""A problem of one shared set as tables, which the kernels of boxes take, and sets as results."""

from __future__ import annotations

import numpy as np

from coe.kernels.boxes import Table
from coe.kernels.mixture import relative_weights
from coe.optimizer.figures import ROUNDING, Bools, Floats, Integers
from coe.optimizer.problem import MEANS, Problem
from coe.optimizer.result import Found
from coe.optimizer.value import Best, Mixture, Sum, majorant, over_traffic, value_of


def worth_table(problem: Problem) -> Table:
    """What sets are worth over the traffic, as in `coe.kernels.boxes`.

    A sum is the best of every expert's own row. A likelihood of 0 counts in the scores as the
    least of its row that is not: they bound, they do not value. Rows without traffic are left out.
    """
    own, bound = value_of(problem), majorant(problem)
    if isinstance(bound, Sum):
        return _without_prompts(np.diag(problem.shares @ bound.quality))
    weight = problem.shares[bound.category] * bound.row_weight
    busy = weight > 0
    scores = _finite(bound)[busy] * weight[busy, None]
    if not isinstance(own, Mixture):
        return _without_prompts(scores)
    logits = np.ascontiguousarray(own.prompts.logits[busy])
    outcome = np.ascontiguousarray(own.prompts.outcome[busy])
    return (
        np.ascontiguousarray(scores),
        weight[busy],
        relative_weights(logits),
        outcome,
        np.argsort(-outcome, axis=1, kind="stable"),
        np.argsort(-logits, axis=1, kind="stable"),
        problem.n_experts if own.k is None else own.k,
        own.log,
    )


def ceilings_table(problem: Problem) -> Table:
    """Ceilings on energy, dollars and memory, as in `coe.kernels.boxes`.

    Latency is none of them: it is a filter, `coe.optimizer.footprint.allowed`.
    """
    everyone = problem.n_experts
    dearest = everyone if problem.k is None else min(problem.k, everyone)
    present = problem.ceilings()
    rows: list[tuple[Floats, int, float]] = []
    for name in MEANS:
        if name in present:
            parts = problem.shares[:, None] * problem.figures(name)
            linear = parts.sum(axis=0, keepdims=True)
            rows.append((parts if dearest < everyone else linear, dearest, present[name]))
    if problem.memory is not None:
        for v, limit in enumerate(problem.memory.node_gb.tolist()):
            if limit < np.inf:
                rows.append((problem.memory.taken(v)[None], everyone, limit))
    if not rows:
        rows.append((np.zeros((1, everyone)), everyone, 0.0))
    figures = np.zeros((len(rows), max(len(parts) for parts, _, _ in rows), everyone))
    for j, (parts, _, _) in enumerate(rows):
        figures[j, : len(parts)] = parts
    most = np.array([most for _, most, _ in rows])
    limits = np.array([limit for _, _, limit in rows]) * (1 + ROUNDING)
    return figures, figures.sum(axis=1), most, limits


def swaps(problem: Problem, ceilings: Table) -> Integers:
    """(n_swaps, 2) pairs of experts: put the first for the second in any set, and no set is worse.

    It is worth no less and uses no more. Of equal experts the first comes first. Some best set
    has the first of every pair whose second it has. Mixtures swap equal experts only, and those
    of the largest logits none: who of equal logits counts depends on the order of experts.
    O(n_experts ** 2 n_rows), without prompts.
    """
    own = value_of(problem)
    if isinstance(own, Mixture) and own.k is not None and own.k < problem.n_experts:
        return np.empty((0, 2), dtype=np.int64)
    if isinstance(own, Mixture):
        answers = np.concatenate([own.prompts.logits, own.prompts.outcome])
        alike = np.unique(answers, axis=1, return_inverse=True)[1].reshape(1, -1)
        gain = np.concatenate([alike, -alike])
    elif isinstance(own, Sum):
        gain = (problem.shares @ own.quality)[None]
    else:
        gain = own.scores[problem.shares > 0]
    use = ceilings[0].reshape(-1, problem.n_experts)
    no_worse = np.all(gain[:, :, None] >= gain[:, None, :], axis=0)
    no_worse &= np.all(use[:, :, None] <= use[:, None, :], axis=0)
    earlier = np.triu(np.ones_like(no_worse), 1)
    return np.ascontiguousarray(np.argwhere(no_worse & (earlier | ~no_worse.T)))


def shared(problem: Problem, experts: Integers, upper: float, nodes: int) -> Found:
    """One set of these experts for every category, and a bound not below what it is worth."""
    members: Bools = np.zeros((problem.n_categories, problem.n_experts), dtype=bool)
    members[:, experts] = True
    value = float(over_traffic(problem.shares, value_of(problem).of(members[:1]))[0])
    return Found(members, max(value, upper), nodes)


def _finite(bound: Best) -> Floats:
    finite = np.isfinite(bound.scores)
    if finite.all():
        return bound.scores
    least = np.min(bound.scores, axis=1, keepdims=True, where=finite, initial=0.0)
    return np.where(finite, bound.scores, least)


def _without_prompts(scores: Floats) -> Table:
    nothing, nobody = np.empty((0, 0)), np.empty((0, 0), dtype=np.int64)
    return np.ascontiguousarray(scores), np.empty(0), nothing, nothing, nobody, nobody, 1, False

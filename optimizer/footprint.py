"""What sets of experts use, and whether that fits.

Sets are rows of booleans over experts. All that sets use grows with them, so what fits is
downward closed, and a latency ceiling is a filter on experts.
"""

from __future__ import annotations

import numpy as np

from coe.optimizer.figures import ROUNDING, Bools, Floats
from coe.optimizer.problem import Kind, Problem


def allowed(problem: Problem) -> Bools:
    """(n_categories, n_experts) whether the expert may serve the category, and is in time alone."""
    in_time: Bools = problem.latency_ms <= _loose(problem.latency_limits_ms)[:, None]
    return in_time if problem.able is None else in_time & problem.able


def answering(figures: Floats, members: Bools, k: int | None) -> Floats:
    """(n_categories, n_sets) what the ``k`` dearest members of each set take; all without ``k``.

    Parameters
    ----------
    figures : (n_categories, n_experts) of one answer each, not negative.
    members : (n_sets, n_experts).
    """
    if k is None or k >= members.shape[1]:
        total: Floats = figures @ members.T
        return total
    rows = [np.sort(np.where(members, row, 0.0), axis=1)[:, -k:].sum(axis=1) for row in figures]
    return np.array(rows)


def slowest_ms(problem: Problem, members: Bools) -> Floats:
    """(n_categories, n_sets) time of each set's slowest member and the overhead; 0 if empty."""
    shape = (problem.n_categories, *members.shape)
    times = np.broadcast_to(problem.latency_ms[:, None, :], shape)
    slowest: Floats = np.max(times, axis=2, where=members, initial=0.0) + problem.overhead_ms
    return slowest


def usage(problem: Problem, members: Bools) -> dict[str, Floats]:
    """Per present ceiling, (n_sets,) what each set takes of it if it serves every category."""
    used = {}
    for ceiling in problem.limits():
        kind, index, name = ceiling.kind, ceiling.index, ceiling.name
        if kind == "max_latency_ms":
            times = slowest_ms(problem, members)
            used[name] = times[index] if index is not None else times.max(axis=0)
        elif problem.memory is not None and kind == "node_gb" and index is not None:
            used[name] = members @ problem.memory.taken(index)
        else:
            used[name] = problem.shares @ answering(problem.figures(kind), members, problem.k)
    return used


def usage_alone(problem: Problem) -> dict[str, Floats]:
    """As `usage`, of every expert alone: (n_experts,) each. O(n_categories n_experts)."""
    used = {}
    for ceiling in problem.limits():
        kind, index, name = ceiling.kind, ceiling.index, ceiling.name
        if kind == "max_latency_ms":
            times = problem.latency_ms + problem.overhead_ms
            used[name] = times[index] if index is not None else times.max(axis=0)
        elif problem.memory is not None and kind == "node_gb" and index is not None:
            used[name] = problem.memory.taken(index)
        else:
            used[name] = problem.shares @ problem.figures(kind)
    return used


def fits_alone(problem: Problem) -> Bools:
    """As `fits`, of every expert alone: (n_experts,)."""
    inside: Bools = np.all(allowed(problem), axis=0)
    for name, used in usage_alone(problem).items():
        inside = inside & (used <= _loose(problem.ceilings()[name]))
    return inside


def fits(problem: Problem, members: Bools) -> Bools:
    """(n_sets,) whether each set may serve every category and exceeds no ceiling.

    An empty set does not fit.
    """
    able = np.all(allowed(problem), axis=0)
    inside: Bools = np.any(members, axis=1) & ~np.any(members & ~able, axis=1)
    for name, used in usage(problem, members).items():
        inside = inside & (used <= _loose(problem.ceilings()[name]))
    return inside


def total_usage(problem: Problem, sets: Bools) -> dict[str, float]:
    """Per present ceiling, what (n_categories, n_experts) sets, one each, take of it."""
    times = latency_ms(problem, sets)
    used = {}
    for ceiling in problem.limits():
        kind, index, name = ceiling.kind, ceiling.index, ceiling.name
        if kind == "max_latency_ms":
            used[name] = float(times[index] if index is not None else times.max())
        elif kind == "node_gb":
            used[name] = float(usage(problem, np.any(sets, axis=0, keepdims=True))[name][0])
        else:
            used[name] = mean_over_traffic(problem, sets, kind)
    return used


def latency_ms(problem: Problem, sets: Bools) -> Floats:
    """(n_categories,) time of each category's set, overhead included."""
    slowest: Floats = np.max(problem.latency_ms, axis=1, where=sets, initial=0.0)
    return slowest + problem.overhead_ms


def tightest(problem: Problem, sets: Bools) -> str | None:
    """Of the ceilings that keep some expert out of some set, the one that leaves least of itself.

    ``None`` where nobody is kept out: every expert is in every set, or would fit.
    """
    ceilings, used = problem.ceilings(), total_usage(problem, sets)
    blocking = []
    for name, more in with_one_more(problem, sets, used).items():
        if np.any((more > _loose(ceilings[name])) & ~sets):
            left = 1 - used[name] / ceilings[name] if ceilings[name] > 0 else 0.0
            blocking.append((left, name))
    return min(blocking)[1] if blocking else None


def with_one_more(problem: Problem, sets: Bools, used: dict[str, float]) -> dict[str, Floats]:
    """Per present ceiling, (n_categories, n_experts) what is taken once an expert joins a set.

    A shared set is joined in all categories, so that its rows are alike but for latencies.
    """
    found = {}
    shared = problem.sets == "shared"
    for ceiling in problem.limits():
        kind, index, name = ceiling.kind, ceiling.index, ceiling.name
        if kind == "max_latency_ms":
            times = problem.latency_ms + problem.overhead_ms
            here = index is None or np.arange(problem.n_categories)[:, None] == index
            found[name] = np.where(here, times, 0.0)
        elif problem.memory is not None and kind == "node_gb" and index is not None:
            joined = used[name] + np.where(np.any(sets, axis=0), 0.0, problem.memory.taken(index))
            found[name] = np.broadcast_to(joined, sets.shape)
        else:
            added = problem.shares[:, None] * _increments(problem.figures(kind), sets, problem.k)
            joined = used[name] + (added.sum(axis=0) if shared else added)
            found[name] = np.broadcast_to(joined, sets.shape)
    return found


def _increments(figures: Floats, sets: Bools, k: int | None) -> Floats:
    """(n_categories, n_experts) by how much the k dearest answers grow when an expert joins."""
    if k is None or k >= sets.shape[1]:
        return figures
    least = np.sort(np.where(sets, figures, 0.0), axis=1)[:, -k][:, None]  # 0 while fewer than k
    grown: Floats = np.maximum(figures - least, 0.0)
    return grown


def mean_over_traffic(problem: Problem, sets: Bools, mean: Kind) -> float:
    """Joules or dollars of (n_categories, n_experts) sets; ``mean`` as in `Problem.figures`."""
    figures = problem.figures(mean)
    taken = [
        answering(figures[c : c + 1], sets[c : c + 1], problem.k)[0, 0]
        for c in range(problem.n_categories)
    ]
    return float(problem.shares @ np.array(taken))


def exceeded(used: dict[str, float], ceilings: dict[str, float]) -> tuple[str, ...]:
    """The ceilings that are exceeded by more than rounding."""
    return tuple(name for name, limit in ceilings.items() if used[name] > _loose(limit))


def _loose(limit: float | Floats) -> Floats:
    loose: Floats = np.asarray(limit) * (1 + ROUNDING * np.sign(limit))
    return loose

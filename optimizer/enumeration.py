"""One set for all categories, by looking at all of them: exact, whatever the aggregation.

All sets' values and usages are arrays; so is whether they fit. Every question about other
ceilings is a lookup in the same arrays, and their Pareto staircase answers all ceilings on one
axis at once.
"""

from __future__ import annotations

import numpy as np

from coe.kernels.staircase import largest_of_subsets, sums_of_subsets
from coe.optimizer.figures import ROUNDING, Bools, Floats, Integers
from coe.optimizer.footprint import allowed
from coe.optimizer.problem import MEANS, Problem
from coe.optimizer.result import Found
from coe.optimizer.value import value_of

MOST_ENUMERATED = 20
"""A million sets; one expert more doubles time and memory."""


def enumerate_sets(problem: Problem) -> Found:
    """The best shared set of all, with itself as its bound. O(2 ** n_experts) times the value.

    Of equal values the set of the least energy, then of the smallest index.

    Raises
    ------
    ValueError
        There are more than `MOST_ENUMERATED` experts, or the sets are not shared.
    """
    if problem.n_experts > MOST_ENUMERATED or problem.sets != "shared":
        raise ValueError(
            f"enumeration is for one shared set of at most {MOST_ENUMERATED} experts, "
            f"not {problem.n_experts}, {problem.sets}"
        )
    fitting = fitting_sets(problem)
    n_sets = fitting.size
    if not fitting.any():
        return Found(None, -np.inf, n_sets)
    worth = np.where(fitting, value_of(problem).totals(problem.shares), -np.inf)
    best = worth.max()
    equal = np.flatnonzero((worth == best) & fitting)
    if equal.size > 1:
        energy_j = mean_usage(problem, problem.energy_j)[equal]
        equal = equal[np.lexsort((equal, energy_j))]
    members = members_of(equal[:1], problem.n_experts)
    return Found(np.repeat(members, problem.n_categories, axis=0), float(best), n_sets)


def fitting_sets(problem: Problem) -> Bools:
    """(2 ** n_experts,) whether each shared set exceeds no ceiling; the empty one does."""
    n_experts = problem.n_experts
    fitting = np.ones(1 << n_experts, dtype=bool)
    slow = ~allowed(problem).all(axis=0)
    if slow.any():
        fitting &= sums_of_subsets(slow.astype(float)) == 0
    ceilings = problem.ceilings()
    for name in MEANS:
        if name in ceilings:
            fitting &= mean_usage(problem, problem.figures(name)) <= ceilings[name] * (1 + ROUNDING)
    if problem.memory is not None:
        for v, limit in enumerate(problem.memory.node_gb):
            here = problem.memory.taken(v)
            if here.sum() > limit:
                fitting &= sums_of_subsets(here) <= limit * (1 + ROUNDING)
    fitting[0] = False
    return fitting


def mean_usage(problem: Problem, figures: Floats) -> Floats:
    """(2 ** n_experts,) mean over traffic of what the dearest answers of each set take.

    Parameters
    ----------
    figures : (n_categories, n_experts) of one answer each.
    """
    if problem.k is None or problem.k >= problem.n_experts:
        return sums_of_subsets(problem.shares @ figures)
    used = np.zeros(1 << problem.n_experts)
    for share, row in zip(problem.shares, figures, strict=True):
        used += share * largest_of_subsets(row, problem.k)
    return used


def members_of(indices: Integers, n_experts: int) -> Bools:
    """(n_sets, n_experts) who is in the sets of these indices: bit n is expert n."""
    bits: Bools = (indices[:, None] >> np.arange(n_experts)) & 1 == 1
    return bits

"""The ceilings on sums as rows of numbers: what each expert takes, and how much there is.

Limits are loosened by half of `coe.optimizer.figures.ROUNDING`: what fits here, added in another
order, still fits where ceilings are checked.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from coe.optimizer.figures import ROUNDING, Bools, Floats
from coe.optimizer.footprint import allowed
from coe.optimizer.problem import MEANS, Problem


@dataclass(frozen=True, slots=True)
class Rows:
    """Ceilings that someone could exceed, once those who are too slow are left out.

    Parameters
    ----------
    taken : (n_means, n_categories, n_experts) joules or dollars, weighed by share.
    limits : (n_means,) of their sums, of the k dearest where there is a k.
    resident : (n_nodes, n_experts) memory.
    room : (n_nodes,).
    able : (n_categories, n_experts) who keeps the latency ceiling; the same in all categories
        if the set is shared.
    """

    taken: Floats
    limits: Floats
    resident: Floats
    room: Floats
    able: Bools

    @property
    def linear(self) -> tuple[Floats, Floats]:
        """(n_means + n_nodes, n_experts) of a shared set without k, and the limits."""
        weights = np.concatenate([self.taken.sum(axis=1), self.resident])
        return weights, np.concatenate([self.limits, self.room])


def rows_of(problem: Problem) -> Rows:
    """The ceilings of the problem that bind if all who are able answer."""
    able = allowed(problem)
    if problem.sets == "shared":
        able = np.broadcast_to(able.all(axis=0), able.shape)
    ceilings = problem.ceilings()
    taken, limits = [], []
    for name in MEANS:
        weighed = problem.shares[:, None] * problem.figures(name)
        if name in ceilings and np.sum(weighed, where=able) > ceilings[name]:
            taken.append(weighed)
            limits.append(ceilings[name])
    resident, room = [], []
    if problem.memory is not None:
        for v, limit in enumerate(problem.memory.node_gb):
            here = problem.memory.taken(v)
            if here[able.any(axis=0)].sum() > limit:
                resident.append(here)
                room.append(limit)
    loose = 1 + ROUNDING / 2
    n_categories, n_experts = able.shape
    return Rows(
        np.array(taken).reshape(-1, n_categories, n_experts),
        np.array(limits) * loose,
        np.array(resident).reshape(-1, n_experts),
        np.array(room) * loose,
        able,
    )

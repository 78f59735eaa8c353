"""One set for all categories by branch, reduce and bound: for more experts than can be enumerated.

Discrete branch-reduce-and-bound (Tuy, Minoux, Hoai-Phuong 2006) on boxes of sets. MoE2 (arXiv
2501.09410) names monotonic optimisation; reconstruction, bounds ours. No frozen gate is assumed
to be monotone: the bounds are those of the best member of each prompt, and for mixtures of the
best set of each prompt in the box.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from coe.kernels.boxes import FREE, IN, OUT, Table, most_in
from coe.kernels.branch import search
from coe.optimizer.boxes import ceilings_table, shared, swaps, worth_table
from coe.optimizer.figures import Bools
from coe.optimizer.footprint import allowed, fits
from coe.optimizer.problem import Problem
from coe.optimizer.result import EXACT, Found

_CLOSE = EXACT / 10
_N_CELLS = 200_000  # of the tables, read between two looks at the clock: about 10 ms
_N_OPEN = 256


def branch(problem: Problem, expired: Callable[[], bool], start: Bools | None = None) -> Found:
    """The best shared set, with a bound on all others; no set if none fits.

    The bound is the set's own value once that is proved. If time runs out first, it is the
    largest bound of a box still open. At least one box is looked at, so that a set is found if
    one fits. Of sets within 1e-10 of the optimum any may be found. Time and memory are
    exponential at worst; usually some hundred boxes, each O(n_rows n_experts) with a row per
    category, per expert for a sum, or per prompt.

    Parameters
    ----------
    problem : its sets are shared.
    expired : whether time is up; asked about every 10 ms.
    start : (n_categories, n_experts) equal rows, a set to improve on, such as the best one under
        other ceilings; one that does not fit is of no use, and does no harm.

    Raises
    ------
    ValueError
        The sets are not shared.
    """
    if problem.sets != "shared":
        raise ValueError(f"branch is for one shared set, sets are {problem.sets}")
    kept = np.flatnonzero(allowed(problem).all(axis=0))
    if kept.size == 0:
        return Found(None, -np.inf)
    small = problem.keep(kept)
    worth, ceilings = worth_table(small), ceilings_table(small)
    pairs = swaps(small, ceilings)
    best, low = np.zeros(kept.size, dtype=bool), -np.inf
    if start is not None and fits(problem, start[:1])[0]:
        best[:] = start[0, kept]
        low = most_in(np.where(best, IN, OUT).astype(np.int8), worth)
    levels = np.full(len(worth[0]), -np.inf)
    n_boxes = max(1, _N_CELLS // (worth[0].size + worth[2].size))
    queue, n_open, nodes = _room(kept.size, _N_OPEN), 1, 0
    while True:
        n_open, n_seen, low = search(
            queue, n_open, worth, ceilings, pairs, levels, best, low, _CLOSE, n_boxes
        )
        nodes += n_seen
        if n_open == 0 or expired():
            break
        if n_open == len(queue[0]):
            queue = _more_room(queue)
    if not best.any():
        return Found(None, -np.inf, nodes)
    upper = float(queue[1][queue[3][0]]) if n_open else -np.inf
    return shared(problem, kept[best], upper, nodes)


def _room(n_experts: int, n_slots: int) -> Table:
    """An empty queue, but for a box of all sets that has not been looked at."""
    return (
        np.full((n_slots, n_experts), FREE, dtype=np.int8),
        np.full(n_slots, np.inf),
        np.full(n_slots, -1),
        np.arange(n_slots),
    )


def _more_room(queue: Table) -> Table:
    n_slots, n_experts = queue[0].shape
    boxes, bounds, splits, heap = _room(n_experts, n_slots)
    added = (boxes, bounds, splits, heap + n_slots)
    return tuple(np.concatenate(pair) for pair in zip(queue, added, strict=True))

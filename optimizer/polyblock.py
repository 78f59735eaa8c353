"""One set for all categories by polyblock outer approximation: MoE2's baseline, never the fastest.

The discrete form of Tuy's algorithm (SIAM J. Optim. 11(2), 2000; MoE2, arXiv 2501.09410;
reconstruction, details ours). Vertices are sets that together cover all those not yet ruled out.
Among zeros and ones a cut takes away no more than the vertex itself, so this visits about every
set whose bound is above the optimum: tens of thousands for 16 experts.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

import numpy as np

from coe.kernels.boxes import FREE, IN, OUT, Table, complete, most_in, rule_out
from coe.optimizer.boxes import ceilings_table, shared, worth_table
from coe.optimizer.figures import Floats, Integers
from coe.optimizer.footprint import fits_alone
from coe.optimizer.problem import Problem
from coe.optimizer.result import EXACT, Found

_CLOSE = EXACT / 10


def polyblock(problem: Problem, expired: Callable[[], bool]) -> Found:
    """The best shared set, with a bound on all others; no set if none fits.

    The vertex of the largest bound, what its best members are worth prompt by prompt, is taken
    first. A set that fits inside it is tried. If the bound is above that, the vertex is cut: its
    children, the vertex without one of each of its experts, take its place. A child joins only
    when all sets of one expert more have been cut; before, one of its supersets is a vertex, and
    it would be improper. So no vertex joins twice. A vertex that fits is the optimum if it is
    worth its bound, as it always is where value grows with the set; else it is cut like others.
    O(2 ** n_experts) time and memory at worst.

    Parameters
    ----------
    problem : its sets are shared.
    expired : whether time is up; asked after every vertex.

    Raises
    ------
    ValueError
        The sets are not shared.
    """
    if problem.sets != "shared":
        raise ValueError(f"polyblock is for one shared set, sets are {problem.sets}")
    kept = np.flatnonzero(fits_alone(problem))
    if kept.size == 0:
        return Found(None, -np.inf, problem.n_experts)
    small = problem.keep(kept)
    worth, ceilings = worth_table(small), ceilings_table(small)
    order = _by_gain_for_use(worth, ceilings)
    top = np.full(kept.size, FREE, dtype=np.int8)
    vertices = [(-most_in(top, worth), top.tobytes())]
    cut: dict[bytes, int] = {}
    best, low, nodes = b"", -np.inf, 0
    while vertices:
        if best and (-vertices[0][0] <= low + _CLOSE or expired()):
            break
        vertex = heapq.heappop(vertices)[1]
        nodes += 1
        for tried in _inside(vertex, worth, ceilings, order):
            value = most_in(tried, worth)
            if value > low or not best:
                best, low = tried.tobytes(), value
        for child in _children(vertex, cut):
            bound = most_in(_box(child), worth)
            if bound > low + _CLOSE:
                heapq.heappush(vertices, (-bound, child))
    upper = -vertices[0][0] if vertices and -vertices[0][0] > low + _CLOSE else -np.inf
    return shared(problem, kept[_box(best) == IN], upper, nodes)


def _box(vertex: bytes) -> np.ndarray[tuple[int], np.dtype[np.int8]]:
    return np.frombuffer(bytearray(vertex), dtype=np.int8)


def _by_gain_for_use(worth: Table, ceilings: Table) -> Integers:
    """Experts by score for the largest share of a ceiling they take, best first."""
    scores: Floats = worth[0]
    _, linear, _, limits = ceilings
    use = np.max(linear / np.maximum(limits, np.finfo(float).tiny)[:, None], axis=0)
    gain = np.sum(scores - scores.min(axis=1, keepdims=True), axis=0)
    return np.argsort(-gain / (use + np.finfo(float).eps), kind="stable")


def _inside(
    vertex: bytes, worth: Table, ceilings: Table, order: Integers
) -> list[np.ndarray[tuple[int], np.dtype[np.int8]]]:
    """The vertex if it fits, and what fits of it, taken in order."""
    whole, part = _box(vertex), _box(vertex)
    whole[whole == FREE] = IN
    rule_out(part, ceilings)
    complete(part, worth[0], ceilings, order)
    return [whole, part] if rule_out(whole, ceilings) else [part]


def _children(vertex: bytes, cut: dict[bytes, int]) -> list[bytes]:
    """Those sets of one expert less, but not empty, that are proper now that the vertex is cut."""
    proper = []
    n_members = vertex.count(FREE)
    for n, state in enumerate(vertex if n_members > 1 else b""):
        if state == FREE:
            child = vertex[:n] + bytes([OUT]) + vertex[n + 1 :]
            cut[child] = cut.get(child, 0) + 1
            if cut[child] == len(vertex) - n_members + 1:
                del cut[child]
                proper.append(child)
    return proper

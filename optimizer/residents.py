"""Who may be in memory together: the largest sets of experts that nodes have room for."""

from __future__ import annotations

from itertools import product

import numpy as np

from coe.optimizer.enumeration import members_of
from coe.optimizer.figures import ROUNDING, Bools, Floats
from coe.optimizer.problem import Memory

MOST_ON_A_NODE = 16
"""65,536 sets a node."""


def fullest(memory: Memory) -> Bools:
    """(n_sets, n_experts) the sets that fit and to which nobody can be added; at least one.

    Every set that fits is a subset of one of them, so whatever grows with who is there is best on
    one of them. An expert larger than its node is in none. The node of a set's experts is given:
    sets of different nodes are combined freely. O(2 ** n) for the n experts of a node.

    Raises
    ------
    ValueError
        A node that has not room for all of its experts has more than `MOST_ON_A_NODE`.
    """
    own = [
        _fullest_on(memory.expert_gb, np.flatnonzero(memory.node == v), float(room))
        for v, room in enumerate(memory.node_gb)
    ]
    return np.array([np.any(parts, axis=0) for parts in product(*own)])


def _fullest_on(expert_gb: Floats, here: np.ndarray, room: float) -> Bools:
    """(n_sets, n_experts) the same for the experts of one node."""
    most = room * (1 + ROUNDING) if np.isfinite(room) else np.inf
    everyone = np.zeros((1, expert_gb.size), dtype=bool)
    everyone[0, here] = True
    if expert_gb[here].sum() <= most:
        return everyone
    if here.size > MOST_ON_A_NODE:
        raise ValueError(
            f"a node of {room:g} GB has {here.size} experts, more than {MOST_ON_A_NODE}: "
            "leave some out"
        )
    masks = np.arange(1 << here.size)
    inside = members_of(masks, here.size)
    fits = inside @ expert_gb[here] <= most
    full = fits.copy()
    for n in range(here.size):
        without = masks[~inside[:, n]]
        full[without] &= ~fits[without | 1 << n]
    found = np.zeros((int(full.sum()), expert_gb.size), dtype=bool)
    found[:, here] = inside[full]
    return found

from itertools import combinations

import numpy as np
import pytest

from coe.optimizer.problem import Memory
from coe.optimizer.residents import fullest


def by_enumeration(memory):
    """All sets that fit, and of these the ones that no other contains."""
    n = memory.expert_gb.size
    fitting = [
        set(chosen)
        for size in range(n + 1)
        for chosen in combinations(range(n), size)
        if all(
            sum(memory.expert_gb[e] for e in chosen if memory.node[e] == v) <= room
            for v, room in enumerate(memory.node_gb)
        )
    ]
    return {frozenset(one) for one in fitting if not any(one < other for other in fitting)}


@pytest.mark.parametrize("seed", range(20))
def test_the_fullest_sets_are_those_of_enumeration(seed):
    rng = np.random.default_rng(seed)
    n, n_nodes = int(rng.integers(1, 8)), int(rng.integers(1, 4))
    memory = Memory(
        expert_gb=rng.integers(0, 10, n).astype(float),
        node=rng.integers(0, n_nodes, n),
        node_gb=rng.choice([0.0, 5.0, 12.0, np.inf], n_nodes),
    )
    found = fullest(memory)
    sets = [frozenset(np.flatnonzero(row).tolist()) for row in found]
    assert set(sets) == by_enumeration(memory)
    assert len(set(sets)) == len(sets)


def test_room_for_all_is_one_set_however_many_there_are():
    memory = Memory(np.full(40, 2.0), np.zeros(40, dtype=int), np.array([80.0]))
    assert fullest(memory).tolist() == [[True] * 40]


def test_too_many_experts_for_a_node_that_has_not_room_for_all_are_refused():
    memory = Memory(np.full(17, 2.0), np.zeros(17, dtype=int), np.array([10.0]))
    with pytest.raises(ValueError, match="17 experts"):
        fullest(memory)

"""Made-up fleets: experts of usual sizes, several kinds of nodes, few experts asked for most."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from coe.optimizer.placement import PlacementProblem

SIZES_GB = (2.0, 5.0, 8.0, 16.0, 40.0)
APART_MS = 200.0
TOGETHER = 0.1  # share of the pairs of experts that ever answer together


def make_fleet(
    rng: np.random.Generator, n_nodes: int, n_experts: int, room: float
) -> PlacementProblem:
    """A fleet whose nodes together have ``room`` times the memory of all experts.

    Every node has room for the largest expert, and slots for twice its share of the load.
    """
    expert_gb = rng.choice(SIZES_GB, n_experts)
    weight = rng.choice([16.0, 24.0, 80.0], n_nodes)
    speed = rng.uniform(0.5, 2.0, n_nodes)
    rate_per_s = 0.3 * rng.pareto(2.5, n_experts)
    busy_s = rng.uniform(1.0, 4.0, n_experts) / speed[:, None]
    some = rng.random((n_experts, n_experts)) < TOGETHER
    together = np.triu(some * rng.uniform(0.0, 0.2, some.shape), 1)
    share_of_load = (rate_per_s * busy_s.mean(axis=0)).sum() / n_nodes
    problem = PlacementProblem(
        rate_per_s=rate_per_s,
        expert_gb=expert_gb,
        node_gb=room * expert_gb.sum() * weight / weight.sum(),
        slots=np.full(n_nodes, np.ceil(2.0 * share_of_load)),
        cost=1000.0 * busy_s,
        busy_s=busy_s,
        switch_s=expert_gb / rng.choice([0.5, 1.0, 2.0], n_nodes)[:, None],
        together=together + together.T,
        apart_cost=APART_MS,
    )
    return replace(problem, node_gb=np.maximum(problem.node_gb, expert_gb.max()))

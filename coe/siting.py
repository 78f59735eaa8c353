"""From a plan to its placement: which expert lies on which node, for so many requests a second."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coe.config import Config, NodeSection
from coe.errors.files import PlanError
from coe.kinds import ExpertSection
from coe.optimizer.placement import Placement, PlacementProblem
from coe.plan import Plan, PlannedCategory

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Site:
    """Where an expert lies on a node, and which share of its requests it answers there.

    ``load_s``: to load it, where that happens on demand; ``None`` for a resident.
    """

    node: str
    share: float
    load_s: float | None = None


@dataclass(frozen=True, slots=True)
class Siting:
    """The problem of placing a plan's experts, and the names of its rows and columns.

    `coe.optimizer.place.place` solves it; costs are milliseconds of answers per second.
    """

    problem: PlacementProblem
    node_names: tuple[str, ...]
    expert_ids: tuple[str, ...]

    def named(self, placement: Placement) -> dict[str, tuple[Site, ...]]:
        """By expert, where it lies: the node of the largest share first."""
        lies = placement.resident | placement.on_demand
        found = {}
        for e, name in enumerate(self.expert_ids):
            sites = [self._site(placement, v, e) for v in np.flatnonzero(lies[:, e]).tolist()]
            found[name] = tuple(sorted(sites, key=lambda site: -site.share))
        return found

    def named_limit(self, name: str) -> str:
        """What stands in the way (``node_gb[0]``), by the name of the node."""
        field, _, index = name.removesuffix("]").partition("[")
        return f"{field}[{self.node_names[int(index)]}]"

    def _site(self, placement: Placement, node: int, expert: int) -> Site:
        on_demand = bool(placement.on_demand[node, expert])
        switch_s = self.problem.switch_s
        return Site(
            self.node_names[node],
            float(placement.share[node, expert]),
            float(switch_s[node, expert]) if on_demand and switch_s is not None else None,
        )


def siting(
    plan: Plan,
    config: Config,
    rate_per_s: float,
    experts: Collection[str] | None = None,
    copies: Mapping[str, int] | None = None,
    apart_ms: float = 0.0,
) -> Siting:
    """The placement problem of a plan for so many requests per second.

    An expert's requests are those of the categories whose planned set it is in: all of them where
    the whole set answers, else k times its weight. An answer keeps a slot for as long as the plan's
    cautious one takes: its mean over what the expert serves, or over all categories. An expert with
    a ``node`` of its own lies there. Experts that the plan serves nothing with are placed, too.

    Parameters
    ----------
    rate_per_s : of the whole traffic.
    experts : who is placed; by default all that run here (``kind: embedded``), and those that
        have a ``node``.
    copies : by expert, on how many nodes it is to lie at least, such as
        `coe.optimizer.scaling.scaled` asks for; absent: one.
    apart_ms : what a request costs more whose answers come from two nodes.

    Raises
    ------
    PlanError
        There are no nodes, no experts to place, or the plan found nothing.
    ValueError
        ``rate_per_s`` or ``apart_ms`` is negative or not finite, or copies are below 1.
    """
    placed = [expert for expert in config.computing if _is_placed(expert, experts)]
    if not config.nodes or not placed:
        raise PlanError("placing experts needs nodes and experts: add nodes to coe.yaml")
    if plan.certificate is None:
        raise PlanError("the plan found nothing that fits: there are no sets to place")
    names, ids = tuple(config.nodes), tuple(expert.id for expert in placed)
    sizes_gb = np.array([expert.memory_gb for expert in placed])
    nodes = config.nodes.values()
    speed = np.array([np.nan if n.load_gb_per_s is None else n.load_gb_per_s for n in nodes])
    switch_s = sizes_gb / speed[:, None]
    latency_ms = np.array([_latency_ms(plan, name) for name in ids])
    shares, answering = np.array([c.share for c in plan.categories]), _answering(plan, ids)
    everywhere = np.ones((len(names), len(ids)))
    problem = PlacementProblem(
        rate_per_s=rate_per_s * (shares @ answering),
        expert_gb=sizes_gb,
        node_gb=np.array([node.memory_gb for node in nodes]),
        slots=np.array([np.inf if node.slots is None else node.slots for node in nodes]),
        cost=latency_ms * everywhere,
        busy_s=latency_ms / 1000.0 * everywhere,
        switch_s=np.where(np.isnan(switch_s), np.inf, switch_s),
        allowed=np.array(
            [
                [expert.node in (None, name) and _offers(node, expert) for expert in placed]
                for name, node in config.nodes.items()
            ]
        ),
        copies=np.array([(copies or {}).get(name, 1) for name in ids], dtype=float),
        together=rate_per_s * _together(answering, shares) if plan.k != 1 else None,
        apart_cost=apart_ms,
    )
    return Siting(problem, names, ids)


def _is_placed(expert: ExpertSection, asked: Collection[str] | None) -> bool:
    if asked is not None:
        return expert.id in asked
    return expert.kind == "embedded" or expert.node is not None


def _offers(node: NodeSection, expert: ExpertSection) -> bool:
    """Whether a node has what a copy of the expert needs."""
    offered = node.resources
    return all(offered.get(name, 0.0) >= needed for name, needed in expert.resources.items())


def _answering(plan: Plan, expert_ids: tuple[str, ...]) -> Floats:
    """(n_categories, n_experts) share of a category's requests that each answers.

    All of them where all of the set answer; otherwise ``k`` times its weight.
    """
    found = np.zeros((len(plan.categories), len(expert_ids)))
    for row, category in zip(found, plan.categories, strict=True):
        all_answer = plan.k is None or plan.k >= len(category.experts)
        for name, weight in zip(category.experts, category.weights, strict=True):
            if name in expert_ids:
                share = 1.0 if all_answer else min(1.0, (plan.k or 1) * weight)
                row[expert_ids.index(name)] = share
    return found


def _together(answering: Floats, shares: Floats) -> Floats:
    """(n_experts, n_experts) share of all requests that both answer, as if by chance."""
    pairs: Floats = (answering * shares[:, None]).T @ answering
    np.fill_diagonal(pairs, 0.0)
    return (pairs + pairs.T) / 2.0


def _latency_ms(plan: Plan, expert_id: str) -> float:
    """Of a cautious answer, over the categories that the expert serves, or else over all."""
    serving = [category for category in plan.categories if expert_id in category.experts]
    alone = [(c.share, _alone_ms(c, expert_id)) for c in serving or plan.categories]
    known = [(share, ms) for share, ms in alone if ms is not None]
    total = sum(share for share, _ in known)
    if total > 0:
        return sum(share * ms for share, ms in known) / total
    return max((one.latency_ms for one in plan.singles if one.experts == (expert_id,)), default=0.0)


def _alone_ms(category: PlannedCategory, expert_id: str) -> float | None:
    return next((one.latency_ms for one in category.menu if one.experts == (expert_id,)), None)

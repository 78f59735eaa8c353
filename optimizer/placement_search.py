"""Good placements in any fleet: experts put in one after another, taken out and put in again.

Greedy by the scarcest first, then a local search that takes out one expert, two that stand in
each other's way, or all of a node (Shaw's large neighbourhoods, 1998).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from coe.optimizer.figures import Bools, Floats
from coe.optimizer.placement import (
    Placement,
    PlacementProblem,
    bill,
    busy_slots,
    busy_turns,
    loose,
    memory_gb,
)

_GAIN = 1e-12  # less, in proportion, is rounding
_DUST = 1e-9  # shares below are not worth a place


def search(
    problem: PlacementProblem, expired: Callable[[], bool], guide: tuple[Floats, Floats]
) -> Placement:
    """A good placement; where none was found, one that lacks as little as possible.

    That proves nothing: other shares between the same places may be all that it takes. Never
    worse with more time. A round of the local search puts O(n_experts^2) experts back in, O(n_nodes
    n_experts) each.

    Parameters
    ----------
    guide : (n_nodes, n_experts) shares that residents, and those on demand, would better answer,
        such as a relaxation's; zeros for no opinion.
    """
    site = _Site.of(problem, guide)
    tried = [site.put(site.empty(), order, rank) for rank in _RANKS for order in site.orders()]
    best = min(tried, key=site.score)
    least, improved = site.score(best), True
    while improved and not expired():
        improved = False
        for out, orders in site.neighbourhoods(best):
            if expired():
                break
            without = site.without(best, out)
            for rank in _RANKS if least[0] > 0 else _RANKS[:2]:
                for order in orders:
                    other = site.put(without, order, rank)
                    score = site.score(other)
                    if score < (least[0], least[1] - _GAIN * least[1]):
                        best, least, improved = other, score, True
    return best


Rank = Literal["cost", "guide", "whole", "lean"]
_RANKS: tuple[Rank, ...] = ("cost", "guide", "whole", "lean")
"""What a place is chosen by first: cost, the guide, how much it takes, how little memory."""

Score = tuple[float, float]


@dataclass(frozen=True, slots=True)
class _Site:
    """A problem with what is asked of it again and again worked out once."""

    problem: PlacementProblem
    ok: tuple[Bools, Bools]
    work: tuple[Floats, Floats]
    cost: tuple[Floats, Floats]
    pull: Floats
    copies: Floats
    guide: tuple[Floats, Floats]

    @classmethod
    def of(cls, problem: PlacementProblem, guide: tuple[Floats, Floats]) -> _Site:
        n = problem.n_experts
        together = np.zeros((n, n)) if problem.together is None else problem.together
        return cls(
            problem,
            (problem.resident_ok, problem.on_demand_ok),
            (problem.resident_work, problem.on_demand_work),
            (problem.resident_cost, problem.on_demand_cost),
            together * problem.apart_cost,
            problem.least_copies,
            guide,
        )

    def empty(self) -> Placement:
        nowhere = np.zeros(self.problem.cost.shape, dtype=bool)
        return Placement(nowhere, nowhere, np.zeros(nowhere.shape))

    def score(self, placement: Placement) -> Score:
        """What is missing, then the cost; less is better."""
        return float(self._missing(placement).sum()), bill(self.problem, placement).total

    def _missing(self, placement: Placement) -> Floats:
        """(n_experts,) shares that nobody answers, and copies."""
        unserved = 1.0 - placement.share.sum(axis=0)
        lies = (placement.resident | placement.on_demand).sum(axis=0)
        missing: Floats = np.where(unserved > _DUST, unserved, 0.0)
        missing += np.maximum(self.copies - lies, 0)
        return missing

    def orders(self) -> Iterator[list[int]]:
        """Experts in the orders that are tried: who suffers most per gigabyte, largest, busiest."""
        least = np.where(self.ok[0], self.cost[0], np.inf).min(axis=0)
        most = np.where(self.ok[1], self.cost[1], 0.0).max(axis=0)
        stakes = np.where(self.ok[1].any(axis=0), most - least, np.inf)
        size = self.problem.expert_gb
        for rank in (stakes / np.maximum(size, 1e-12), size, self.work[0].max(axis=0)):
            yield np.argsort(-rank, kind="stable").tolist()

    def neighbourhoods(
        self, placement: Placement
    ) -> Iterator[tuple[list[int], tuple[list[int], ...]]]:
        """Who is taken out together, and the orders in which they are put in again."""
        n = self.problem.n_experts
        for e in range(n):
            yield [e], ([e],)
        missing, orders = self._missing(placement), list(self.orders())
        for e, h in np.argwhere(self._rivals(placement) | (missing > 0)[:, None]).tolist():
            if e != h:
                yield [e, h], ([e, h], [h, e])
        there = [set(np.flatnonzero(r).tolist()) for r in placement.resident | placement.on_demand]
        for here in there:
            for e in np.flatnonzero(missing).tolist():
                others = here - {e}
                first = [[e, *(h for h in order if h in others)] for order in orders]
                yield [e, *others], tuple(first)
        for v, here in enumerate(there):
            for other in (here, *(here | beside for beside in there[v + 1 :])):
                yield [*other], tuple([e for e in order if e in other] for order in orders)

    def _rivals(self, placement: Placement) -> Bools:
        """(n_experts, n_experts) whether the second lies where the first would cost less."""
        least = np.full(self.problem.cost.shape, np.inf)
        paid = np.zeros(self.problem.n_experts)
        for ok, cost, lies in zip(
            self.ok, self.cost, (placement.resident, placement.on_demand), strict=True
        ):
            least = np.where(ok, np.minimum(least, cost), least)
            paid += np.where(lies, placement.share * cost, 0.0).sum(axis=0)
        cheaper = least < paid * (1 - _DUST)
        lies = placement.resident | placement.on_demand
        rivals: Bools = (cheaper.T.astype(float) @ lies > 0) | (self.pull > 0)
        return rivals

    def without(self, placement: Placement, experts: list[int]) -> Placement:
        out = np.zeros(self.problem.n_experts, dtype=bool)
        out[experts] = True
        return replace(
            placement,
            resident=placement.resident & ~out,
            on_demand=placement.on_demand & ~out,
            share=np.where(out, 0.0, placement.share),
        )

    def put(self, placement: Placement, experts: list[int], rank: Rank) -> Placement:
        for expert in experts:
            placement = self._with(placement, expert, rank)
        return placement

    def _with(self, placement: Placement, expert: int, rank: Rank) -> Placement:
        """The expert at the places of the best rank, as many as its requests and copies need."""
        parts = self._parts(placement, expert)
        lies = (placement.resident.copy(), placement.on_demand.copy())
        share, unserved, copies = placement.share.copy(), 1.0, 0
        for mode, node in self._ranked(placement, expert, rank, parts):
            if unserved == 0 and copies >= self.copies[expert]:
                break
            if lies[1 - mode][node, expert]:
                continue
            part = min(unserved, float(parts[mode][node]))
            if part > _DUST or unserved == 0:
                lies[mode][node, expert] = True
                share[node, expert] = part
                unserved, copies = unserved - part, copies + 1
        return Placement(lies[0], lies[1], share)

    def _ranked(
        self, placement: Placement, expert: int, rank: Rank, parts: tuple[Floats, Floats]
    ) -> list[tuple[int, int]]:
        """(mode, node) of the places with room for the expert, best first."""
        needed, free = self._memory(placement, expert)
        nearness = placement.share @ self.pull[expert]
        options = []
        for mode in (0, 1):
            cost = self.cost[mode][:, expert] - nearness
            first = {
                "cost": cost,
                "guide": -np.round(self.guide[mode][:, expert], 3),
                "whole": -np.round(parts[mode], 3),
                "lean": needed[mode],
            }[rank]
            open_ = self.ok[mode][:, expert] & (needed[mode] <= free)
            for node in np.flatnonzero(open_).tolist():
                options.append((float(first[node]), float(cost[node]), mode, node))
        return [(mode, node) for *_, mode, node in sorted(options)]

    def _parts(self, placement: Placement, expert: int) -> tuple[Floats, Floats]:
        """(n_nodes,) the share of the expert's requests that there are slots for, by mode."""
        problem = self.problem
        left = np.maximum(problem.slots - busy_slots(problem, placement), 0.0)
        turns = np.minimum(left, np.maximum(1.0 - busy_turns(problem, placement), 0.0))
        parts = []
        for work, able in zip(self.work, (left, turns), strict=True):
            own = work[:, expert]
            parts.append(np.where(own > able, able / np.maximum(own, 1e-300), 1.0))
        return parts[0], parts[1]

    def _memory(self, placement: Placement, expert: int) -> tuple[tuple[Floats, Floats], Floats]:
        """(n_nodes,) what the expert takes, resident and on demand; and what is free."""
        size = self.problem.expert_gb
        turns = np.where(placement.on_demand, size, 0.0).max(axis=1)
        resident = np.full(self.problem.n_nodes, size[expert])
        free = loose(self.problem.node_gb) - memory_gb(self.problem, placement)
        return (resident, np.maximum(size[expert] - turns, 0.0)), free

"""Experts to be placed on nodes, as arrays; where they are; what that takes and costs.

Where experts lie in a fleet, and who answers from where::

    min   sum_e r_e sum_v (s_ve c_ve + d_ve m w_ve C)            answers, and loading on demand
        + P sum_{e<h} a_eh (1 - sum_v min(s_ve, s_vh))            answers together, from apart
    s.t.  sum_v s_ve = 1,   s_ve > 0 only where e lies on v
          sum_{e resident on v} g_e + max_{e on demand on v} g_e <= G_v
          sum_e r_e (s_ve b_ve + d_ve m w_ve) <= S_v              slots that are busy (Little)
          sum_e r_e d_ve (b_ve + m w_ve) <= 1                     on demand, one after another

``s_ve`` is the share of expert e's requests that node v answers, ``d_ve`` the part of it that is
answered on demand: into one room of memory, which those experts take turns in. Affinity of what
answers together is ExFlow's (arXiv 2401.08383), here between whole experts; reconstruction,
equations ours. `coe.optimizer.place` solves it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from coe.optimizer.figures import ROUNDING, Bools, Floats, Integers, check, check_flags

SLACK = 1e-6
"""The share of a node's slots by which the busy ones may exceed them: tolerance of solvers."""


@dataclass(frozen=True, slots=True)
class PlacementProblem:
    """Place every expert on some node: least cost of the expected traffic, within what nodes have.

    Costs are in one unit of the caller's, such as milliseconds or joules; all totals are in that
    unit per second. A total equal to its limit fits. An expert without requests is placed too.

    Parameters
    ----------
    rate_per_s : (n_experts,) requests expected.
    expert_gb : (n_experts,) memory of one copy.
    node_gb : (n_nodes,) memory; may be infinite.
    slots : (n_nodes,) requests that a node serves at once; may be infinite.
    cost : (n_nodes, n_experts) of one answer.
    busy_s : (n_nodes, n_experts) that one answer keeps a slot.
    switch_s : (n_nodes, n_experts) to load an expert on demand, bytes over bandwidth; infinite
        where it cannot be, as everywhere by default.
    allowed : (n_nodes, n_experts) who may lie where, for reasons such as devices and labels; by
        default everyone everywhere.
    copies : (n_experts,) least number of nodes to lie on, whole and at least 1, as by default.
    together : (n_experts, n_experts) requests per second that both answer; symmetric, zero on the
        diagonal. By default none.
    apart_cost : of a request whose two answers come from different nodes.
    second_cost : of a second of loading; 1000 where costs are milliseconds.
    miss : probability that an expert on demand has to be loaded for a request; 1 is the worst
        case, in which every request asks for another expert than the one before.

    Raises
    ------
    ValueError
        Shapes disagree, there is no node or no expert, or a figure is NaN or out of its range;
        the field is named.
    """

    rate_per_s: Floats
    expert_gb: Floats
    node_gb: Floats
    slots: Floats
    cost: Floats
    busy_s: Floats
    switch_s: Floats | None = None
    allowed: Bools | None = None
    copies: Floats | None = None
    together: Floats | None = None
    apart_cost: float = 0.0
    second_cost: float = 1000.0
    miss: float = 1.0

    def __post_init__(self) -> None:
        if self.cost.ndim != 2 or self.cost.size == 0:
            raise ValueError(
                "cost must have shape (n_nodes, n_experts), neither of them 0, "
                f"not {self.cost.shape}"
            )
        pairs = n_nodes, n_experts = self.cost.shape
        check("cost", self.cost, pairs)
        check("busy_s", self.busy_s, pairs)
        check("rate_per_s", self.rate_per_s, (n_experts,))
        check("expert_gb", self.expert_gb, (n_experts,))
        check("node_gb", self.node_gb, (n_nodes,), np.inf)
        check("slots", self.slots, (n_nodes,), np.inf)
        check("apart_cost", np.asarray(self.apart_cost), ())
        check("second_cost", np.asarray(self.second_cost), ())
        check("miss", np.asarray(self.miss), (), 1.0)
        if self.switch_s is not None:
            check("switch_s", self.switch_s, pairs, np.inf)
        if self.allowed is not None:
            check_flags("allowed", self.allowed, pairs)
        if self.copies is not None:
            check("copies", self.copies, (n_experts,))
            if np.any((self.copies < 1) | (self.copies % 1 != 0)):
                raise ValueError("copies must be whole numbers of at least 1")
        if self.together is not None:
            check("together", self.together, (n_experts, n_experts))
            if np.any(self.together != self.together.T) or np.any(np.diagonal(self.together)):
                raise ValueError("together must be symmetric, with zeros on the diagonal")

    @property
    def n_nodes(self) -> int:
        """Rows of the figures."""
        return int(self.cost.shape[0])

    @property
    def n_experts(self) -> int:
        """Columns of the figures."""
        return int(self.cost.shape[1])

    @property
    def least_copies(self) -> Floats:
        """(n_experts,) nodes that each has to lie on."""
        return np.ones(self.n_experts) if self.copies is None else self.copies

    @property
    def resident_ok(self) -> Bools:
        """(n_nodes, n_experts) whether the expert may be resident there, and alone would fit."""
        fits: Bools = self.expert_gb <= loose(self.node_gb)[:, None]
        return fits if self.allowed is None else fits & self.allowed

    @property
    def on_demand_ok(self) -> Bools:
        """(n_nodes, n_experts) whether it may be loaded there on demand, and alone would fit."""
        if self.switch_s is None:
            return np.zeros(self.cost.shape, dtype=bool)
        return self.resident_ok & np.isfinite(self.switch_s)

    @property
    def loading_s(self) -> Floats:
        """(n_nodes, n_experts) expected per request on demand; 0 where there is none."""
        if self.switch_s is None:
            return np.zeros(self.cost.shape)
        return np.where(np.isfinite(self.switch_s), self.miss * self.switch_s, 0.0)

    @property
    def resident_work(self) -> Floats:
        """(n_nodes, n_experts) slots kept busy by all requests of an expert, answered there."""
        return self.rate_per_s * self.busy_s

    @property
    def on_demand_work(self) -> Floats:
        """(n_nodes, n_experts) the same on demand: answering and loading."""
        return self.rate_per_s * (self.busy_s + self.loading_s)

    @property
    def resident_cost(self) -> Floats:
        """(n_nodes, n_experts) per second, of all requests of an expert, answered there."""
        return self.rate_per_s * self.cost

    @property
    def on_demand_cost(self) -> Floats:
        """(n_nodes, n_experts) the same on demand: answers and loading."""
        return self.rate_per_s * (self.cost + self.loading_s * self.second_cost)

    @property
    def pairs(self) -> tuple[Integers, Integers, Floats]:
        """Experts that answer together, the smaller index first, and what it costs from apart."""
        if self.together is None or self.apart_cost == 0:
            return np.zeros(0, dtype=int), np.zeros(0, dtype=int), np.zeros(0)
        first, second = np.nonzero(np.triu(self.together))
        return first, second, self.together[first, second] * self.apart_cost

    def keep(self, experts: Any, nodes: Any) -> PlacementProblem:
        """The same problem with only these experts and nodes, in this order."""
        cut: dict[str, Any] = {}
        for name in (field.name for field in fields(self)):
            figures = getattr(self, name)
            if name == "together" and figures is not None:
                figures = figures[np.ix_(experts, experts)]
            elif isinstance(figures, np.ndarray) and figures.ndim == 2:
                figures = figures[np.ix_(nodes, experts)]
            elif isinstance(figures, np.ndarray):
                figures = figures[nodes if name in ("node_gb", "slots") else experts]
            cut[name] = figures
        return PlacementProblem(**cut)


@dataclass(frozen=True, slots=True)
class Placement:
    """Where experts lie, and which share of an expert's requests is answered where.

    Parameters
    ----------
    resident : (n_nodes, n_experts) always in memory.
    on_demand : (n_nodes, n_experts) loaded when asked for; never where resident.
    share : (n_nodes, n_experts) in [0, 1]; those of an expert sum to 1.
    """

    resident: Bools
    on_demand: Bools
    share: Floats


@dataclass(frozen=True, slots=True)
class Bill:
    """What a placement costs a second: the answers, loading on demand, answers from apart."""

    answers: float = 0.0
    loading: float = 0.0
    apart: float = 0.0

    @property
    def total(self) -> float:
        """The objective."""
        return self.answers + self.loading + self.apart


def bill(problem: PlacementProblem, placement: Placement) -> Bill:
    """What a placement costs; each request of a pair is answered from one node where it can be."""
    share = placement.share
    waited = np.where(placement.on_demand, share, 0.0) * problem.loading_s
    first, second, price = problem.pairs
    united = np.minimum(share[:, first], share[:, second]).sum(axis=0)
    return Bill(
        answers=float((share * problem.resident_cost).sum()),
        loading=float((problem.rate_per_s * waited).sum() * problem.second_cost),
        apart=float(price @ np.maximum(1.0 - united, 0.0)),
    )


def memory_gb(problem: PlacementProblem, placement: Placement) -> Floats:
    """(n_nodes,) of the residents, and of the largest of those on demand."""
    turns = np.where(placement.on_demand, problem.expert_gb, 0.0).max(axis=1)
    taken: Floats = placement.resident @ problem.expert_gb + turns
    return taken


def busy_slots(problem: PlacementProblem, placement: Placement) -> Floats:
    """(n_nodes,) slots that are busy on average: rate times the time that each request takes."""
    work = np.where(placement.on_demand, problem.on_demand_work, problem.resident_work)
    busy: Floats = (placement.share * work).sum(axis=1)
    return busy


def busy_turns(problem: PlacementProblem, placement: Placement) -> Floats:
    """(n_nodes,) share of the time in which the room of those on demand is in use."""
    shared = np.where(placement.on_demand, placement.share, 0.0)
    busy: Floats = (shared * problem.on_demand_work).sum(axis=1)
    return busy


def broken(problem: PlacementProblem, placement: Placement) -> tuple[str, ...]:
    """What a placement does not keep: ``node_gb[v]``, ``slots[v]``, ``turns[v]``, ``expert[e]``.

    The last where an expert lies where it may not, on too few nodes, or is answered from where it
    does not lie, or not wholly. Empty for a feasible placement.
    """
    lies = placement.resident | placement.on_demand
    wrong = (placement.resident & ~problem.resident_ok) | (
        placement.on_demand & (~problem.on_demand_ok | placement.resident)
    )
    unserved = np.abs(placement.share.sum(axis=0) - 1.0) > SLACK
    astray = np.any(wrong | ((placement.share > 0) & ~lies), axis=0)
    missing = lies.sum(axis=0) < problem.least_copies
    found = {
        "node_gb": memory_gb(problem, placement) > loose(problem.node_gb),
        "slots": busy_slots(problem, placement) > problem.slots * (1 + SLACK),
        "turns": busy_turns(problem, placement) > 1 + SLACK,
        "expert": unserved | astray | missing,
    }
    return tuple(
        f"{name}[{k}]" for name, over in found.items() for k in np.flatnonzero(over).tolist()
    )


def tidied(problem: PlacementProblem, placement: Placement) -> Placement:
    """The placement without places that nothing is answered from and that no copy is owed to."""
    lies = placement.resident | placement.on_demand
    used = lies & (placement.share > 0)
    idle = lies & ~used
    # residents first, of equals the first node
    rank = np.where(placement.resident, 0, problem.n_nodes) + np.arange(problem.n_nodes)[:, None]
    place = np.argsort(np.argsort(np.where(idle, rank, 2 * problem.n_nodes), axis=0), axis=0)
    kept = used | (idle & (place < problem.least_copies - used.sum(axis=0)))
    return Placement(placement.resident & kept, placement.on_demand & kept, placement.share)


def loose(limits: Floats) -> Floats:
    """Limits with what adding floats can cost."""
    return limits * (1 + ROUNDING)

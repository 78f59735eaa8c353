"""Placements by a mixed-integer program, its relaxation as a bound, and the best shares of one.

The program of `coe.optimizer.placement` with ``x_ve, z_ve`` in {0, 1}: resident, on demand::

    f_ve <= x_ve,  d_ve <= z_ve,  x_ve + z_ve <= 1,  s = f + d,
    R_v >= g_e z_ve  and  sum_e g_e x_ve + R_v <= G_v,
    t_veh <= s_ve, s_vh  in place of their minimum
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pulp  # type: ignore[import-untyped]

from coe.optimizer.branch_and_cut import SCALE, Ending, Solver, run
from coe.optimizer.figures import Bools, Floats
from coe.optimizer.placement import (
    Placement,
    PlacementProblem,
    busy_slots,
    loose,
    memory_gb,
)

_HALF = 0.5
_DUST = 1e-7  # shares below are tolerance of the solver
_TIGHT = 1e-7  # by how much a bound of a relaxation is lowered, in proportion: the same

Places = dict[tuple[int, int], Any]


@dataclass(frozen=True, slots=True)
class Placed:
    """How a search for placements ended: the best one if any, and the least that any can cost."""

    ending: Ending
    placement: Placement | None = None
    bound: float = -np.inf


def program(problem: PlacementProblem, solver: Solver, time_limit_s: float | None) -> Placed:
    """The placement of least cost, to the tolerance of the solver.

    Memory is kept exactly: what only the tolerance admits is cut off, and the search goes on.

    Parameters
    ----------
    time_limit_s : of each run.

    Raises
    ------
    CoeError
        The solver could not be run.
    """
    model = _Model.of(problem, "Binary")
    if model is None:
        return Placed("infeasible", bound=np.inf)
    found = model.solved(model.price(), solver, time_limit_s)
    return replace(found, bound=found.bound + model.apart)


@dataclass(frozen=True, slots=True)
class Relaxed:
    """What is true if experts could lie on nodes in part.

    Parameters
    ----------
    bound : no placement costs less; ``inf``: there is none, ``-inf``: nothing is known.
    shares : (n_nodes, n_experts) of requests, answered by residents, and on demand.
    """

    bound: float
    shares: tuple[Floats, Floats]


def relax(problem: PlacementProblem, solver: Solver, time_limit_s: float | None) -> Relaxed:
    """A bound on all placements, and where it would have the requests answered; zeros if nowhere.

    Raises
    ------
    CoeError
        The solver could not be run.
    """
    nowhere = np.zeros(problem.cost.shape), np.zeros(problem.cost.shape)
    model = _Model.of(problem, "Continuous")
    if model is None:
        return Relaxed(np.inf, nowhere)
    unit = model.minimise(model.price())
    ending, _ = run(model.lp, time_limit_s, solver)
    if ending != "optimal":
        return Relaxed(np.inf if ending == "infeasible" else -np.inf, nowhere)
    least = float(pulp.value(model.lp.objective)) * unit + model.apart
    for part, variables in zip(nowhere, (model.f, model.d), strict=True):
        for at, var in variables.items():
            part[at] = var.varValue
    return Relaxed(least - _TIGHT * abs(least), nowhere)


def best_shares(
    problem: PlacementProblem, placement: Placement, solver: Solver, time_limit_s: float | None
) -> Placement:
    """The placement with the shares of least cost; as it is where none were found."""
    fixed = replace(problem, node_gb=np.full(problem.n_nodes, np.inf))
    model = _Model.of(fixed, "Continuous", placement)
    if model is None:
        return placement
    model.minimise(model.price())
    ending, _ = run(model.lp, time_limit_s, solver)
    return replace(placement, share=model.shares()) if ending == "optimal" else placement


def least_of_node(
    problem: PlacementProblem, limit: str, node: int, solver: Solver, time_limit_s: float | None
) -> tuple[Ending, float]:
    """The smallest ``node_gb`` or ``slots`` of one node that does, all others kept."""
    limits = np.array(getattr(problem, limit), dtype=float)
    limits[node] = np.inf
    freed: Any = {limit: limits}
    model = _Model.of(replace(problem, **freed), "Binary")
    if model is None:
        return "infeasible", np.inf
    wanted = model.memory(node) if limit == "node_gb" else model.busy(node)
    found = model.solved(wanted, solver, time_limit_s)
    if found.placement is None:
        return found.ending, np.inf
    taken = memory_gb if limit == "node_gb" else busy_slots
    return found.ending, float(taken(problem, found.placement)[node])


Terms = list[tuple[Any, float]]


@dataclass(frozen=True, slots=True)
class _Model:
    """The program without its objective, and its variables by (node, expert).

    ``x, z``: resident, on demand; ``f, d``: shares answered so; ``turns``: memory of those on
    demand, by node; ``t``: share of a pair's requests that a node answers wholly.
    """

    problem: PlacementProblem
    lp: Any
    x: Places
    z: Places
    f: Places
    d: Places
    turns: dict[int, Any]
    t: dict[tuple[int, int, int], Any]

    @classmethod
    def of(
        cls, problem: PlacementProblem, kind: str, lies: Placement | None = None
    ) -> _Model | None:
        """``None`` where some expert could not lie on as many nodes as it has to."""
        resident, on_demand = problem.resident_ok, problem.on_demand_ok
        if lies is not None:
            resident, on_demand = lies.resident, lies.on_demand
        if np.any((resident | on_demand).sum(axis=0) < problem.least_copies):
            return None
        lp, low = pulp.LpProblem("placement", pulp.LpMinimize), 0 if lies is None else 1
        model = cls(
            problem,
            lp,
            *(_places(lp, "x", resident, kind, low), _places(lp, "z", on_demand, kind, low)),
            *(_places(lp, "f", resident), _places(lp, "d", on_demand)),
            {
                v: lp.add_variable(f"r{v}", 0)
                for v in np.flatnonzero(on_demand.any(axis=1)).tolist()
            },
            {},
        )
        model._experts()
        model._nodes()
        model._pairs()
        return model

    @property
    def apart(self) -> float:
        """What all pairs cost if each is answered from apart."""
        return float(self.problem.pairs[2].sum())

    def price(self) -> Terms:
        """The cost beside `apart`."""
        resident, on_demand = self.problem.resident_cost, self.problem.on_demand_cost
        terms = [(var, float(resident[at])) for at, var in self.f.items()]
        terms += [(var, float(on_demand[at])) for at, var in self.d.items()]
        price = {(e, h): cost for e, h, cost in self._together()}
        return terms + [(var, -price[e, h]) for (_, e, h), var in self.t.items()]

    def memory(self, node: int) -> Terms:
        """What is taken of a node's memory."""
        size = self.problem.expert_gb
        terms = [(var, float(size[e])) for (v, e), var in self.x.items() if v == node]
        return terms + ([(self.turns[node], 1.0)] if node in self.turns else [])

    def busy(self, node: int) -> Terms:
        """Slots of a node that are busy."""
        work = self.problem.resident_work
        terms = [(var, float(work[at])) for at, var in self.f.items() if at[0] == node]
        return terms + self._turns(node)

    def _turns(self, node: int) -> Terms:
        work = self.problem.on_demand_work
        return [(var, float(work[at])) for at, var in self.d.items() if at[0] == node]

    def _experts(self) -> None:
        """Each is answered wholly, from where it lies, on nodes enough."""
        lies: list[list[Any]] = [[] for _ in range(self.problem.n_experts)]
        parts: list[list[Any]] = [[] for _ in range(self.problem.n_experts)]
        for share, there in ((self.f, self.x), (self.d, self.z)):
            for at, part in share.items():
                self.lp.addConstraint(part <= there[at])
                lies[at[1]].append(there[at])
                parts[at[1]].append(part)
        for at in self.x.keys() & self.z.keys():
            self.lp.addConstraint(self.x[at] + self.z[at] <= 1)
        for e, copies in enumerate(self.problem.least_copies.tolist()):
            self.lp.addConstraint(pulp.lpSum(parts[e]) == 1)
            if copies > 1:
                self.lp.addConstraint(pulp.lpSum(lies[e]) >= copies)

    def _nodes(self) -> None:
        """Memory, slots, and turns of those on demand."""
        size = self.problem.expert_gb
        for (v, e), there in self.z.items():
            self.lp.addConstraint(self.turns[v] >= float(size[e]) * there)
        for v in range(self.problem.n_nodes):
            self._limit(self.memory(v), float(loose(self.problem.node_gb)[v]))
            self._limit(self.busy(v), float(self.problem.slots[v]))
            self._limit(self._turns(v), 1.0)

    def _limit(self, terms: Terms, limit: float) -> None:
        if terms and limit < np.inf:
            unit = limit or 1.0
            total = pulp.LpAffineExpression([(var, weight / unit) for var, weight in terms])
            self.lp.addConstraint(total <= (1.0 if limit > 0 else 0.0))

    def _pairs(self) -> None:
        for e, h, _ in self._together():
            for v in range(self.problem.n_nodes):
                own = [self._share(v, e), self._share(v, h)]
                if not all(own):
                    continue
                both = self.t[v, e, h] = self.lp.add_variable(f"t{v}_{e}_{h}", 0, 1)
                for parts in own:
                    self.lp.addConstraint(both <= pulp.lpSum(parts))

    def _together(self) -> list[tuple[int, int, float]]:
        first, second, price = self.problem.pairs
        return list(zip(first.tolist(), second.tolist(), price.tolist(), strict=True))

    def _share(self, node: int, expert: int) -> list[Any]:
        at = (node, expert)
        return [share[at] for share in (self.f, self.d) if at in share]

    def minimise(self, terms: Terms) -> float:
        """Set the objective; its unit comes back."""
        unit = max((abs(weight) for _, weight in terms), default=0.0) / SCALE or 1.0
        self.lp.setObjective(pulp.LpAffineExpression([(var, w / unit) for var, w in terms]))
        return unit

    def solved(self, terms: Terms, solver: Solver, time_limit_s: float | None) -> Placed:
        """The placement of the least objective that keeps the memory of every node."""
        unit = self.minimise(terms)
        while True:
            ending, bound = run(self.lp, time_limit_s, solver)
            if ending == "infeasible":
                return Placed(ending, bound=np.inf)
            if ending == "unknown":
                return Placed(ending, bound=bound * unit)
            found = self._placement()
            taken = memory_gb(self.problem, found)
            over = np.flatnonzero(taken > loose(self.problem.node_gb)).tolist()
            if not over:
                return Placed(ending, found, bound * unit)
            for v in over:
                used = [var for (at, _), var in (*self.x.items(), *self.z.items()) if at == v]
                used = [var for var in used if var.varValue > _HALF]
                self.lp.addConstraint(pulp.lpSum(used) <= len(used) - 1)

    def shares(self) -> Floats:
        """(n_nodes, n_experts) of the solution, without what is tolerance."""
        share = np.zeros(self.problem.cost.shape)
        for parts in (self.f, self.d):
            for at, part in parts.items():
                share[at] += part.varValue
        share[share < _DUST] = 0.0
        whole: Floats = share / share.sum(axis=0)
        return whole

    def _placement(self) -> Placement:
        share = self.shares()
        lies = [np.zeros(share.shape, dtype=bool) for _ in range(2)]
        for there, places in zip(lies, (self.x, self.z), strict=True):
            for at, var in places.items():
                there[at] = var.varValue > _HALF
        return Placement(lies[0], lies[1] & ~lies[0], share)


def _places(lp: Any, name: str, where: Bools, kind: str = "Continuous", low: int = 0) -> Places:
    return {
        (v, e): lp.add_variable(f"{name}{v}_{e}", low, 1, kind)
        for v, e in np.argwhere(where).tolist()
    }

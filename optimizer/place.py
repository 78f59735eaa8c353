"""Which expert lies on which node: one verb in front of the program and the search."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import numpy as np

from coe.optimizer.branch_and_cut import Solver, check_solver
from coe.optimizer.placement import Bill, Placement, PlacementProblem, bill, broken, tidied
from coe.optimizer.placement_program import Relaxed, best_shares, least_of_node, program, relax
from coe.optimizer.placement_search import search
from coe.optimizer.result import Status

PlaceMethod = Literal["auto", "milp", "milp-highs", "greedy"]

MOST_PLACED = 120
"""Pairs of node and expert up to which ``auto`` asks the program."""

LAST_RESORT_S = 60.0
"""For each run of a solver where the search found nothing and no time limit was given."""

_PROVED = 1e-6
"""A gap, in proportion, that counts as none: tolerance of solvers."""


@dataclass(frozen=True, slots=True)
class PlacementResult:
    """A placement with what it costs and what no other undercuts; or why there is none.

    Parameters
    ----------
    status : ``optimal``, proved; ``feasible``: the best that was found; ``infeasible``, proved;
        ``unknown``: nothing was found in time, or by the search, which proves nothing.
    placement : ``None`` without one.
    cost : per second, in the unit of the problem's costs.
    bound : no placement costs less; ``inf`` when infeasible.
    needed : when infeasible, by ``node_gb[v]`` and ``slots[v]`` the smallest value of one node that
        would do with all others kept; ``None`` where none would. Absent where time ran out.
    homeless : when infeasible, experts that cannot lie on as many nodes as they have to, whatever
        the others do: too large for every node that they are allowed on.
    method, why : how, and why so.
    solve_ms : time from the question to the answer.
    """

    status: Status
    placement: Placement | None = None
    cost: Bill = field(default_factory=Bill)
    bound: float = -np.inf
    needed: Mapping[str, float | None] = field(default_factory=dict)
    homeless: tuple[int, ...] = ()
    method: str = ""
    why: str = ""
    solve_ms: float = 0.0

    @property
    def gap(self) -> float:
        """How much less another placement might cost; 0 where proved, and when infeasible."""
        proved = self.status in ("optimal", "infeasible")
        return 0.0 if proved else self.cost.total - self.bound


def place(
    problem: PlacementProblem,
    method: PlaceMethod = "auto",
    time_limit_s: float | None = None,
    now: Callable[[], float] = time.perf_counter,
) -> PlacementResult:
    """The placement of least cost within memory and slots of all nodes, with a certificate.

    ``auto`` asks the program for up to `MOST_PLACED` pairs of node and expert, and where the
    search, which it prefers beyond, finds nothing. Ties are left to the solver, which starts no
    threads.

    Parameters
    ----------
    method : ``milp`` (a mixed-integer program, by CBC), ``milp-highs`` (by HiGHS), ``greedy``: the
        search, with the shares and the bound of linear programs.
    time_limit_s : of the search, and of each run of a solver; what a program has not proved by then
        is compared with what the search finds. When nothing fits, no further limit is looked at
        once it has passed.
    now : monotonic seconds.

    Raises
    ------
    ValueError
        The method is not known or not installed, or the time limit is not positive.
    CoeError
        CBC or HiGHS could not be run.
    """
    if method not in get_args(PlaceMethod):
        raise ValueError(f"method must be one of {get_args(PlaceMethod)}, not {method!r}")
    solver: Solver = "highs" if method == "milp-highs" else "cbc"
    check_solver(solver, time_limit_s)
    started = now()

    def expired() -> bool:
        return time_limit_s is not None and now() - started > time_limit_s

    task = _Task(problem, solver, time_limit_s, expired)
    chosen, why = task.choice() if method == "auto" else (method, "asked for")
    found = task.exact() if chosen.startswith("milp") else task.searched()
    if method == "auto" and chosen == "greedy" and found.status == "unknown":
        chosen, why = "milp", "the search found nothing"
        found = replace(task, time_limit_s=time_limit_s or LAST_RESORT_S).exact()
    return replace(found, method=chosen, why=why, solve_ms=(now() - started) * 1000.0)


@dataclass(frozen=True, slots=True)
class _Task:
    problem: PlacementProblem
    solver: Solver
    time_limit_s: float | None
    expired: Callable[[], bool]

    def choice(self) -> tuple[PlaceMethod, str]:
        n_pairs = int((self.problem.resident_ok | self.problem.on_demand_ok).sum())
        if n_pairs <= MOST_PLACED:
            return "milp", f"{n_pairs} pairs of node and expert"
        return "greedy", f"{n_pairs} pairs of node and expert are many for a program"

    def exact(self) -> PlacementResult:
        """The program's answer, or the search's where that is better when time is up."""
        found = program(self.problem, self.solver, self.time_limit_s)
        if found.ending == "infeasible":
            return self._infeasible()
        ours = self._cheapest(found.placement)
        if found.ending == "optimal" and ours is not None:
            return self._judged(ours, found.bound, proved=True)
        relaxed = relax(self.problem, self.solver, self.time_limit_s)
        ours = self._cheapest(ours, *self._divided(relaxed))
        bound = max(found.bound, relaxed.bound)
        return (
            PlacementResult("unknown", bound=bound) if ours is None else self._judged(ours, bound)
        )

    def searched(self) -> PlacementResult:
        """The search's answer; what the relaxation proves of it."""
        relaxed = relax(self.problem, self.solver, self.time_limit_s)
        if relaxed.bound == np.inf:
            return self._infeasible()
        ours, bound = self._cheapest(*self._divided(relaxed)), relaxed.bound
        return (
            PlacementResult("unknown", bound=bound) if ours is None else self._judged(ours, bound)
        )

    def _divided(self, relaxed: Relaxed) -> tuple[Placement, Placement]:
        """What the search found, and the same places with the best shares."""
        ours = search(self.problem, self.expired, relaxed.shares)
        return ours, best_shares(self.problem, ours, self.solver, self.time_limit_s)

    def _cheapest(self, *placements: Placement | None) -> Placement | None:
        """The one of least cost, of those that break nothing."""
        kept = [p for p in placements if p is not None and not broken(self.problem, p)]
        return min(kept, key=lambda p: bill(self.problem, p).total, default=None)

    def _judged(self, placement: Placement, bound: float, proved: bool = False) -> PlacementResult:
        cost, placement = bill(self.problem, placement), tidied(self.problem, placement)
        proved = proved or cost.total - bound <= _PROVED * abs(cost.total)
        return PlacementResult(
            "optimal" if proved else "feasible",
            placement,
            cost,
            cost.total if proved else min(bound, cost.total),
        )

    def _infeasible(self) -> PlacementResult:
        """Which one limit, raised to what, would make a placement possible."""
        problem = self.problem
        able = (problem.resident_ok | problem.on_demand_ok).sum(axis=0)
        homeless = np.flatnonzero(able < problem.least_copies).tolist()
        needed: dict[str, float | None] = {}
        for limit in ("node_gb", "slots"):
            for v in np.flatnonzero(np.isfinite(getattr(problem, limit))).tolist():
                if self.expired():
                    break
                ending, least = least_of_node(problem, limit, v, self.solver, self.time_limit_s)
                if ending == "infeasible":
                    needed[f"{limit}[{v}]"] = None
                elif ending == "optimal":
                    needed[f"{limit}[{v}]"] = least
        return PlacementResult("infeasible", bound=np.inf, needed=needed, homeless=tuple(homeless))

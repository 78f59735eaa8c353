"""The best sets of experts within budgets: one verb in front of every solver."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Literal, get_args

import numpy as np

from coe.optimizer.additive import additive
from coe.optimizer.branch import branch
from coe.optimizer.enumeration import MOST_ENUMERATED, enumerate_sets
from coe.optimizer.figures import Bools
from coe.optimizer.footprint import (
    allowed,
    fits_alone,
    latency_ms,
    mean_over_traffic,
    tightest,
    total_usage,
)
from coe.optimizer.greedy import greedy
from coe.optimizer.knapsack import MOST_LISTED, per_category
from coe.optimizer.polyblock import polyblock
from coe.optimizer.problem import Problem
from coe.optimizer.program import MOST_PROGRAMMED, program
from coe.optimizer.result import EXACT, Found, Result, Status
from coe.optimizer.rows import rows_of
from coe.optimizer.shortfall import shortfall
from coe.optimizer.singles import single_fits
from coe.optimizer.value import over_traffic, value_of

Method = Literal[
    "auto", "enumeration", "branch", "polyblock", "greedy", "knapsack", "milp", "milp-highs"
]
Solver = Callable[[Problem, Callable[[], bool]], Found]

MOST_BRANCHED = 60
"""Experts beyond which branch-and-bound is not worth its time."""

MOST_WORK = 2e9
"""Sets times prompts that enumeration is chosen for: about a second."""


def optimize(
    problem: Problem,
    method: Method = "auto",
    time_limit_s: float | None = None,
    now: Callable[[], float] = time.perf_counter,
) -> Result:
    """The sets of experts of the largest value that exceed no ceiling, with a certificate.

    Experts that cannot fit are left out first. ``auto`` then chooses by size and structure, and
    says in ``why`` what decided. Where no sets are found, what is left of the time goes into why.

    Parameters
    ----------
    method : ``enumeration``, ``branch`` (branch-reduce-and-bound), ``polyblock`` (outer
        approximation), ``greedy``, ``knapsack`` (labels: additive values, sets per category),
        ``milp`` (a mixed-integer program, by CBC), ``milp-highs`` (by HiGHS).
    time_limit_s : when it has passed, the best sets so far are returned with their gap. Looked
        at between steps, so that it may be exceeded by one of them.
    now : monotonic seconds.

    Raises
    ------
    ValueError
        The method is not known, not for this problem or not installed, or the time limit is
        not positive.
    CoeError
        CBC or HiGHS could not be run.
    """
    if method not in get_args(Method):
        raise ValueError(f"method must be one of {get_args(Method)}, not {method!r}")
    if time_limit_s is not None and not time_limit_s > 0:
        raise ValueError(f"time_limit_s must be positive, not {time_limit_s!r}")
    started = now()

    def left_s() -> float | None:
        return None if time_limit_s is None else time_limit_s - (now() - started)

    def expired() -> bool:
        left = left_s()
        return left is not None and left <= 0

    able = _able(problem)
    if not able.any(axis=1).all():
        chosen, why = "filter", "some category is left without an expert that fits by itself"
        result = Result("infeasible")
    else:
        experts = np.flatnonzero(able.any(axis=0))
        few = problem.keep(experts)
        chosen, why = _choose(few) if method == "auto" else (method, "asked for")
        found = _solver(chosen, few, time_limit_s)(few, expired)
        result = _result(problem, _widened(found, experts, problem.n_experts))
    if not result.sets:
        result = _explained(problem, result, left_s)
    return replace(result, method=chosen, why=why, solve_ms=(now() - started) * 1000.0)


def _explained(problem: Problem, empty: Result, left_s: Callable[[], float | None]) -> Result:
    """A result without sets, with what stands in the way of any; unless there may be some."""
    if empty.status == "unknown":
        if problem.sets == "shared" or single_fits(problem, left_s) != "infeasible":
            return empty
        empty = replace(empty, status="infeasible", upper=-np.inf)
    short = shortfall(problem, left_s)
    return replace(empty, binding=short.binding, needed=short.needed)


def _able(problem: Problem) -> Bools:
    """(n_categories, n_experts) who could be in a category's set at all."""
    able = allowed(problem)
    return np.broadcast_to(fits_alone(problem), able.shape) if problem.sets == "shared" else able


def _choose(problem: Problem) -> tuple[Method, str]:
    """The method for a problem of experts that could all be in a set, and why."""
    n, rows = problem.n_experts, rows_of(problem)
    n_prompts = 1 if problem.prompts is None else len(problem.prompts.category)
    if problem.sets == "per_category":
        listed = problem.aggregation == "best"
        if rows.room.size and (listed or n <= MOST_PROGRAMMED):
            return "milp", "sets per category share the memory of nodes"
        if not rows.room.size and (listed or n <= MOST_LISTED):
            return "knapsack", "sets per category share nothing but budgets"
        return "greedy", f"too many sets per category of {n} experts to list"
    if n <= MOST_ENUMERATED and float(2**n) * n_prompts <= MOST_WORK:
        return "enumeration", f"{n} experts have {2**n - 1} sets"
    adds_up = problem.aggregation == "sum" and (problem.k is None or problem.k >= n)
    if adds_up and len(rows.linear[1]) <= 1:
        return "knapsack", "values and usages add up, under a single ceiling"
    if n <= MOST_BRANCHED:
        return "branch", f"{n} experts have too many sets to look at each"
    return "greedy", f"{n} experts are too many for an exact search"


def _solver(method: Method, problem: Problem, time_limit_s: float | None) -> Solver:
    if method == "knapsack":
        return per_category if problem.sets == "per_category" else additive
    return {
        "enumeration": lambda problem, _: enumerate_sets(problem),
        "branch": branch,
        "polyblock": polyblock,
        "greedy": greedy,
        "milp": lambda problem, expired: program(problem, expired, "cbc", time_limit_s),
        "milp-highs": lambda problem, expired: program(problem, expired, "highs", time_limit_s),
    }[method]


def _widened(found: Found, experts: np.ndarray, n_experts: int) -> Found:
    """What was found among some experts, said of all."""
    if found.members is None:
        return found
    members = np.zeros((len(found.members), n_experts), dtype=bool)
    members[:, experts] = found.members
    return replace(found, members=members)


def _result(problem: Problem, found: Found) -> Result:
    """The result of what a solver found of a problem that may have an answer."""
    if found.members is None:
        status: Status = "infeasible" if found.upper == -np.inf else "unknown"
        return Result(status, upper=found.upper, nodes=found.nodes)
    value, ceilings = value_of(problem), problem.ceilings()
    rows = range(problem.n_categories)
    if problem.sets == "shared":
        worth, share = value.of(found.members[:1]), [*value.weights(found.members[0])]
    else:
        worth = np.array([[value.of(found.members[c : c + 1])[c, 0]] for c in rows])
        share = [value.weights(found.members[c])[c] for c in rows]
    total = float(over_traffic(problem.shares, worth)[0])
    used = total_usage(problem, found.members)
    close = EXACT * max(1.0, abs(total)) if np.isfinite(total) else 0.0
    proved = found.upper <= total + close
    return Result(
        status="optimal" if proved else "feasible",
        sets=tuple(tuple(np.flatnonzero(row).tolist()) for row in found.members),
        weights=tuple(tuple(share[c][found.members[c]].tolist()) for c in rows),
        value=total,
        upper=total if proved else found.upper,
        energy_j=mean_over_traffic(problem, found.members, "max_energy_j"),
        cost_usd=mean_over_traffic(problem, found.members, "max_cost_usd"),
        latency_ms=tuple(latency_ms(problem, found.members).tolist()),
        binding=tightest(problem, found.members),
        slack={name: ceilings[name] - used[name] for name in ceilings},
        nodes=found.nodes,
    )

"""Solvers and kernels, side by side on the same instances, on one core. Prints one JSON."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from coe.core import Budget, Estimate, Prices
from coe.decision import Candidate
from coe.kernels import mixture, reference, staircase, votes
from coe.mode import Mode
from coe.offers import Menu as PlannedMenu
from coe.offers import Offers
from coe.optimizer.menu import menus
from coe.optimizer.optimize import optimize
from coe.optimizer.options import Options
from coe.optimizer.problem import Problem, Prompts
from coe.optimizer.program import program
from coe.optimizer.select import select
from coe.optimizer.steps import steps
from coe.optimizer.value import over_traffic, value_of

sys.path.insert(0, str(Path(__file__).parents[1]))
from calibration import calibration

SEEDS = range(5)
WATTS = 20.0


def best_of(call: Callable[[], Any], n: int) -> tuple[float, Any]:
    """Median milliseconds of ``n`` calls after one that is not counted, and what came back."""
    call()
    spent = []
    for _ in range(n):
        started = time.perf_counter()
        found = call()
        spent.append((time.perf_counter() - started) * 1000)
    return statistics.median(spent), found


def facility(
    seed: int, n_experts: int, n_categories: int, share: float, aggregation: str = "best"
) -> Problem:
    """Uniform qualities and joules, under a ceiling of a share of all joules."""
    rng = np.random.default_rng(seed)
    energy_j = np.tile(rng.uniform(10, 100, n_experts), (n_categories, 1))
    return Problem(
        aggregation=aggregation,  # type: ignore[arg-type]
        shares=rng.dirichlet(np.ones(n_categories)),
        energy_j=energy_j,
        latency_ms=1000 * energy_j / WATTS,
        quality=rng.uniform(size=(n_categories, n_experts)),
        max_energy_j=share * float(energy_j[0].sum()),
    )


def recorded(seed: int, n_experts: int, n_prompts: int, aggregation: str) -> Problem:
    """A gate that knows a little, over answers that are right with some probability."""
    rng = np.random.default_rng(seed)
    outcome = rng.uniform(0.01, 1, (n_prompts, n_experts))
    logits = 2 * rng.normal(size=outcome.shape) + np.log(outcome)
    energy_j = rng.uniform(10, 100, (1, n_experts))
    return Problem(
        aggregation=aggregation,  # type: ignore[arg-type]
        shares=np.ones(1),
        energy_j=energy_j,
        latency_ms=1000 * energy_j / WATTS,
        prompts=Prompts(logits, outcome, np.zeros(n_prompts, dtype=int)),
        max_energy_j=0.4 * float(energy_j.sum()),
    )


def solved(name: str, problems: list[Problem], method: str, limit_s: float) -> dict[str, Any]:
    """Median and largest milliseconds of one solver over instances, and how they ended."""
    spent, results = [], []
    optimize(problems[0], method, limit_s)  # type: ignore[arg-type]
    for problem in problems:
        started = time.perf_counter()
        result = optimize(problem, method, limit_s)  # type: ignore[arg-type]
        spent.append((time.perf_counter() - started) * 1000)
        results.append(result)
    return {
        "instance": name,
        "method": results[0].method,
        "median_ms": round(statistics.median(spent), 3),
        "most_ms": round(max(spent), 3),
        "proved": sum(result.status == "optimal" for result in results),
        "of": len(results),
        "largest_gap": round(max(result.gap for result in results), 6),
        "nodes": int(statistics.median(result.nodes for result in results)),
    }


def programmed(name: str, problems: list[Problem], solver: str, limit_s: float) -> dict[str, Any]:
    """As `solved`, of the mixed-integer program alone, by CBC or HiGHS."""
    spent, gaps = [], []
    for problem in problems:
        started = time.perf_counter()
        found = program(problem, lambda: False, solver, limit_s)  # type: ignore[arg-type]
        spent.append((time.perf_counter() - started) * 1000)
        assert found.members is not None
        worth = value_of(problem).of(found.members[:1])
        gaps.append(found.upper - float(over_traffic(problem.shares, worth)[0]))
    return {
        "instance": name,
        "method": f"milp, {solver}",
        "median_ms": round(statistics.median(spent), 3),
        "most_ms": round(max(spent), 3),
        "proved": sum(gap <= 1e-7 for gap in gaps),
        "of": len(problems),
        "largest_gap": round(max(gaps), 6),
    }


def solvers() -> Iterator[dict[str, Any]]:
    """Every solver on facility location: MoE2's set under one budget of joules."""
    cases = [
        (n_experts, n_categories, share)
        for n_experts in (10, 16, 20, 40, 60)
        for n_categories in (5, 20)
        for share in (0.15, 0.4)
    ]
    for n_experts, n_categories, share in cases:
        name = f"{n_experts} experts, {n_categories} categories, {share:.0%} of all joules"
        problems = [facility(seed, n_experts, n_categories, share) for seed in SEEDS]
        for method, most, limit_s in (
            ("enumeration", 20, 60.0),
            ("branch", 60, 1.0),
            ("polyblock", 20, 1.0),
            ("greedy", 60, 1.0),
        ):
            if n_experts <= most:
                yield solved(name, problems, method, limit_s)
        for solver in ("cbc", "highs"):
            yield programmed(name, problems, solver, 5.0)
    crowd = [facility(seed, 1000, 5, 0.05) for seed in SEEDS]
    yield solved("1000 experts, 5 categories, 5% of all joules", crowd, "greedy", 1.0)
    sums = [facility(seed, 1000, 1, 0.05, "sum") for seed in SEEDS]
    yield solved("1000 experts, values that add up, 5% of all joules", sums, "knapsack", 1.0)


def enumerations() -> dict[str, Any]:
    """All sets of 16 experts on 1,000 prompts against the NumPy twin, and 20 cheap ones."""
    rows = {}
    problem = recorded(0, 16, 1000, "likelihood")
    prompts = problem.prompts
    assert prompts is not None
    for aggregation in ("likelihood", "mixture", "choose"):
        asked = recorded(0, 16, 1000, aggregation)
        ms, _ = best_of(lambda asked=asked: optimize(asked, "enumeration"), 7)
        rows[f"optimize, 16 experts, 1000 prompts, {aggregation}"] = {"ms": round(ms, 2)}
    kernel_ms, values = best_of(
        lambda: mixture.mixtures_of_subsets(prompts.logits, prompts.outcome, True), 7
    )
    started = time.perf_counter()
    twin = reference.mixtures_of_subsets(prompts.logits, prompts.outcome, True)
    twin_ms = (time.perf_counter() - started) * 1000
    np.testing.assert_allclose(values, twin, rtol=1e-9)
    rows["kernel, 16 experts, 1000 prompts, likelihood"] = {
        "ms": round(kernel_ms, 2),
        "twin_ms": round(twin_ms, 1),
        "times_faster": round(twin_ms / kernel_ms, 1),
    }
    cheap = facility(0, 20, 5, 0.4)
    ms, _ = best_of(lambda: optimize(cheap, "enumeration"), 7)
    rows["optimize, 20 experts, 5 categories, best"] = {"ms": round(ms, 2)}
    return rows


def kernels() -> dict[str, Any]:
    """Each other kernel against its NumPy twin."""
    rng = np.random.default_rng(0)
    figures, values = rng.uniform(size=12), rng.uniform(size=1 << 12)
    logits, scores = rng.normal(size=(300, 12)), rng.uniform(size=(20, 12))
    points, indices = rng.uniform(size=(5000, 18)), rng.integers(0, 5000, (1000, 100))
    members, usage = rng.uniform(size=12) < 0.5, staircase.sums_of_subsets(figures)
    pairs: dict[str, tuple[Any, Any, tuple[Any, ...]]] = {
        "gate_weights": (mixture.gate_weights, reference.gate_weights, (logits, members, 3)),
        "top_of_subsets": (
            mixture.top_of_subsets,
            lambda h, y, k, log: reference.mixtures_of_subsets(h, y, log, k),
            (logits[:20], np.abs(logits[:20]) / 9, 2, False),
        ),
        "sums_of_subsets": (
            staircase.sums_of_subsets,
            reference.sums_of_subsets,
            (figures,),
        ),
        "largest_of_subsets": (
            staircase.largest_of_subsets,
            reference.largest_of_subsets,
            (figures, 3),
        ),
        "best_of_subsets": (
            staircase.best_of_subsets,
            reference.best_of_subsets,
            (scores, np.ones(20)),
        ),
        "closure": (staircase.closure, reference.closure, (values[: 1 << 10],)),
        "staircase": (staircase.staircase, reference.staircase, (usage, values)),
        "neighbour_means": (votes.neighbour_means, reference.neighbour_means, (indices, points)),
    }
    rows = {}
    for name, (kernel, twin, arguments) in pairs.items():
        ms, _ = best_of(lambda f=kernel, a=arguments: f(*a), 7)
        twin_ms, _ = best_of(lambda f=twin, a=arguments: f(*a), 1)
        rows[name] = {
            "ms": round(ms, 4),
            "twin_ms": round(twin_ms, 3),
            "times_faster": round(twin_ms / ms, 1),
        }
    return rows


def online() -> dict[str, Any]:
    """What a request costs: filters and choice among 16 experts, alone or in the sets of a plan."""
    rng = np.random.default_rng(0)
    problem = replace(recorded(1, 16, 300, "mixture"), k=None, sets="per_category")
    (menu,) = menus(problem)
    names = [f"expert-{n}" for n in range(16)]
    offers = Offers(tuple(names), {"maths": PlannedMenu.of(menu.members, menu.value)})
    estimates = [
        Estimate(q, 100.0, 1000.0, j, 0.001, 100.0)
        for q, j in rng.uniform((0.2, 5.0), (0.9, 50.0), (16, 2)).tolist()
    ]
    alone = [Candidate(Mode.single(n), e, e) for n, e in zip(names, estimates, strict=True)]
    budget, prices = Budget(latency_ms=2000, energy_j=60), Prices(per_joule=0.001)

    def choice(most_experts: int) -> Any:
        options = Options.of(estimates, estimates, budget, prices)
        sets, quality = offers.sets("maths", alone, most_experts, 1.0)
        return select(options.together(sets, quality))

    rows = {}
    options = Options.of(estimates, estimates, budget, prices)
    ms, _ = best_of(lambda: select(options), 2000)
    rows["filters and choice, 16 experts"] = {"us": round(1000 * ms, 1)}
    for most_experts in (1, 2, 16):
        ms, _ = best_of(lambda n=most_experts: choice(n), 1000)
        name = f"sets of a menu of {menu.value.size}, at most {most_experts} answering, and choice"
        rows[name] = {"us": round(1000 * ms, 1)}
    stairs = steps([menu], problem.shares, "energy_j")
    used = [step.energy_j for step in stairs]
    ms, _ = best_of(lambda: stairs[bisect_right(used, 70.0) - 1], 2000)
    rows[f"budget on a staircase of {len(stairs)} steps"] = {"us": round(1000 * ms, 2)}
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="leave out the table of solvers")
    quick = parser.parse_args().quick
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    result: dict[str, Any] = {"machine": calibration(), "enumeration": enumerations()}
    result |= {"online": online(), "kernels": kernels()}
    result["solvers"] = [] if quick else list(solvers())
    result["machine_after"] = calibration()
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()

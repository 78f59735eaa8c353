"""Budgets over time on an hour of real arrivals: pacing against other ways to spend.

    OMP_NUM_THREADS=1 python benchmarks/pacing/bench.py [--data FOLDER] [--quick]

Prints one JSON document; each scenario goes to stderr as it comes. `FOLDER` holds the arrival
trace and the outcome tables, which are not part of this project.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from account import REFUSED, Policy, fullest, simulate
from hindsight import Hindsight, optimum
from numpy.typing import NDArray
from policies import Descent, Fixed, Greedy, Paced, columns, counted
from world import RESOURCES, World, load

from coe.optimizer.pacing import Allowance, Pacer

sys.path.append(str(Path(__file__).parents[1]))
from calibration import calibration

DEFAULT_DATA = Path(__file__).parents[3] / "shared" / "data"
SEED = 0
PARTS = (6, 1)  # windows in the trace: about ten minutes, and an hour
TEN_MINUTES_S = 600.0
LEVELS = (0.1, 0.25, 0.5, 0.75, 1.2)
FEW_LEVELS = (0.25, 0.5)  # of budgets that are not joules or dollars alone
FACTORS = (0.7, 1.0, 1.4)
STEPS = (0.003, 0.02)
BAR = 0.95
N_TIMED = 8192


@dataclass(frozen=True, slots=True)
class Scenario:
    """Allowances at a share of what unlimited spending takes in a mean window."""

    name: str
    level: float
    window_s: float
    allowances: tuple[Allowance, ...]
    declines: bool = False


def scenarios(world: World, levels: tuple[float, ...]) -> Iterator[Scenario]:
    """Every budget that is tried."""
    for n_windows in PARTS:
        # no window is cut off by the end of the recording
        window_s = float(np.nextafter(world.at_s[-1], np.inf)) / n_windows
        for level in levels:
            for resource in ("energy_j", "cost_usd"):
                one = _allowance(world, resource, level, window_s)
                yield Scenario(resource, level, window_s, (one,))
        for level in (level for level in FEW_LEVELS if level in levels):
            count = _allowance(world, "requests", level, window_s)
            yield Scenario("requests", level, window_s, (count,), declines=True)
            both = [_allowance(world, name, level, window_s) for name in ("energy_j", "cost_usd")]
            yield Scenario("energy_j and cost_usd", level, window_s, tuple(both))
            # code gets less than its share, conv more; all together less than their sum
            nested = (
                _allowance(world, "energy_j", level, window_s),
                _allowance(world, "energy_j", 0.6 * level, window_s, "code"),
                _allowance(world, "energy_j", 1.2 * level, window_s, "conv"),
            )
            yield Scenario("energy_j, nested tenants", level, window_s, nested)


def _allowance(
    world: World, resource: str, level: float, window_s: float, tenant: str | None = None
) -> Allowance:
    here, best = np.arange(world.at_s.size), world.quality.argmax(axis=1)
    freely = world.spent[here, best, RESOURCES.index(resource)]
    own = freely if tenant is None else freely[world.tenant == tenant]
    n_windows = int(world.at_s[-1] // window_s) + 1
    return Allowance(resource, level * float(own.sum()) / n_windows, window_s, tenant)


def measured(world: World, scenario: Scenario) -> dict[str, Any]:
    """Every policy on one scenario."""
    allowances, declines = scenario.allowances, scenario.declines
    perfect = optimum(world, allowances, world.spent)
    informed = optimum(world, allowances, world.expected)
    runs: dict[str, list[tuple[str, Policy]]] = {
        "greedy": [("", Greedy(world, allowances, kind=False))],
        "kind greedy": [("", Greedy(world, allowances, kind=True))],
        "fixed price": [
            (f"x{f:g}", Fixed(world, allowances, informed.prices * f, declines)) for f in FACTORS
        ],
        "descent": [
            (f"step {step:g}", Descent(world, allowances, declines, step)) for step in STEPS
        ],
        "paced": [("", Paced(world, allowances, declines))],
        "paced, told the demand": [("", Paced(world, allowances, declines, told=True))],
    }
    if not declines:
        runs["paced, may decline"] = [("", Paced(world, allowances, True))]
    found: dict[str, Any] = {}
    for name, tried in runs.items():
        each = [
            {"tuned": tuned, **_figures(world, scenario, perfect, informed, policy)}
            for tuned, policy in tried
        ]
        found[name] = max(each, key=lambda row: row["of_bound"])
    found.setdefault("paced, may decline", found["paced"])
    n_requests = world.at_s.size
    return {
        "budget": scenario.name,
        "level": scenario.level,
        "window_s": round(scenario.window_s, 1),
        "bound": round(perfect.bound / n_requests, 4),
        "informed_bound": round(informed.bound / n_requests, 4),
        "hindsight_score": round(perfect.score / n_requests, 4),
        "policies": found,
        "regained": regained(world, scenario, perfect, informed)
        if found["paced"]["of_bound"] < BAR
        else {},
    }


def regained(
    world: World, scenario: Scenario, perfect: Hindsight, informed: Hindsight
) -> dict[str, float]:
    """Share of the bound as what the paced policy lacks is given to it, one thing after another."""
    unheld = replace(world, upper=world.spent)
    given = {
        "may decline": (world, False),
        "told the demand": (world, True),
        "nothing held": (unheld, True),
        "lengths known": (replace(unheld, expected=world.spent), True),
    }
    shares = {}
    for name, (known, told) in given.items():
        policy = Paced(known, scenario.allowances, True, told)
        shares[name] = _figures(known, scenario, perfect, informed, policy)["of_bound"]
    return shares


def _figures(
    world: World, scenario: Scenario, perfect: Hindsight, informed: Hindsight, policy: Policy
) -> dict[str, Any]:
    choices, policy_s = simulate(world, scenario.allowances, policy)
    full = fullest(world, scenario.allowances, choices)
    if full > 1.0 + 1e-9:
        raise AssertionError(f"a ceiling is exceeded: {full}")
    rows = np.flatnonzero(choices != REFUSED)
    quality = float(world.quality[rows, choices[rows]].sum())
    score = float(world.score[rows, choices[rows]].sum())
    n_requests = world.at_s.size
    return {
        "expected_quality": round(quality / n_requests, 4),
        "of_bound": round(quality / perfect.bound, 4),
        "of_informed_bound": round(quality / informed.bound, 4),
        "score": round(score / n_requests, 4),
        "of_hindsight_score": round(score / perfect.score, 4),
        "spent": [round(s, 4) for s in _spent(world, scenario, choices)],
        "fullest_window": round(full, 4),
        "not_answered": round(1.0 - rows.size / n_requests, 4),
        "worst_ten_minutes": round(_worst(world, choices), 4),
        "policy_us_per_request": round(1e6 * policy_s / n_requests, 1),
    }


def _spent(world: World, scenario: Scenario, choices: NDArray[np.int64]) -> list[float]:
    """Per allowance, the share used of all its windows together."""
    rows = np.flatnonzero(choices != REFUSED)
    shares = []
    for k, column in enumerate(columns(scenario.allowances)):
        allowance = scenario.allowances[k]
        n_windows = int(world.at_s[-1] // allowance.window_s) + 1
        own = rows[counted(world, scenario.allowances)[k, rows]]
        total = world.spent[own, choices[own], column].sum()
        shares.append(float(total / (allowance.amount * n_windows)))
    return shares


def _worst(world: World, choices: NDArray[np.int64]) -> float:
    """Mean expected quality of the ten minutes in which it is lowest."""
    here = np.arange(choices.size)
    got = np.where(choices == REFUSED, 0.0, world.quality[here, choices])
    part = (world.at_s // TEN_MINUTES_S).astype(int)
    return float((np.bincount(part, got) / np.bincount(part)).min())


def speed(world: World, scenario: Scenario) -> dict[str, float]:
    """Microseconds that the pacer itself takes of a request: all its calls, choice left out."""
    pacer = Pacer(scenario.allowances)
    held = [RESOURCES.index(name) for name in pacer.resources]
    best = world.quality.argmax(axis=1)
    taken_us = []
    for t in range(N_TIMED):
        now_s, tenant = float(world.at_s[t]), str(world.tenant[t])
        quality, usage = world.quality[t], world.expected[t][:, held]
        spent = {RESOURCES[c]: float(world.spent[t, best[t], c]) for c in held}
        started = time.perf_counter()
        pacer.prices(now_s, tenant)
        pacer.observe(now_s, quality, usage, tenant)
        pacer.settle(now_s, spent, tenant)
        taken_us.append(1e6 * (time.perf_counter() - started))
    return {
        "mean_us": round(float(np.mean(taken_us)), 1),
        "median_us": round(float(np.median(taken_us)), 1),
        "p99_us": round(float(np.quantile(taken_us, 0.99)), 1),
    }


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The bar: paced against the bound wherever kind greedy gets less than 95 % of it."""
    hard = [r["policies"] for r in rows if r["policies"]["kind greedy"]["of_bound"] < BAR]
    ways = ("paced", "paced, may decline")
    return {
        "scenarios": len(rows),
        "where_kind_greedy_is_below_the_bar": len(hard),
        "of_those_at_or_above_it": {
            name: sum(policies[name]["of_bound"] >= BAR for policies in hard) for name in ways
        },
        "of_those_at_or_above_it_with_lengths_unknown": {
            name: sum(policies[name]["of_informed_bound"] >= BAR for policies in hard)
            for name in ways
        },
        "mean_of_bound": {
            name: round(float(np.mean([r["policies"][name]["of_bound"] for r in rows])), 4)
            for name in rows[0]["policies"]
        },
        "least_of_bound": {
            name: min(r["policies"][name]["of_bound"] for r in rows) for name in rows[0]["policies"]
        },
        "fullest_window_of_any_policy": max(
            p["fullest_window"] for r in rows for p in r["policies"].values()
        ),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA)
    parser.add_argument("--quick", action="store_true", help="one level only")
    options = parser.parse_args()
    trace = options.data / "energy_latency" / "trace_azure_llm_2023.csv.gz"
    if not trace.exists():
        print(json.dumps({"absent": trace.name}))
        return
    started = time.monotonic()
    world = load(trace, options.data / "outcomes", SEED)
    rows = []
    for scenario in scenarios(world, (0.5,) if options.quick else LEVELS):
        rows.append(measured(world, scenario))
        shares = {name: p["of_bound"] for name, p in rows[-1]["policies"].items()}
        said = f"{scenario.name} {scenario.level:g} {scenario.window_s:g} s: {shares}"
        print(said, file=sys.stderr, flush=True)
    document = {
        "requests": world.at_s.size,
        "experts": world.quality.shape[1],
        "seed": SEED,
        "machine": calibration(),
        "summary": summary(rows),
        "speed": {
            scenario.name: speed(world, scenario)
            for scenario in scenarios(world, (0.5,))
            if scenario.window_s > TEN_MINUTES_S
        },
        "took_s": round(time.monotonic() - started, 1),
        "scenarios": rows,
    }
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()

"""Placing experts: the search against the program; on demand: by groups against as it comes.

    OMP_NUM_THREADS=1 python benchmarks/placement/bench.py [--data FOLDER] [--quick]

Prints one JSON document; progress goes to stderr. `FOLDER` holds the arrival trace and the outcome
tables, which are not part of this project; without them only made-up fleets are placed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from calls import World, load
from fleets import make_fleet

from coe.optimizer.eviction import first_come, grouped
from coe.optimizer.place import PlaceMethod, place
from coe.optimizer.rehearsal import rehearse
from coe.optimizer.residency import Policy, Residency

sys.path.append(str(Path(__file__).parents[1]))
from calibration import calibration

DEFAULT_DATA = Path(__file__).parents[3] / "shared" / "data"
FLEETS = ((3, 6), (4, 10), (5, 16), (8, 30), (16, 60))
ROOMS = (1.2, 0.8)
METHODS: tuple[PlaceMethod, ...] = ("milp", "milp-highs", "greedy")
MOST_PAIRS = 240  # of node and expert that the programs are asked for
TIME_LIMIT_S = 5.0
SEEDS = (0, 1, 2)
EVERY = (100, 50, 30, 20)  # one request of so many comes to the node
MEMORY = (0.4, 0.55, 0.7, 0.85, 1.0)  # of what all experts take
ARMS: dict[str, tuple[Policy, bool, float, bool]] = {
    "grouped": (grouped, False, 30.0, True),
    "grouped, overdue after 120 s": (grouped, False, 120.0, True),
    "grouped, use not foreseen": (grouped, False, 30.0, False),
    "FCFS + LRU": (first_come, False, 30.0, True),
    "FCFS + LRU, strictly in order": (first_come, True, 30.0, True),
}


def placed(quick: bool) -> list[dict[str, Any]]:
    """Every method on every fleet."""
    rows = []
    for n_nodes, n_experts in FLEETS[:2] if quick else FLEETS:
        for room in ROOMS:
            for seed in SEEDS:
                problem = make_fleet(np.random.default_rng(seed), n_nodes, n_experts, room)
                found = {}
                for method in METHODS:
                    if method == "greedy" or n_nodes * n_experts <= MOST_PAIRS:
                        result = place(problem, method, TIME_LIMIT_S)
                        there = result.placement is not None
                        found[method] = {
                            "status": result.status,
                            "cost": round(result.cost.total, 1) if there else None,
                            "gap": round(result.gap / result.cost.total, 5) if there else None,
                            "solve_ms": round(result.solve_ms, 1),
                        }
                row = {"nodes": n_nodes, "experts": n_experts, "room": room, "seed": seed}
                rows.append({**row, "methods": found})
                print(rows[-1], file=sys.stderr, flush=True)
    return rows


def on_demand(data: Path, quick: bool) -> list[dict[str, Any]]:
    """Every policy on every load and size of memory; means over seeds."""
    trace = data / "energy_latency" / "trace_azure_llm_2023.csv.gz"
    rows = []
    for every in EVERY[:1] if quick else EVERY:
        worlds = [load(trace, data / "outcomes", every, seed) for seed in SEEDS]
        for share in MEMORY:
            arms = {name: _rehearsed(worlds, share, arm) for name, arm in ARMS.items()}
            n_calls = len(worlds[0].calls)
            rows.append({"calls": n_calls, "every": every, "memory": share, "arms": arms})
            said = {name: arm["mean_s"] for name, arm in arms.items()}
            print(every, share, said, file=sys.stderr, flush=True)
    return rows


def _rehearsed(
    worlds: list[World], share: float, arm: tuple[Policy, bool, float, bool]
) -> dict[str, float]:
    policy, in_order, max_wait_s, foreseen = arm
    figures = []
    for world in worlds:
        experts = world.experts if foreseen else world.unforeseen().experts
        # the largest expert fits, whatever rounding does
        largest = max(one.memory_gb for one in experts.values())
        memory_gb = max(share * world.total_gb, largest) * (1 + 1e-9)
        node = Residency(experts, memory_gb, policy, max_wait_s, in_order=in_order)
        started = time.perf_counter()
        found = rehearse(node, world.calls)
        taken_us = 1e6 * (time.perf_counter() - started) / len(world.calls)
        latency_s = found.ends_s - np.array([call.at_s for call in world.calls])
        figures.append(
            {
                "mean_s": float(latency_s.mean()),
                "p95_s": float(np.quantile(latency_s, 0.95)),
                "worst_s": float(latency_s.max()),
                "loads_per_request": found.n_loads / len(world.calls),
                "missed": found.missed,
                "us_per_request": taken_us,
            }
        )
    return {name: round(float(np.mean([f[name] for f in figures])), 3) for name in figures[0]}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA)
    parser.add_argument("--quick", action="store_true", help="few fleets, one load")
    options = parser.parse_args()
    started = time.monotonic()
    there = (options.data / "energy_latency" / "trace_azure_llm_2023.csv.gz").exists()
    document = {
        "seeds": SEEDS,
        "time_limit_s": TIME_LIMIT_S,
        "machine": calibration(),
        "placement": placed(options.quick),
        "on_demand": on_demand(options.data, options.quick) if there else [],
        "took_s": round(time.monotonic() - started, 1),
    }
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()

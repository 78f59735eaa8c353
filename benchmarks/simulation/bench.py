"""A simulated fleet: how fast the simulation is, and how near to the same requests over HTTP.

    OMP_NUM_THREADS=1 python benchmarks/simulation/bench.py [--data FOLDER] [--requests N] [--quick]

Prints one JSON document; every part goes to stderr as it comes. `FOLDER` holds the outcome tables
and the arrival trace, which are not part of this project.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from http_replay import Case, compared

sys.path.append(str(Path(__file__).parents[1]))
sys.path.append(str(Path(__file__).parents[1] / "routing"))
import tables as public
from calibration import calibration

from coe.core import Policy, Prices
from coe.foresight import Foresight, Limits
from coe.offers import Offers
from coe.optimizer.pacing import Allowance
from coe.planning import plan
from coe.router import Router
from coe.routers.embed import load_default
from coe.routers.outcomes import Outcomes
from coe.routers.train import train
from coe.services.trace import read_trace
from coe.simulation.arms import ARMS
from coe.simulation.comparison import Comparison, compare
from coe.simulation.setting import Budgeting, Demand, Setting
from coe.simulation.workload import Trace

DEFAULT_DATA = Path(__file__).parents[3] / "shared" / "data"
POOL = "zeroeval coe5"
SEED = 0
SLOTS, REPLICAS = 4, 220  # of each of five experts: 1,100 replicas
POLICY = Policy("shared", prices=Prices(per_second=0.003))
MEAN_SHARE = 0.6  # of the best single expert's joules, which a plan may take on average
PACED_SHARE = 0.7  # of the joules that `auto` takes, which budgets over time allow
N_PACED = 100_000  # requests of the policies with pacing, which are decided one by one
LOADS = (0.7, 0.95)  # of the best single expert


@dataclass(frozen=True, slots=True)
class World:
    """A trained router over the pool, and its table."""

    router: Router
    outcomes: Outcomes

    @classmethod
    def of(cls, folder: Path) -> World:
        """The pool's, trained on its train rows."""
        ((_, outcomes, specs),) = public.tables(folder, [POOL])
        specs = {name: replace(spec, slots=SLOTS) for name, spec in specs.items()}
        embedder = load_default()
        artefact = train(outcomes, embedder, specs, progress=told)
        return cls(Router(embedder, artefact, specs), outcomes)

    def setting(self, demand: Demand, budgeting: Budgeting, load: float) -> Setting:
        """On held-out prompts, at the rate that gives the best single expert this load."""
        replicas = dict.fromkeys(self.outcomes.expert_ids, REPLICAS)
        rng = np.random.default_rng(SEED)
        setting = Setting.of(self.router, self.outcomes, "test", replicas, demand, budgeting, rng)
        return replace(setting, workload=setting.workload.at_rate(load * fair_rate(setting)))


def fleets(world: World, trace: Trace, n_requests: int) -> list[dict[str, Any]]:
    """Every scenario, the policies that pace nothing side by side."""
    budgeting, found = Budgeting(POLICY, (), planned(world, POLICY)), []
    arms = [arm for arm in ARMS if not arm.endswith("pacing")]
    for load in LOADS:
        for name, recorded in (("poisson", None), ("trace", trace)):
            rows = compare(world.setting(Demand(n_requests, None, recorded), budgeting, load), arms)
            told(f"{name} {load:g}: " + speeds(rows))
            found.append(
                {
                    "arrivals": name,
                    "load_of_best_single": load,
                    "rate_per_s": rounded(rows.setting.workload.rate_per_s),
                    "policies": [row(arm) for arm in rows.arms],
                    "warnings": rows.warnings,
                }
            )
    return found


def paced(world: World, n_requests: int) -> list[dict[str, Any]]:
    """Policies whose joules are to last two windows, and what they would take without."""
    budgeting, demand = Budgeting(POLICY, (), planned(world, POLICY)), Demand(n_requests)
    setting = world.setting(demand, budgeting, LOADS[0])
    (auto,) = compare(setting, ["auto"], SEED).arms
    assert auto.energy_j is not None
    window_s = float(setting.workload.at_s[-1]) / 2 * (1 + 1e-9)
    joules = PACED_SHARE * auto.energy_j * auto.n_requests / 2
    allowance = Allowance("energy_j", joules, window_s, name="joules")
    setting = replace(setting, budgeting=replace(budgeting, allowances=(allowance,)))
    rows = compare(setting, ["auto", "plan", "auto+pacing", "plan+pacing"], SEED)
    told("paced: " + speeds(rows))
    return [row(arm) for arm in rows.arms]


def fair_rate(setting: Setting) -> float:
    """Arrivals a second that keep the best single expert busy all the time."""
    k, workload = setting.best_single, setting.workload
    spec = setting.outlook.specs[k]
    tokens = setting.outlook.lengths_of(workload, np.arange(workload.n_requests), k)
    prefill_ms = spec.profile.ttft_ms(workload.prompt_tokens)
    return 1000.0 * spec.slots / float((prefill_ms + spec.profile.decode_ms(tokens)).mean())


def planned(world: World, policy: Policy) -> Offers:
    """The plan that takes a share of the joules of the best single expert on average."""
    freely = plan(Foresight.of_table(world.router, policy, Limits()))
    best = max(freely.singles, key=lambda one: one.quality)
    limits = Limits(energy_j=MEAN_SHARE * best.energy_j)
    return Offers.of(plan(Foresight.of_table(world.router, policy, limits)))


def row(arm: Any) -> dict[str, Any]:
    """The figures that are kept of a policy."""
    return {
        "policy": arm.policy,
        "requests": arm.n_requests,
        "score": rounded(arm.quality),
        "ci95": [rounded(bound) for bound in arm.quality_ci95],
        "latency_s": {k: rounded((v or 0.0) / 1000.0) for k, v in arm.latency_ms.items()},
        "wait_s": rounded((arm.wait_ms or 0.0) / 1000.0),
        "energy_j": rounded(arm.energy_j),
        "cost_usd": rounded(arm.cost_usd),
        "refused": arm.n_refused,
        "utilisation": {k: rounded(v) for k, v in arm.utilisation.items()},
        "overloaded": [*arm.overloaded],
        "periods": [[one.n_over, one.n_windows, rounded(one.fullest)] for one in arm.periods],
        "events": arm.n_events,
        "elapsed_s": rounded(arm.elapsed_s),
        "events_per_s": round(arm.events_per_s),
    }


def rounded(value: float) -> float:
    """Four significant digits."""
    return float(f"{value:.4g}")


def speeds(found: Comparison) -> str:
    """Events per second of each policy, in thousands."""
    return ", ".join(f"{arm.policy} {arm.events_per_s / 1000:,.0f}k/s" for arm in found.arms)


def told(line: str) -> None:
    """A word on standard error."""
    print(line, file=sys.stderr, flush=True)


def checks(world: World, responses: Path, n_requests: int) -> list[dict[str, Any]]:
    """The same requests simulated and over HTTP, for each policy."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        case = Case.of(world.router, world.outcomes, responses, Path(folder), POLICY)
        for arm in ("best-single", "round-robin", "auto"):
            found.append(compared(case, arm, n_requests, SEED))
            told(f"{arm}: {found[-1]['off_by']}")
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA)
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--quick", action="store_true", help="a hundredth of everything")
    options = parser.parse_args(arguments)
    outcomes = options.data / "outcomes"
    trace = options.data / "energy_latency" / "trace_azure_llm_2023.csv.gz"
    if not trace.exists():
        print(json.dumps({"absent": trace.name}))
        return
    started = time.monotonic()
    world = World.of(outcomes)
    n_requests = options.requests // 100 if options.quick else options.requests
    responses = outcomes / "zeroeval_coe5_responses.parquet"
    document = {
        "pool": POOL,
        "seed": SEED,
        "machine": calibration(),
        "requests": n_requests,
        "replicas": REPLICAS * len(world.outcomes.expert_ids),
        "slots_each": SLOTS,
        "fleets": fleets(world, read_trace(trace), n_requests),
        "paced": paced(world, min(n_requests, N_PACED)),
        "over_http": checks(world, responses, 40 if options.quick else 400),
        "took_s": round(time.monotonic() - started, 1),
    }
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()

"""Replicas of one expert, one of them slow: two choices by peak EWMA against plainer balancing.

    OMP_NUM_THREADS=1 python benchmarks/balance/bench.py [--quick]

Prints one JSON document; each scenario goes to stderr as it comes. Every policy gets the same
arrivals and the same lengths of answers.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coe.optimizer.balance import ReplicaState, Sent, pick

sys.path.append(str(Path(__file__).parents[1]))
from calibration import calibration

Policy = Callable[[Sequence[ReplicaState], Random, float], ReplicaState]

SEEDS = (0, 1, 2)
N_REQUESTS = 20_000
SERVICE_S, SPREAD = 4.0, 0.8  # mean of an answer, and the standard deviation of its logarithm
SLOTS = 4
GUESS = 0.4  # standard deviation of the logarithm of an expected length over the true one
LOADS = (0.3, 0.5, 0.7)  # of what all replicas together can do
N_TIMED = 50_000


@dataclass(frozen=True, slots=True)
class Scenario:
    """Replicas by how many times longer they take; the slow one perhaps from some moment on."""

    name: str
    slowness: tuple[float, ...]
    from_share: float = 0.0
    failing: bool = False


SCENARIOS = (
    Scenario("all alike", (1.0,) * 8),
    Scenario("one of 8 takes 4 times as long", (4.0,) + (1.0,) * 7),
    Scenario("one of 8 takes 4 times as long, from half-way on", (4.0,) + (1.0,) * 7, 0.5),
    Scenario("one of 3 takes 4 times as long", (4.0, 1.0, 1.0)),
    Scenario("one of 8 fails at once", (0.01,) + (1.0,) * 7, failing=True),
)


def round_robin() -> Policy:
    """One after another."""
    turn = -1

    def choose(replicas: Sequence[ReplicaState], rng: Random, now_s: float) -> ReplicaState:
        nonlocal turn
        turn = (turn + 1) % len(replicas)
        return replicas[turn]

    return choose


def at_random(replicas: Sequence[ReplicaState], rng: Random, now_s: float) -> ReplicaState:
    """Any."""
    return replicas[int(rng.random() * len(replicas))]


def least_in_flight(replicas: Sequence[ReplicaState], rng: Random, now_s: float) -> ReplicaState:
    """The one with the fewest requests, of equals any."""
    return min(replicas, key=lambda one: (one.n_in_flight, rng.random()))


def two_in_flight(replicas: Sequence[ReplicaState], rng: Random, now_s: float) -> ReplicaState:
    """Of two, the one with fewer requests."""
    return min(rng.sample(replicas, 2), key=lambda one: one.n_in_flight)


def peak_ewma(replicas: Sequence[ReplicaState], rng: Random, now_s: float) -> ReplicaState:
    """By `coe.optimizer.balance`."""
    chosen = pick(replicas, rng, now_s)
    assert chosen is not None
    return chosen


POLICIES: dict[str, Callable[[], Policy]] = {
    "round robin": round_robin,
    "random": lambda: at_random,
    "least in flight": lambda: least_in_flight,
    "two choices, in flight": lambda: two_in_flight,
    "two choices, peak EWMA": lambda: peak_ewma,
    "two choices, peak EWMA, lengths expected": lambda: peak_ewma,
    "two choices, peak EWMA, lengths counted": lambda: peak_ewma,
}
EXPECTED = "two choices, peak EWMA, lengths expected"
OURS = "two choices, peak EWMA, lengths counted"
# the longest answer that callers allow
LONGEST_S = 4.0 * SERVICE_S


def latencies_s(
    scenario: Scenario, load: float, policy: Policy, seed: int, name: str
) -> tuple[NDArray[np.float64], float, float]:
    """Of all requests that were answered; the share that failed; the share of the first replica.

    By its name a policy has the length of an answer guessed beforehand, or counted afterwards.
    """
    rng, random = np.random.default_rng(seed), Random(seed)
    slowness = np.array(scenario.slowness)
    able = 1.0 / (slowness[1:] if scenario.failing else slowness)
    rate_per_s = load * SLOTS * able.sum() / SERVICE_S
    came_s = np.cumsum(rng.exponential(1 / rate_per_s, N_REQUESTS)).tolist()
    sizes_s = SERVICE_S * rng.lognormal(-(SPREAD**2) / 2, SPREAD, N_REQUESTS)
    guesses_s = np.full(N_REQUESTS, LONGEST_S)
    if name == EXPECTED:
        guesses_s = sizes_s * rng.lognormal(0.0, GUESS, N_REQUESTS)
    replicas = [ReplicaState(str(k)) for k in range(slowness.size)]
    slots_s = [[0.0] * SLOTS for _ in replicas]
    ends: list[tuple[float, int, Sent, int]] = []
    latency_s, got = np.full(N_REQUESTS, np.nan), np.zeros(slowness.size)
    for n, now_s in enumerate(came_s):
        while ends and ends[0][0] <= now_s:
            end_s, ended, sent, k = heapq.heappop(ends)
            if scenario.failing and k == 0:
                replicas[k].fail(sent, end_s)
            else:
                counted_s = float(sizes_s[ended]) if name == OURS else None
                replicas[k].end(sent, end_s, usual_s=counted_s)
        k = int(policy(replicas, random, now_s).replica_id)
        slow = slowness[k] if n >= scenario.from_share * N_REQUESTS else 1.0
        end_s = max(heapq.heappop(slots_s[k]), now_s) + slow * float(sizes_s[n])
        heapq.heappush(slots_s[k], end_s)
        sent = Sent(now_s, float(guesses_s[n]))
        heapq.heappush(ends, (end_s, n, sent, k))
        replicas[k].begin(sent)
        got[k] += 1
        if not (scenario.failing and k == 0):
            latency_s[n] = end_s - now_s
    answered = latency_s[~np.isnan(latency_s)]
    return answered, 1.0 - answered.size / N_REQUESTS, float(got[0] / N_REQUESTS)


def measured(scenario: Scenario, load: float) -> dict[str, Any]:
    """Every policy on one scenario: quantiles over the requests of all seeds."""
    found = {}
    for name, policy in POLICIES.items():
        runs = [latencies_s(scenario, load, policy(), seed, name) for seed in SEEDS]
        together = np.concatenate([latency_s for latency_s, _, _ in runs])
        p50_s, p99_s = np.quantile(together, [0.5, 0.99]).tolist()
        found[name] = {
            "p50_s": round(p50_s, 2),
            "p99_s": round(p99_s, 2),
            "mean_s": round(float(together.mean()), 2),
            "failed": round(float(np.mean([failed for _, failed, _ in runs])), 4),
            "share_of_first": round(float(np.mean([share for *_, share in runs])), 4),
        }
    ours = found[OURS]
    ratios = {
        name: {q: round(other[q] / ours[q], 2) for q in ("p50_s", "p99_s")}
        for name, other in found.items()
    }
    print(scenario.name, load, found, file=sys.stderr, flush=True)
    return {"scenario": scenario.name, "load": load, "policies": found, "of_ours": ratios}


def speed() -> dict[str, dict[str, float]]:
    """Microseconds of a pick, and of what is learned from an answer, by number of replicas."""
    found = {f"{n} replicas": _speed_of(n) for n in (2, 8, 64)}
    generator, random = np.random.default_rng(0), Random(0)
    found["two random numbers"] = {
        "numpy_us": _each_us(lambda k: (generator.random(), generator.random())),
        "numpy_integers_us": _each_us(lambda k: (generator.integers(8), generator.integers(7))),
        "standard_library_us": _each_us(lambda k: (random.random(), random.random())),
    }
    return found


def _speed_of(n_replicas: int) -> dict[str, float]:
    replicas, random = [ReplicaState(str(k)) for k in range(n_replicas)], Random(0)
    for one in replicas:
        _answer(one, 1.0)
    one_out = [*replicas[1:], ReplicaState("out", draining=True)]
    return {
        "pick_us": _each_us(lambda k: pick(replicas, random, 2.0 + 1e-6 * k)),
        "pick_one_draining_us": _each_us(lambda k: pick(one_out, random, 2.0 + 1e-6 * k)),
        "begin_and_end_us": _each_us(lambda k: _answer(replicas[0], 2.0 + 1e-6 * k)),
    }


def _answer(one: ReplicaState, now_s: float) -> None:
    sent = Sent(now_s - 1.0)
    one.begin(sent)
    one.end(sent, now_s)


def _each_us(call: Callable[[int], object]) -> float:
    """The best of five means."""
    best = math.inf
    for _ in range(5):
        started = time.perf_counter()
        for k in range(N_TIMED):
            call(k)
        best = min(best, time.perf_counter() - started)
    return round(1e6 * best / N_TIMED, 3)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one load")
    options = parser.parse_args()
    started = time.monotonic()
    loads = LOADS[1:2] if options.quick else LOADS
    document = {
        "seeds": SEEDS,
        "requests": N_REQUESTS,
        "slots": SLOTS,
        "machine": calibration(),
        "speed": speed(),
        "scenarios": [measured(scenario, load) for scenario in SCENARIOS for load in loads],
        "took_s": round(time.monotonic() - started, 1),
    }
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()

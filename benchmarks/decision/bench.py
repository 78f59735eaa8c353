"""Time of one decision, embedding included, on one core. Prints one JSON document."""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np

from coe.budgets import load_policies
from coe.config import DATA, load_config
from coe.core import Budget, Message, Request
from coe.router import Router

sys.path.insert(0, str(Path(__file__).parents[1]))
from calibration import calibration

WORDS = "how many apples does the farmer sell when every basket holds twelve of them".split()
N_DECISIONS = 2000


def times_ms(router: Router, n_words: int, distinct: bool) -> list[float]:
    """Milliseconds of each decision for prompts of ``n_words``."""
    rng = np.random.default_rng(0)
    policy = load_policies(DATA / "budgets.yaml")["eco"]
    budget = Budget(latency_ms=20_000, energy_j=200)
    prompts = [" ".join(rng.choice(WORDS, n_words)) for _ in range(N_DECISIONS)]
    spent = []
    for n, prompt in enumerate(prompts):
        text = f"{n} {prompt}" if distinct else prompts[0]
        request = Request((Message("user", text),), policy, budget)
        started = time.perf_counter()
        router.decide(request)
        spent.append((time.perf_counter() - started) * 1000)
    return spent[100:]


def main() -> None:
    """Measure and print."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    config = load_config(DATA / "coe.yaml")
    started = time.perf_counter()
    router = Router.load(config.artefact, list(config.specs.values()))
    load_ms = (time.perf_counter() - started) * 1000
    rows = {}
    for n_words in (20, 200, 1000):
        for distinct in (True, False):
            spent = times_ms(router, n_words, distinct)
            kind = "new prompt" if distinct else "seen prompt"
            p50, p99 = np.percentile(spent, [50, 99])
            rows[f"{n_words} words, {kind}"] = {
                "p50_ms": round(float(p50), 3),
                "p99_ms": round(float(p99), 3),
            }
    result = {"machine": calibration(), "load_ms": round(load_ms, 1), "decide": rows}
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()

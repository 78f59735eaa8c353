"""Time of one decision, embedding included, on one core. Prints one JSON document."""

import json
import os
import sys
import time
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np

from coe.budgets import load_policies
from coe.config import DATA, load_config
from coe.core import Budget, Message, Request
from coe.mode import Mode
from coe.repertoire import Repertoire
from coe.router import Router
from coe.routers.expectation import Expectation
from coe.routers.modes import ModeTable

sys.path.insert(0, str(Path(__file__).parents[1]))
from calibration import calibration

WORDS = "how many apples does the farmer sell when every basket holds twelve of them".split()
N_DECISIONS = 2000
N_EXPERTS = 6
N_MODES = 200  # of several experts


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


def of_six(router: Router) -> Router:
    """The router over copies of its experts, each a little different."""
    known = router.artefact.expectation.table
    ids = tuple(f"e{k}" for k in range(N_EXPERTS))
    columns = np.arange(N_EXPERTS) % len(known.expert_ids)
    shade = 1 - 0.02 * np.arange(N_EXPERTS)
    table = replace(
        known,
        expert_ids=ids,
        quality=known.quality[:, columns] * shade,
        quality_se=known.quality_se[:, columns],
        mean_tokens=known.mean_tokens[:, columns],
        cautious_tokens=known.cautious_tokens[:, columns],
    )
    artefact = replace(router.artefact, expectation=Expectation(table))
    originals = [router.specs[known.expert_ids[k]] for k in columns]
    specs = {name: replace(spec, id=name) for name, spec in zip(ids, originals, strict=True)}
    return replace(router, artefact=artefact, specs=specs)


def repertoire(router: Router) -> Repertoire:
    """Votes and cascades of these experts, all of them about as good."""
    table, rng = router.artefact.expectation.table, np.random.default_rng(1)
    ids = table.expert_ids
    votes = [Mode("vote", (c,)) for n in (2, 3, 4, 5) for c in combinations(ids, n)]
    cascades = [
        Mode("cascade", (chosen[:1], chosen[1:]), threshold)
        for threshold in (0.5, 0.6, 0.7, 0.8, 0.9)
        for n in (2, 3, 4)
        for chosen in combinations(ids, n)
    ]
    modes = (*map(Mode.single, ids), *(votes + cascades)[:N_MODES])
    shape = (len(table.categories), len(modes))
    usage, reach = np.zeros((*shape, len(ids))), np.zeros((*shape, 2))
    for m, mode in enumerate(modes):
        for s, stage in enumerate(mode.stages):
            reach[:, m, s] = 0.5**s
            usage[:, m, [ids.index(name) for name in stage]] = 0.5**s
    quality = np.hstack([table.quality, rng.uniform(0.5, 0.7, (shape[0], N_MODES))])
    errors = np.full(shape, 0.01)
    return Repertoire.of(ModeTable(table.categories, ids, modes, quality, errors, usage, reach))


def summary(spent: list[float]) -> dict[str, float]:
    """Quantiles for people."""
    p50, p99 = np.percentile(spent, [50, 99])
    return {"p50_ms": round(float(p50), 3), "p99_ms": round(float(p99), 3)}


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
            rows[f"{n_words} words, {kind}"] = summary(spent)
    six = of_six(router)
    several = replace(six, repertoire=repertoire(six))
    name = f"200 words, seen prompt, {N_EXPERTS} experts"
    rows[name] = summary(times_ms(six, 200, False))
    rows[f"{name}, {N_MODES} modes of several"] = summary(times_ms(several, 200, False))
    result = {"machine": calibration(), "load_ms": round(load_ms, 1), "decide": rows}
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()

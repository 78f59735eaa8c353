"""What a personal expert and gate gain over the global router, by how many prompts teach the gate.

    OMP_NUM_THREADS=1 python benchmarks/personal/bench.py [--tables FOLDER] [--only TABLE ...]

Prints one JSON document; each tenant goes to stderr as it comes. `FOLDER` holds public outcome
tables, which are not part of this project.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coe.routers.bootstrap import interval, resampled_means
from coe.routers.embed import CachedEmbedder, load_default, meaning_features
from coe.routers.folds import content_folds
from coe.routers.outcomes import Outcomes
from coe.routers.personal import Premise, levelled
from coe.routers.personal_training import Lessons, learned
from coe.routers.train import embed_all, train

sys.path += [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "routing")]
import tables as public
from calibration import calibration

Floats = NDArray[np.float64]

DEFAULT_TABLES = Path(__file__).parents[3] / "shared" / "data" / "outcomes"
TABLES = ("routerdc", "llmrouter_9")
SIZES = (20, 50, 100, 200, 500)
N_DRAWS, N_RESAMPLES, SEED = 5, 2000, 0
N_FOLDS = 10
FEWEST_HELD_OUT, MOST_HELD_OUT = 70, 400
FEWEST_ROWS = 120
CLEAR, GAP = 0.05, 0.1
REACHES = (100, 500)
KINDS = ("better by 5 points", "within 5 points", "worse by 5 points")
WAYS = ("gate", "gate that never declines", "always own", "oracle")


@dataclass(frozen=True, slots=True)
class Case:
    """Whose expert is whose: everybody's, one that is kept back, and the tasks of its tenants."""

    pool: str
    rivals: tuple[str, ...]
    expert_id: str
    tasks: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Tenant:
    """A tenant's prompts and own expert; ``lessons`` of every prompt, in random order."""

    table: str
    case: Case
    task: str
    traffic: str
    lessons: Lessons
    prompts: tuple[str, ...]

    @property
    def held_out(self) -> int:
        """How many prompts, the first ones, nobody learns from."""
        return min(MOST_HELD_OUT, max(FEWEST_HELD_OUT, len(self.prompts) // 2))


def cases(outcomes: Outcomes) -> Iterator[Case]:
    """Every expert in turn as somebody's own, on every task, beside all others (pool ``whole``).

    And the best expert of every task, where everybody's are only those that are at least ten points
    worse at it (pool ``gap``): a field that the operator's experts lack.
    """
    sizes = {str(task): int((outcomes.tasks == task).sum()) for task in np.unique(outcomes.tasks)}
    tasks = tuple(task for task, n in sizes.items() if n >= 2 * FEWEST_ROWS)
    for expert_id in outcomes.expert_ids:
        rivals = tuple(name for name in outcomes.expert_ids if name != expert_id)
        yield Case("whole", rivals, expert_id, tasks)
    for task in tasks:
        means = np.nanmean(outcomes.scores[outcomes.tasks == task], axis=0)
        worse = np.flatnonzero(means <= means.max() - GAP)
        if worse.size > 1:
            rivals = tuple(outcomes.expert_ids[k] for k in worse)
            yield Case("gap", rivals, outcomes.expert_ids[int(means.argmax())], (task,))


def tenants(table: str, outcomes: Outcomes) -> Iterator[Tenant]:
    """The tenants of every case.

    Half of the prompts train a global router over the rivals; the other half are the tenants'. A
    tenant asks prompts of one task, or as many of all the others besides.
    """
    embedder = CachedEmbedder(load_default(), n_entries=len(outcomes.prompts))
    X = embed_all(embedder, outcomes.prompts)
    everybody = content_folds(outcomes.prompts, 2, seed=1) == 0
    theirs = ~everybody & ~np.isnan(outcomes.scores).any(axis=1)
    rows = outcomes.rows(theirs)
    rng = np.random.default_rng(SEED)
    for case in cases(outcomes):
        taught = replace(
            outcomes.rows(everybody).columns(case.rivals),
            splits=np.full(everybody.sum(), "train"),
        )
        artefact = train(taught, embedder, features=meaning_features(embedder.name))
        premise = Premise("", case.expert_id, case.rivals, None, "", "")
        lessons = Lessons.of(rows, artefact, X[theirs], premise)
        for task in case.tasks:
            own = np.flatnonzero(rows.tasks == task)
            others = rng.permutation(np.flatnonzero(rows.tasks != task))[: own.size]
            for traffic, mine in (("one task", own), ("half", np.concatenate([own, others]))):
                order = rng.permutation(mine)
                prompts = tuple(rows.prompts[i] for i in order)
                yield Tenant(table, case, task, traffic, lessons.rows(order), prompts)


def measured(tenant: Tenant) -> dict[str, Any]:
    """Gains over the global router on the held-out prompts, with 95 % intervals.

    Each prompt's gain is the mean over five draws of the prompts that teach the gate.
    """
    whole, n_held = tenant.lessons, tenant.held_out
    there = np.arange(len(tenant.prompts)) < n_held
    held = whole.rows(there)
    oracle = np.maximum(held.gains, 0.0)
    columns = {"always own": held.gains, "oracle": oracle}
    declined, errors = {}, {}
    for size in (size for size in SIZES if size <= len(tenant.prompts) - n_held):
        drawn = [_gains(tenant, held, size, draw) for draw in range(N_DRAWS)]
        columns[f"gate {size}"] = np.mean([gains for gains, _, _, _ in drawn], axis=0)
        columns[f"free {size}"] = np.mean([gains for _, gains, _, _ in drawn], axis=0)
        declined[size] = float(np.mean([no for _, _, no, _ in drawn]))
        errors[size] = round(float(np.mean([error for _, _, _, error in drawn])), 4)
    values = np.column_stack(list(columns.values()))
    bounds = interval(resampled_means(values, N_RESAMPLES, np.random.default_rng(SEED)))
    return {
        "table": tenant.table,
        "pool": tenant.case.pool,
        "n_rivals": len(tenant.case.rivals),
        "expert": tenant.case.expert_id,
        "task": tenant.task,
        "traffic": tenant.traffic,
        "n_held_out": n_held,
        "score_global": round(float(held.delivered.mean()), 4),
        "score_own": round(float(held.own.mean()), 4),
        "advantage": round(float(whole.gains.mean()), 4),
        "declined": declined,
        "quality_error": errors,
        "gains": {
            name: [round(float(x), 4) for x in (column.mean(), *bound)]
            for (name, column), bound in zip(columns.items(), bounds, strict=True)
        },
    }


def _gains(
    tenant: Tenant, held: Lessons, size: int, draw: int
) -> tuple[Floats, Floats, bool, float]:
    """(n_held_out,) gains of one gate, as it is and if it may not decline; whether it declined.

    Last, by how much its mean expected quality misses the own expert's mean score.
    """
    rng = np.random.default_rng([SEED, draw])
    n = len(tenant.prompts)
    mine = rng.permutation(np.arange(tenant.held_out, n))[:size]
    fold = content_folds([tenant.prompts[i] for i in mine], N_FOLDS)
    premise = Premise("", tenant.case.expert_id, tenant.case.rivals, None, "", "")
    gate = learned(tenant.lessons.rows(mine), fold, premise, (256.0, 256.0))
    strength = levelled(held.strength, gate.level)
    free = replace(gate, declined=False).quality(held.X, strength)
    both = [
        np.where(quality > strength, held.gains, 0.0)
        for quality in (gate.quality(held.X, strength), free)
    ]
    return both[0], both[1], gate.declined, abs(float(free.mean() - held.own.mean()))


def summary(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means over tenants by pool, traffic, how good the own expert is, and size.

    Each over the same tenants at every size: those with ``reach`` prompts to learn from.
    """
    rows = []
    groups = product(("gap", "whole"), ("one task", "half"), KINDS, REACHES)
    for pool, traffic, kind, reach in groups:
        mine = [
            row
            for row in found
            if (row["pool"], row["traffic"], _kind(row)) == (pool, traffic, kind)
            and reach in row["declined"]
        ]
        group = {"pool": pool, "traffic": traffic, "own_expert": kind, "reach": reach}
        rows += [group | _mean(mine, size) for size in SIZES if mine and size <= reach]
    return rows


def _kind(row: dict[str, Any]) -> str:
    if abs(row["advantage"]) < CLEAR:
        return KINDS[1]
    return KINDS[0] if row["advantage"] > 0 else KINDS[2]


def _mean(found: list[dict[str, Any]], size: int) -> dict[str, Any]:
    names = dict(zip(WAYS, (f"gate {size}", f"free {size}", WAYS[2], WAYS[3]), strict=True))
    values = np.array([[row["gains"][name][0] for name in names.values()] for row in found])
    bounds = interval(resampled_means(values, N_RESAMPLES, np.random.default_rng(SEED)))
    mine = [row["gains"][f"gate {size}"] for row in found]
    return {
        "prompts": size,
        "n_tenants": len(found),
        "declined": round(float(np.mean([row["declined"][size] for row in found])), 3),
        "quality_error": round(float(np.mean([row["quality_error"][size] for row in found])), 4),
        "gain": dict(zip(names, values.mean(axis=0).round(4).tolist(), strict=True)),
        "ci95": dict(zip(names, bounds.round(4).tolist(), strict=True)),
        "surely_better": sum(low > 0 for _, low, _ in mine),
        "surely_worse": sum(high < 0 for _, _, high in mine),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tables", type=Path, default=DEFAULT_TABLES)
    parser.add_argument("--only", nargs="+", default=list(TABLES), metavar="TABLE")
    options = parser.parse_args()
    found = []
    for pool, outcomes, _ in public.tables(options.tables, options.only):
        for tenant in tenants(pool.name, outcomes):
            found.append(measured(tenant))
            print(json.dumps(found[-1]), file=sys.stderr, flush=True)
    document = {
        "calibration": calibration(),
        "seed": SEED,
        "n_draws": N_DRAWS,
        "n_resamples": N_RESAMPLES,
        "summary": summary(found),
        "tenants": found,
    }
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()

"""Do votes and cascades pay? Singles against modes of several experts, at equal joules.

    python benchmarks/modes/bench.py [--responses FILE] [--out FILE]

Everything is learned on training prompts: the category router, the confidence in answers, what each
mode is worth in each category, which modes a budget buys. Two reports: on the `test` prompts of the
example (ZeroEval rows that were `dev`), and cross-validated over all prompts. The recorded answers
are not part of this project; without them there is nothing to measure. Joules, milliseconds and
dollars follow the device profiles and prices of ``examples/edge_cloud/coe.yaml``.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from families import FAMILIES, Learnt, Usage, learnt, staircase
from fixed import fixed
from numpy.typing import NDArray
from recorded import Recorded, extraction, recorded

from coe.routers.bootstrap import interval, resampled_means
from coe.routers.calibration import reliability
from coe.routers.folds import content_folds

DEFAULT = Path(__file__).parents[3] / "shared/data/outcomes/zeroeval_coe5_responses.parquet"
BUDGETS = (0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5)
N_FOLDS = 5
N_RESAMPLES = 2000
SEED = 0
RESOURCES = {"energy_j": 1, "cost_usd": 3}
"""Columns of what prompts use, by the resource that budgets are of."""


def arms(known: Learnt, test: NDArray[np.bool_]) -> dict[str, Usage]:
    """Every arm on the ``test`` prompts, each chosen on the training prompts alone."""
    found = fixed(known, test)
    single = known.best_single
    for family in FAMILIES:
        steps = staircase(known, family)
        budget, score = known.use_of(single), known.score_of(single)
        for share in BUDGETS:
            mix = steps.affordable(share * budget)
            found[f"{family}, {share:.0%}"] = known.mixed(mix, test)
        found[f"{family}, its quality"] = known.mixed(steps.reaching(score), test)
    return found


def summary(found: dict[str, Usage], resource: str, rng: np.random.Generator) -> dict[str, Any]:
    """Figures of every arm, differences to the best single expert paired by prompt."""
    column = RESOURCES[resource]
    single = found["best single"]
    said = {}
    for name, usage in found.items():
        score, energy_j, latency_ms, cost_usd = usage
        equal = found.get(f"singles,{name.partition(',')[2]}", single)
        columns = np.column_stack(
            [score - single[0], score - equal[0], usage[column], single[column]]
        )
        means = resampled_means(columns, N_RESAMPLES, rng)
        bounds = interval(means).round(4).tolist()
        said[name] = {
            "score": round(float(score.mean()), 4),
            "gain": round(float(columns[:, 0].mean()), 4),
            "gain_ci95": bounds[0],
            "ratio": round(float(columns[:, 2].mean() / columns[:, 3].mean()), 3),
            "ratio_ci95": interval((means[:, 2] / means[:, 3])[:, None])[0].round(3).tolist(),
            "energy_j": round(float(energy_j.mean()), 1),
            "latency_s": round(float(latency_ms.mean()) / 1000, 2),
            "usd_per_1000": round(float(cost_usd.mean()) * 1000, 4),
        }
        if equal is not single:
            said[name]["over_singles"] = round(float(columns[:, 1].mean()), 4)
            said[name]["over_singles_ci95"] = bounds[1]
    return said


def joined(parts: list[dict[str, Usage]]) -> dict[str, Usage]:
    """The arms of several folds, one after the other; those that every fold has."""
    names = [name for name in parts[0] if all(name in part for part in parts)]
    return {
        name: tuple(
            np.concatenate(column) for column in zip(*(p[name] for p in parts), strict=True)
        )
        for name in names
    }


def shuffled(table: Recorded, rng: np.random.Generator) -> Recorded:
    """Null: what every expert says is what it said to another prompt of the task."""
    verdicts = [row.copy() for row in table.verdicts]
    for task in np.unique(table.outcomes.tasks):
        rows = np.flatnonzero(table.outcomes.tasks == task)
        for k in range(len(table.outcomes.expert_ids)):
            for n, other in zip(rows, rng.permutation(rows), strict=True):
                verdicts[n][k] = table.verdicts[other][k]
    return replace(table, verdicts=verdicts)


def identical(table: Recorded) -> Recorded:
    """Null: every expert gives the best single expert's answers, each at its own cost."""
    best = int(table.outcomes.scores.mean(axis=0).argmax())
    n = len(table.outcomes.expert_ids)
    outcomes = replace(
        table.outcomes,
        scores=np.repeat(table.outcomes.scores[:, [best]], n, axis=1),
        tokens=np.repeat(table.outcomes.tokens[:, [best]], n, axis=1),
    )
    return replace(table, outcomes=outcomes, verdicts=[[row[best]] * n for row in table.verdicts])


def null(table: Recorded, train: NDArray[np.bool_]) -> dict[str, Any]:
    """What all modes seem to gain over singles, both at the best single expert's joules."""
    known = learnt(table, train)
    budget = known.use_of(known.best_single)
    both = [
        known.mixed(staircase(known, family).affordable(budget), ~train)[0]
        for family in ("all modes", "singles")
    ]
    means = resampled_means((both[0] - both[1])[:, None], N_RESAMPLES, np.random.default_rng(SEED))
    return {
        "gain_over_singles": round(float((both[0] - both[1]).mean()), 4),
        "ci95": interval(means)[0].round(4).tolist(),
    }


def of_split(known: Learnt, test: NDArray[np.bool_]) -> dict[str, Any]:
    """What was learned on one split, and how well it holds."""
    calibration = [
        reliability(one.confidence[test], known.scores_of(one.winner)[test]).error
        for one in known.known.values()
    ]
    budget = known.use_of(known.best_single)
    return {
        "n_train": int((~test).sum()),
        "n_test": int(test.sum()),
        "best_single": known.best_single.name,
        "effective_options": round(known.n_options, 2),
        "confidence": dict(zip(known.traits, known.confidence.coef.round(3), strict=True)),
        "confidence_calibration_error": {
            "mean": round(float(np.mean(calibration)), 4),
            "worst": round(float(np.max(calibration)), 4),
        },
        "error_of_use": round(known.table_error(test), 4),
        "n_modes": len(known.table.modes),
        "n_undominated": known.n_undominated(),
        "modes_at_its_budget": known.named(staircase(known, "all modes").affordable(budget)),
    }


def within(table: Recorded, train: NDArray[np.bool_], resource: str) -> dict[str, Any]:
    """Both reports, with budgets of one resource."""
    rng = np.random.default_rng(SEED)
    known = learnt(table, train, resource)
    fold = content_folds(table.outcomes.prompts, N_FOLDS, SEED)
    parts = [arms(learnt(table, fold != k, resource), fold == k) for k in range(N_FOLDS)]
    return {
        "learned": of_split(known, ~train),
        "test": summary(arms(known, ~train), resource, rng),
        "cross_validated": summary(joined(parts), resource, rng),
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--responses", type=Path, default=DEFAULT)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results.json")
    given = parser.parse_args()
    if not given.responses.exists():
        sys.exit(f"no recorded answers in {given.responses.name}: nothing to measure")
    table = recorded(given.responses)
    train = table.outcomes.splits == "train"
    found = {
        "seed": SEED,
        "n_resamples": N_RESAMPLES,
        "verdicts": extraction(table),
        **{resource: within(table, train, resource) for resource in RESOURCES},
        "null_shuffled_answers": null(shuffled(table, np.random.default_rng(SEED)), train),
        "null_identical_experts": null(identical(table), train),
    }
    given.out.write_text(json.dumps(found, indent=1) + "\n")
    for resource in RESOURCES:
        for part in ("test", "cross_validated"):
            print(f"{part}, budgets of {resource}")
            for name, row in found[resource][part].items():
                figures = (row["score"], row["gain"], row["gain_ci95"], row["ratio"])
                print(f"  {name:32}", *figures, row["ratio_ci95"])


if __name__ == "__main__":
    main()

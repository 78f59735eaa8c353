"""Does choosing sets of experts pay? Sets, maps and prices beside the best single expert.

    python benchmarks/optimizer/sets.py [--tables FOLDER] > benchmarks/optimizer/sets.json

The router learns on two thirds of `train`; sets, maps and prices are chosen on the last third,
whose scores it has not seen; `dev` is reported. Every arm is held to what a single expert would
use, in the mean over prompts or in the worst case of who answers, and compared with the best
single expert that this budget affords. Joules are proportional to billions of parameters times
the expert's mean answer: an assumed profile, in which only ratios matter.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.append(str(Path(__file__).parents[1]))
sys.path.append(str(Path(__file__).parents[1] / "routing"))
import tables as public
from calibration import calibration

from coe.core import ExpertSpec
from coe.kernels.mixture import gate_weights, top_of_subsets
from coe.kernels.staircase import largest_of_subsets, staircase
from coe.optimizer.enumeration import members_of
from coe.optimizer.menu import menus
from coe.optimizer.problem import Problem
from coe.optimizer.steps import steps
from coe.routers.bootstrap import interval, resampled_means
from coe.routers.embed import MEANING_DIM, CachedEmbedder, load_default
from coe.routers.folds import content_folds
from coe.routers.outcomes import Outcomes
from coe.routers.train import embed_all, train

DEFAULT_TABLES = Path(__file__).parents[3] / "shared" / "data" / "outcomes"
POOLS = ("openllm 18", "openllm <=10B", "routerdc", "mmlupro chat")
SEED, N_RESAMPLES = 0, 2000
PLAIN = ("single", "lot")  # arms that know nothing of the prompt
EQUAL_WEIGHTS = 2.0**-40  # logits times this keep their order and have equal weights
SLACK = 1 + 1e-9
# points for as much as the dearest uses; the last admits none but the cheapest
PRICES = np.concatenate([[0.0], np.geomspace(1e-4, 10.0, 120), [1e9]])

Floats = NDArray[np.float64]
Answers = tuple[Floats, Floats]
"""(n_prompts,) expected score and usage of each prompt's answer."""


@dataclass(frozen=True, slots=True)
class Half:
    """Prompts as the router sees them, (n_prompts, n_experts), and what they scored."""

    quality: Floats
    scores: Floats
    category: NDArray[np.str_]

    @property
    def logits(self) -> Floats:
        """The gate: logits of the expected quality."""
        q = np.clip(self.quality, 1e-3, 1 - 1e-3)
        return np.log(q / (1 - q))


@dataclass(frozen=True, slots=True)
class Trial:
    """One pool on one axis.

    Parameters
    ----------
    chosen_on, reported : the third that is chosen on, and `dev`.
    single : (n_experts,) mean score of each expert on all of `train`.
    usage : (n_experts,) of one answer.
    """

    chosen_on: Half
    reported: Half
    single: Floats
    usage: Floats

    def of_picks(self, picks: NDArray[np.intp]) -> Answers:
        """One expert answers each reported prompt."""
        return self.reported.scores[np.arange(len(picks)), picks], self.usage[picks]

    def of_set(self, members: NDArray[np.bool_], k: int) -> Answers:
        """The k members of the largest weight answer; one of the answers is drawn by weight."""
        gate = gate_weights(self.reported.logits, members, k)
        return np.sum(gate * self.reported.scores, axis=1), (gate > 0) @ self.usage


Arm = Callable[[float], Answers]
"""What an arm answers within a budget."""


def single(trial: Trial) -> Arm:
    """The expert of the best training score that is affordable."""

    def within(budget: float) -> Answers:
        worth = np.where(trial.usage <= budget * SLACK, trial.single, -np.inf)
        return trial.of_picks(np.full(len(trial.reported.scores), worth.argmax()))

    return within


def lot(trial: Trial) -> Arm:
    """Two single experts by lot, whatever the prompt: all that a mean over prompts needs."""

    def within(budget: float) -> Answers:
        lots = [(n, n, 1.0) for n in np.flatnonzero(trial.usage <= budget * SLACK)]
        for cheap, dear in np.argwhere((trial.usage[:, None] < budget) & (trial.usage > budget)):
            share = (trial.usage[dear] - budget) / (trial.usage[dear] - trial.usage[cheap])
            lots.append((cheap, dear, share))
        worth = [share * trial.single[c] + (1 - share) * trial.single[d] for c, d, share in lots]
        cheap, dear, share = lots[int(np.argmax(worth))]
        answers = (trial.of_picks(np.full(len(trial.reported.scores), n)) for n in (cheap, dear))
        (one, used), (other, also) = answers
        return share * one + (1 - share) * other, share * used + (1 - share) * also

    return within


def two_step(trial: Trial, worst: bool) -> Arm:
    """One expert per category: a knapsack over the mean, or whoever is affordable in each."""
    names, category, counts = np.unique(
        trial.chosen_on.category, return_inverse=True, return_counts=True
    )
    quality = np.stack(
        [trial.chosen_on.quality[category == c].mean(axis=0) for c in range(names.size)]
    )
    usage = np.tile(trial.usage, (names.size, 1))
    # of any usage and without a ceiling on time: as if joules, drawn at 100 W
    problem = Problem(
        "best", counts / counts.sum(), usage, 10 * usage, quality=quality, k=1, sets="per_category"
    )
    listed = menus(problem)
    stairs = steps(listed, problem.shares, "energy_j")
    overall = trial.chosen_on.quality.mean(axis=0)

    def within(budget: float) -> Answers:
        fits = trial.usage <= budget * SLACK
        if worst:
            experts = np.where(fits, quality, -np.inf).argmax(axis=1)
        else:
            step = [step for step in stairs if step.energy_j <= budget * SLACK][-1]
            rows = zip(listed, step.rows, strict=True)
            experts = np.array([menu.members[row].argmax() for menu, row in rows])
        # a category that the chosen-on third lacks
        fallback = int(np.where(fits, overall, -np.inf).argmax())
        by_name = dict(zip(names.tolist(), experts.tolist(), strict=True))
        asked = [by_name.get(name, fallback) for name in trial.reported.category.tolist()]
        return trial.of_picks(np.array(asked))

    return within


def shared_set(trial: Trial, values: Floats, k: int, worst: bool) -> Arm:
    """One set for all prompts, the best of all sets: those of the largest k weights answer."""
    n_experts = trial.usage.size
    if worst:
        used = largest_of_subsets(trial.usage, k)
    else:
        used = mean_of_answers(trial.chosen_on.logits, trial.usage, k)
    used[0] = np.inf
    stairs = staircase(used, values)

    def within(budget: float) -> Answers:
        best = stairs[used[stairs] <= budget * SLACK][-1:]
        return trial.of_set(members_of(best, n_experts)[0], k)

    return within


def mean_of_answers(logits: Floats, usage: Floats, k: int) -> Floats:
    """(2 ** n_experts,) what the k members of the largest logits use together, mean over prompts.

    A mean of equal weights, times how many there are.
    """
    figures = np.tile(usage / usage.max(), (len(logits), 1))
    mean = top_of_subsets(logits * EQUAL_WEIGHTS, figures, k, log=False)
    mean[0] = 0.0
    masks = np.arange(1 << usage.size)
    n_members = sum(masks >> n & 1 for n in range(usage.size))
    total: Floats = mean * usage.max() * np.minimum(n_members, k)
    return total


def priced(trial: Trial) -> Arm:
    """Per prompt the expert of the most quality less usage times a price; the price is chosen."""
    share = trial.usage / trial.usage.max()
    rows = np.arange(len(trial.chosen_on.scores))
    found = []
    for price in PRICES:
        picks = np.argmax(trial.chosen_on.quality - price * share, axis=1)
        score = trial.chosen_on.scores[rows, picks].mean()
        found.append((trial.usage[picks].mean(), score))
    used, scores = np.array(found).T

    def within(budget: float) -> Answers:
        price = PRICES[np.where(used <= budget * SLACK, scores, -np.inf).argmax()]
        return trial.of_picks(np.argmax(trial.reported.quality - price * share, axis=1))

    return within


def arms(trial: Trial, choose: Floats, mixture: Floats, worst: bool) -> dict[str, Arm]:
    """Every arm. Lots and prices hold a budget in the mean only."""
    found = {
        "single": single(trial),
        "two-step map": two_step(trial, worst),
        "shared set, choose": shared_set(trial, choose, 1, worst),
        "shared set, mixture of 2": shared_set(trial, mixture, 2, worst),
    }
    return found if worst else found | {"price per prompt": priced(trial), "lot": lot(trial)}


def compared(trial: Trial, present: dict[str, Arm]) -> dict[str, Any]:
    """Every arm at every single expert's usage, beside the plain arms at the same budget."""
    rows, usage = [], np.unique(trial.usage)
    for budget in usage:
        answers = {name: arm(budget) for name, arm in present.items()}
        scores = np.column_stack([score for score, _ in answers.values()])
        means = resampled_means(scores, N_RESAMPLES, np.random.default_rng(SEED))
        found: dict[str, dict[str, Any]] = {
            name: {"score": float(score.mean()), "used": float(used.mean() / budget)}
            for name, (score, used) in answers.items()
        }
        for name in PLAIN:
            if name in present:
                column = list(present).index(name)
                bounds = interval(means - means[:, [column]])
                gains = (scores - scores[:, [column]]).mean(axis=0)
                for arm, gain, ci95 in zip(found.values(), gains, bounds, strict=True):
                    arm[f"over {name}"] = {"gain": float(gain), "ci95": ci95.tolist()}
        rows.append({"budget": float(budget / usage[-1]), "arms": found})
    return {"budgets": rows, "summary": _summary(rows)}


def _summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Per arm how often it is ahead or behind for certain, and by how much."""
    best = max(row["arms"]["single"]["score"] for row in rows)
    found = {}
    for name in rows[0]["arms"]:
        at = [row["arms"][name] for row in rows]
        equal = [row["budget"] for row in rows if row["arms"][name]["score"] >= best]
        found[name] = {
            "n_budgets": len(at),
            "used_mean": float(np.mean([arm["used"] for arm in at])),
            "used_most": float(max(arm["used"] for arm in at)),
            "matches_best_single_from": min(equal, default=None),
        }
        for plain in PLAIN:
            beside = [arm[f"over {plain}"] for arm in at if f"over {plain}" in arm]
            if beside:
                gains = [one["gain"] for one in beside]
                found[name][f"over {plain}"] = {
                    "ahead": sum(one["ci95"][0] > 0 for one in beside),
                    "behind": sum(one["ci95"][1] < 0 for one in beside),
                    "gain_mean": float(np.mean(gains)),
                    "gain_most": float(max(gains)),
                    "gain_least": float(min(gains)),
                }
    return found


def split(outcomes: Outcomes) -> tuple[Outcomes, Outcomes, Outcomes]:
    """Two thirds of `train` to learn from, one to choose on, and `dev`."""
    training = outcomes.splits == "train"
    third = content_folds(outcomes.prompts, 3) == 0
    return (
        outcomes.rows(training & ~third),
        outcomes.rows(training & third),
        outcomes.rows(outcomes.splits == "test"),
    )


def halves(outcomes: Outcomes) -> tuple[Half, Half]:
    """What a router trained on the first part says of the other two.

    It is not asked whether it would rather decline: sets and prices choose here.
    """
    learnt, chosen_on, reported = split(outcomes)
    embedder = CachedEmbedder(load_default(), n_entries=50_000)
    artefact = train(learnt, embedder, features=MEANING_DIM)
    expectation = replace(artefact.expectation, incumbent=None)
    found = []
    for rows in (chosen_on, reported):
        X = embed_all(embedder, rows.prompts)
        said = artefact.category.assess(X)
        quality = expectation.of(X, said).quality
        found.append(Half(quality, rows.scores, artefact.category.named(said)))
    return found[0], found[1]


def sized(
    outcomes: Outcomes, specs: dict[str, ExpertSpec]
) -> tuple[Outcomes, dict[str, Floats], Floats]:
    """Fully scored rows of the experts of known size, their usage by axis, and the sizes.

    A size that the table lacks is read from the name. Dollars only where all have a price.
    """
    sizes = np.array([_size_b(specs[name]) for name in outcomes.expert_ids])
    known = sizes > 0
    names = [name for name, kept in zip(outcomes.expert_ids, known, strict=True) if kept]
    measures = ("scores", "retrieved_scores", "tokens", "latency_ms", "energy_j", "cost_usd")
    columns: dict[str, Any] = {m: getattr(outcomes, m)[:, known] for m in measures}
    outcomes = replace(outcomes, expert_ids=tuple(names), **columns)
    outcomes = outcomes.rows(np.all(~np.isnan(outcomes.scores), axis=1))
    training = outcomes.splits == "train"
    tokens = np.ones(len(names))
    if not np.isnan(outcomes.tokens).any():
        tokens = outcomes.tokens[training].mean(axis=0)
    usage = {"energy_j": public.JOULES_PER_TOKEN_B * sizes[known] * tokens}
    prices = np.array([specs[name].usd_per_mtok_out for name in names])
    if np.all(prices > 0):
        usage["cost_usd"] = prices * tokens
    return outcomes, usage, sizes[known]


def _size_b(spec: ExpertSpec) -> float:
    named = re.search(r"(\d+(?:\.\d+)?)[bB]\b", spec.id)
    return spec.params_b or (float(named[1]) if named else 0.0)


def measured(outcomes: Outcomes, specs: dict[str, ExpertSpec]) -> dict[str, Any]:
    """Everything about one pool."""
    started = time.monotonic()
    outcomes, usage, sizes = sized(outcomes, specs)
    chosen_on, reported = halves(outcomes)
    trained_s = time.monotonic() - started
    scores = outcomes.scores[outcomes.splits == "train"].mean(axis=0)
    choose, mixture = (
        top_of_subsets(chosen_on.logits, chosen_on.scores, k, log=False) for k in (1, 2)
    )
    found: dict[str, Any] = {}
    for axis, figures in usage.items():
        trial = Trial(chosen_on, reported, scores, figures)
        found[axis] = {"mean": compared(trial, arms(trial, choose, mixture, worst=False))}
        if axis == "energy_j":
            found[axis]["worst"] = compared(trial, arms(trial, choose, mixture, worst=True))
    return {
        "experts": dict(zip(outcomes.expert_ids, sizes.tolist(), strict=True)),
        "n_chosen_on": len(chosen_on.scores),
        "n_reported": len(reported.scores),
        "singles": reported.scores.mean(axis=0).tolist(),
        "axes": found,
        "trained_s": round(trained_s, 1),
        "took_s": round(time.monotonic() - started, 1),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tables", type=Path, default=DEFAULT_TABLES)
    parser.add_argument("--only", nargs="+", default=list(POOLS), metavar="POOL")
    options = parser.parse_args()
    pools = {}
    if options.tables.is_dir():
        for pool, outcomes, specs in public.tables(options.tables, options.only):
            pools[pool.name] = measured(outcomes, specs)
            print(pool.name, pools[pool.name]["took_s"], "s", file=sys.stderr, flush=True)
    found = {
        "machine": calibration(),
        "seed": SEED,
        "n_resamples": N_RESAMPLES,
        "pools": pools or f"no tables in {options.tables.name}: skipped",
    }
    rounded = json.loads(json.dumps(found), parse_float=lambda figure: round(float(figure), 6))
    print(json.dumps(rounded, indent=2))


if __name__ == "__main__":
    main()

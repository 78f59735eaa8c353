"""Whether what an expert says of its own tokens tells which of its answers are right.

Reads the answers that `ask.py` kept, scores them, and writes ``results.json``.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold

from coe.routers.checks import parse_check
from coe.routers.outcomes import read_prompts
from coe.routers.verdict import verdict
from coe.services.sandbox import score_answer

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
EXPERTS = ("smollm2-135m", "qwen2.5-coder-0.5b")
N_REPEATS, N_FOLDS, N_BOOTSTRAPS = 5, 5, 500
PRIOR = 8.0

Floats = NDArray[np.float64]
STATISTICS: dict[str, Callable[[Floats, Floats], float]] = {
    "mean": lambda own, second: float(own.mean()),
    "spread": lambda own, second: float(-own.std()),
    "least": lambda own, second: float(own.min()),
    "first": lambda own, second: float(own[0]),
    "margin": lambda own, second: float((own - second).mean()),
}
"""Of the log-probabilities of an answer's tokens and of the runners-up: more is surer."""


@dataclass(frozen=True)
class Told:
    """The answers of one expert at temperature 0.

    ``agreeing``: of its samples, the share that says what the answer says; NaN without any.
    """

    category: NDArray[np.str_]
    right: NDArray[np.bool_]
    length: Floats
    silent: Floats
    sure: dict[str, Floats]
    agreeing: Floats

    def rows(self, kept: NDArray[np.bool_]) -> Told:
        """Those where ``kept`` is true."""
        return Told(
            self.category[kept],
            self.right[kept],
            self.length[kept],
            self.silent[kept],
            {name: values[kept] for name, values in self.sure.items()},
            self.agreeing[kept],
        )


def told(answers: list[dict[str, Any]], prompts: dict[str, Any], expert_id: str) -> Told:
    """What was recorded of an expert, prompts in the order of the file."""
    mine = [row for row in answers if row["expert_id"] == expert_id and row["logprobs"]]
    greedy = {row["prompt_id"]: row for row in mine if row["sample"] == 0}
    samples: dict[str, list[str]] = {}
    for row in mine:
        if row["sample"]:
            samples.setdefault(row["prompt_id"], []).append(row["answer"])
    category, right, sure, agreeing = [], [], [], []
    for prompt_id, row in greedy.items():
        check = parse_check(prompts[prompt_id]["check"])
        score = score_answer(row["answer"], check, run_code=True)
        category.append(prompts[prompt_id]["category"])
        right.append(score is not None and score >= 0.5)
        own, second = np.array(row["logprobs"]), np.array(row["seconds"])
        sure.append([statistic(own, second) for statistic in STATISTICS.values()])
        agreeing.append(_agreeing(row["answer"], samples.get(prompt_id, [])))
    return Told(
        category=np.array(category),
        right=np.array(right),
        length=np.array([np.log(len(row["logprobs"])) for row in greedy.values()]),
        silent=np.array([float(verdict(row["answer"]) is None) for row in greedy.values()]),
        sure=dict(zip(STATISTICS, np.array(sure).T, strict=True)),
        agreeing=np.array(agreeing),
    )


def _agreeing(answer: str, samples: list[str]) -> float:
    said = verdict(answer)
    if not samples or said is None:
        return np.nan if not samples else 0.0
    return float(np.mean([verdict(sample) == said for sample in samples]))


def foretold(part: Told, extra: list[Floats], rng: np.random.Generator) -> Floats:
    """(n_prompts,) log odds of being right, of held-out folds, with these ``extra`` traits.

    The other traits are what serving has without asking anybody else: the expected quality, which
    is the category's mean in the other folds (shrunk by eight prompts), length and silence. The
    mean over several partitions into folds.
    """
    found = np.zeros((N_REPEATS, part.right.size))
    for repeat in range(N_REPEATS):
        folds = StratifiedKFold(N_FOLDS, shuffle=True, random_state=int(rng.integers(2**31)))
        for train, test in folds.split(part.category, part.category):
            X = np.column_stack([_expected(part, train), part.length, part.silent, *extra])
            # a training prompt is not to be in its own expectation
            X[train, 0] = _expected_without(part, train)
            centre, scale = X[train].mean(axis=0), X[train].std(axis=0)
            X = (X - centre) / np.where(scale > 0, scale, 1.0)
            model = LogisticRegression().fit(X[train], part.right[train])
            found[repeat, test] = model.decision_function(X[test])
    return found.mean(axis=0)


def _expected(part: Told, train: NDArray[np.int64]) -> Floats:
    """(n_prompts,) log odds of the category's quality on ``train``."""
    overall = part.right[train].mean()
    quality = np.empty(part.right.size)
    for name in np.unique(part.category):
        here = part.right[train][part.category[train] == name]
        quality[part.category == name] = (here.sum() + PRIOR * overall) / (here.size + PRIOR)
    return np.log(quality / (1 - quality))


def _expected_without(part: Told, train: NDArray[np.int64]) -> Floats:
    """As `_expected`, of each training prompt without itself."""
    overall = part.right[train].mean()
    quality = np.empty(train.size)
    for name in np.unique(part.category[train]):
        here = part.category[train] == name
        right = part.right[train][here]
        others = (right.sum() - right + PRIOR * overall) / (right.size - 1 + PRIOR)
        quality[here] = others
    return np.log(quality / (1 - quality))


def gains(part: Told, extras: dict[str, list[Floats]], rng: np.random.Generator) -> dict[str, Any]:
    """Area under the ROC curve without and with each extra; paired bootstrap over prompts."""
    seed = int(rng.integers(2**31))
    scores = {
        name: foretold(part, extra, np.random.default_rng(seed))
        for name, extra in {"without": [], **extras}.items()
    }
    n = part.right.size
    drawn = [rng.integers(n, size=n) for _ in range(N_BOOTSTRAPS)]
    drawn = [rows for rows in drawn if 0 < part.right[rows].sum() < n]

    def interval(of: Callable[[NDArray[np.int64]], float]) -> list[float]:
        return [
            round(float(q), 3) for q in np.quantile([of(rows) for rows in drawn], (0.025, 0.975))
        ]

    def area(name: str, rows: NDArray[np.int64]) -> float:
        return float(roc_auc_score(part.right[rows], scores[name][rows]))

    everything = np.arange(n)
    base = area("without", everything)
    report: dict[str, Any] = {"without": {"auc": round(base, 3)}}
    for name in extras:
        report[name] = {
            "auc": round(area(name, everything), 3),
            "gain": round(area(name, everything) - base, 3),
            "gain_95": interval(lambda rows, k=name: area(k, rows) - area("without", rows)),
        }
    return report


def within(part: Told, values: Floats) -> float:
    """Area under the curve of ``values`` alone, over pairs of one category."""
    wins = pairs = 0.0
    for name in np.unique(part.category):
        here = part.category == name
        good, bad = values[here & part.right], values[here & ~part.right]
        above = good[:, None] - bad[None, :]
        wins += float((above > 0).sum() + 0.5 * (above == 0).sum())
        pairs += above.size
    return round(wins / pairs, 3)


def main() -> None:
    """Score what was asked, and say what log-probabilities and samples add."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--answers", type=Path, default=HERE / "answers.jsonl.gz")
    parser.add_argument("--out", type=Path, default=HERE / "results.json")
    options = parser.parse_args()
    prompts = {row["prompt_id"]: row for row in read_prompts(ROOT / "data/prompts/prompts.jsonl")}
    with gzip.open(options.answers, "rt", encoding="utf-8") as file:
        answers = [json.loads(line) for line in file]
    rng = np.random.default_rng(0)
    report: dict[str, Any] = {}
    for expert_id in EXPERTS:
        part = told(answers, prompts, expert_id)
        extras = {name: [values] for name, values in part.sure.items()}
        extras["mean and spread"] = [part.sure["mean"], part.sure["spread"]]
        report[expert_id] = {
            "n_prompts": int(part.right.size),
            "right": round(float(part.right.mean()), 3),
            "within_category": {name: within(part, v) for name, v in part.sure.items()},
            "geometric_mean": _calibration(part),
            **gains(part, extras, rng),
        }
        sampled = part.rows(~np.isnan(part.agreeing))
        if sampled.right.size > 2 * N_FOLDS:
            extras = {"mean": [sampled.sure["mean"]], "samples": [sampled.agreeing]}
            extras["both"] = [sampled.sure["mean"], sampled.agreeing]
            report[expert_id]["with_samples"] = {
                "n_prompts": int(sampled.right.size),
                "within_category": within(sampled, sampled.agreeing),
                **gains(sampled, extras, rng),
            }
    options.out.write_text(json.dumps(report, indent=2) + "\n")


def _calibration(part: Told) -> dict[str, float]:
    """The geometric mean of token probabilities beside the share that is right."""
    likely = np.exp(part.sure["mean"])
    return {
        "mean": round(float(likely.mean()), 3),
        "of_right": round(float(likely[part.right].mean()), 3),
        "of_wrong": round(float(likely[~part.right].mean()), 3),
    }


if __name__ == "__main__":
    main()

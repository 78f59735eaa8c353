"""The routers that every evaluation compares, from a fixed expert to the perfect choice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from coe.kernels.knn import nearest
from coe.kernels.votes import neighbour_means
from coe.routers.expectation import Expectation
from coe.routers.folds import content_folds
from coe.routers.head import Assessment, unit_rows
from coe.routers.modes import LearnedModes
from coe.routers.outcomes import Outcomes
from coe.routers.transcript import Transcript

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Singles = NDArray[np.float32]
Picks = NDArray[np.int64]

_NEIGHBOURS = (10, 40, 160)
_BATCH = 512


@dataclass(frozen=True, slots=True)
class Arm:
    """A way to choose: per prompt, the probability that each expert's answer is delivered.

    ``weights`` (n_prompts, n_experts), rows that sum to 1. An oracle knows what no router can.
    ``stages`` say who was asked for it, each stage (n_prompts, n_experts) after the one before;
    without any, those who deliver.
    """

    name: str
    weights: Floats
    oracle: bool = False
    stages: tuple[Bools, ...] = ()

    @classmethod
    def of(cls, name: str, picks: Picks, n_experts: int, oracle: bool = False) -> Arm:
        """An arm that asks ``picks`` (n_prompts,)."""
        return cls(name, np.eye(n_experts)[picks], oracle)

    def asked(self) -> Floats:
        """(n_prompts,) how many were asked; of an arm without stages the expected number."""
        asked: Floats = np.sum(self.stages or (self.weights,), axis=(0, 2))
        return asked

    def spent(self, each: Floats) -> Floats:
        """(n_prompts,) what all who were asked use, of (n_prompts, n_experts) uses.

        NaN where that of somebody who was asked is.
        """
        asked = sum(self.stages) if self.stages else self.weights
        used: Floats = np.where(asked > 0, asked * each, 0.0).sum(axis=1)
        return used

    def waited(self, each: Floats) -> Floats:
        """(n_prompts,) time to the answer, of times alike: of a stage that of the slowest."""
        if not self.stages:
            return self.spent(each)
        slowest = [np.where(stage, each, 0.0).max(axis=1) for stage in self.stages]
        time: Floats = np.sum(slowest, axis=0)
        return time


def of_modes(modes: LearnedModes, told: Transcript) -> list[Arm]:
    """Votes of the best three experts and of all, and the best cascade of two stages.

    Chosen by what is known of all prompts together. None where an expert of modes did not answer
    some prompt, and none that was not learned.

    Parameters
    ----------
    told : columns as the table of the modes has them.
    """
    table = modes.table
    names = told.rows.expert_ids
    columns = [names.index(name) for name in table.known_ids]
    if not told.answered()[:, columns].all():
        return []
    chosen = {
        "vote-3": table.vote_of_best(3),
        "vote-all": table.vote_of_best(len(columns)),
        "cascade": table.best(lambda mode: mode.kind == "cascade"),
    }
    wanted = {name: mode for name, mode in chosen.items() if mode is not None}
    played = told.play(modes, list(wanted.values()))
    n = len(names)
    return [
        Arm(name, np.eye(n)[one.winner], stages=one.stages(names))
        for name, one in zip(wanted, played, strict=True)
    ]


def singles(rows: Outcomes) -> list[Arm]:
    """One arm for each expert, asked always."""
    n, n_experts = rows.scores.shape
    return [
        Arm.of(f"always {name}", np.full(n, k), n_experts) for k, name in enumerate(rows.expert_ids)
    ]


def at_random(rows: Outcomes) -> Arm:
    """Every expert with the same probability."""
    n, n_experts = rows.scores.shape
    return Arm("random", np.full((n, n_experts), 1.0 / n_experts))


def knn(train: Outcomes, X_train: Singles, X: Singles) -> Arm:
    """Direct routing: the expert of the best mean score on the nearest training prompts.

    How many neighbours is chosen on held-out training prompts (RouterBench's kNN).
    """
    scores = np.where(np.isnan(train.scores), np.nanmean(train.scores, axis=0), train.scores)
    fold = content_folds(train.prompts, 5)
    held = {}
    for k in _NEIGHBOURS:
        found = np.empty_like(scores)
        for part in np.unique(fold):
            mine = fold == part
            kept = ~mine if (~mine).any() else mine
            found[mine] = _neighbour_means(X_train[kept], scores[kept], X_train[mine], k)
        held[k] = scores[np.arange(len(scores)), found.argmax(axis=1)].mean()
    k = max(held, key=lambda k: held[k])
    quality = _neighbour_means(X_train, scores, X, k)
    return Arm.of("knn", quality.argmax(axis=1), scores.shape[1])


def direct_classifier(train: Outcomes, X_train: Singles, X: Singles) -> Arm:
    """Direct routing: logistic regression on the best expert of each training prompt.

    Of equally good experts the one with the best overall mean is the label. CoE's premise is
    that these labels are too jittery to learn.
    """
    overall = np.nanmean(train.scores, axis=0)
    ranked = np.nan_to_num(train.scores, nan=-1.0) + 1e-6 * overall
    labels = ranked.argmax(axis=1)
    n_experts = overall.size
    if np.unique(labels).size < 2:
        return Arm.of("direct classifier", np.full(len(X), labels[0]), n_experts)
    classifier = LogisticRegression(max_iter=1000, tol=1e-3).fit(X_train, labels)
    return Arm.of("direct classifier", classifier.predict(X), n_experts)


def two_step(expectation: Expectation, found: Assessment) -> list[Arm]:
    """CoE's two steps, category then its best expert; and the same with the "general" fallback."""
    table = expectation.table.quality
    category = found.probabilities.argmax(axis=1)
    plain = table[category].argmax(axis=1)
    robust = np.where(found.uncertain, table[-1].argmax(), plain)
    n_experts = table.shape[1]
    return [
        Arm.of("two-step", plain, n_experts),
        Arm.of("two-step robust", robust, n_experts),
    ]


def oracle_category(expectation: Expectation, rows: Outcomes) -> Arm:
    """The table's best expert of each prompt's true category; of an unknown one, overall."""
    numbers = {name: k for k, name in enumerate(expectation.categories)}
    general = len(numbers) - 1
    true = [
        numbers.get(category, numbers.get(task, general))
        for category, task in zip(rows.categories.tolist(), rows.tasks.tolist(), strict=True)
    ]
    best = expectation.table.quality.argmax(axis=1)
    return Arm.of("oracle category", best[true], rows.scores.shape[1], oracle=True)


def oracle_prompt(rows: Outcomes) -> Arm:
    """The best expert of every prompt, known only afterwards: inflated by luck."""
    return Arm.of("oracle prompt", rows.scores.argmax(axis=1), rows.scores.shape[1], oracle=True)


def _neighbour_means(X_train: Singles, scores: Floats, X: Singles, k: int) -> Floats:
    points, queries = unit_rows(X_train), unit_rows(X)
    parts = [np.zeros((0, scores.shape[1]))]
    for start in range(0, len(queries), _BATCH):
        indices, _ = nearest(queries[start : start + _BATCH], points, k)
        parts.append(neighbour_means(indices, scores))
    return np.vstack(parts)

"""From outcomes to an artefact."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import sklearn
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, StratifiedKFold

import coe
from coe.core import GENERAL, DeviceProfile, ExpertSpec
from coe.errors import OutcomesError
from coe.routers.artefact import Artefact
from coe.routers.category import CategoryRouter
from coe.routers.embed import Embedder
from coe.routers.head import CategoryHead
from coe.routers.outcomes import Outcomes
from coe.routers.quality import QualityTable

Floats = NDArray[np.float32]
_N_FOLDS = 5
_PENALTIES = (1.0, 10.0, 100.0)
_UNKNOWN_DEVICE = DeviceProfile("unknown", 0, 0, 0, 1, 0, 0, source="none: not configured")


def train(
    outcomes: Outcomes,
    embedder: Embedder,
    specs: Mapping[str, ExpertSpec] | None = None,
    estimator: CategoryRouter | None = None,
    n_canaries: int = 12,
    progress: Callable[[str], None] = lambda step: None,
) -> Artefact:
    """The artefact learned from ``train`` rows, thresholds tuned and measured on ``dev`` rows.

    No other row is looked at. Deterministic: the same table and embedder give the same arrays.
    Prompts without a category count only in the "general" row.

    Parameters
    ----------
    specs : the configured experts; one that is absent is recorded with an unknown device.
    estimator : category router to fit a copy of, with ``C`` and the thresholds chosen anew.
    progress : called with the name of each step.

    Raises
    ------
    OutcomesError
        There is no ``train`` row with a category, or an expert has no score in ``train`` rows.
    """
    fit_rows = outcomes.rows(outcomes.splits == "train")
    labelled = fit_rows.rows(_has_category(fit_rows))
    if not labelled.prompt_ids:
        raise OutcomesError("no prompt of split 'train' has a category: there is nothing to learn")
    for expert_id in fit_rows.unscored:
        raise OutcomesError(f"expert {expert_id!r} has no score on any prompt of split 'train'")
    progress("embedding prompts")
    X = embedder.embed(labelled.prompts)
    dev_rows = outcomes.rows((outcomes.splits == "dev") & _has_category(outcomes))
    X_dev = embedder.embed(dev_rows.prompts) if dev_rows.prompt_ids else X[:0]
    progress("fitting the category router")
    router = _with_best_penalty(estimator or CategoryRouter(), X, labelled.categories)
    head = _with_thresholds(router.head(), X, X_dev, dev_rows.categories)
    progress("fitting the quality table")
    table = QualityTable.fit(
        fit_rows.categories, outcomes.expert_ids, fit_rows.scores, fit_rows.tokens
    )
    progress("measuring on dev")
    return Artefact(
        embedder=embedder.name,
        category=head,
        quality=table,
        experts=tuple(
            (specs or {}).get(name) or ExpertSpec(name, _UNKNOWN_DEVICE)
            for name in outcomes.expert_ids
        ),
        canaries=_canaries(head, labelled, X, n_canaries),
        training={
            "outcomes_sha256": outcomes.sha256,
            "inverse_penalty": router.C,
            "n_train": len(labelled.prompt_ids),
            "n_dev": len(dev_rows.prompt_ids),
            "versions": _versions(),
        },
        metrics=measure(head, table, dev_rows, X_dev) if dev_rows.prompt_ids else {},
    )


def _versions() -> dict[str, str]:
    return {
        "coe": coe.__version__,
        "numpy": np.__version__,
        "scikit-learn": sklearn.__version__,
        "python": platform.python_version(),
    }


def measure(head: CategoryHead, table: QualityTable, rows: Outcomes, X: Floats) -> dict[str, Any]:
    """Figures of routing these rows to the expert of the highest expected quality.

    Returns the category router's accuracy and coverage (share of prompts not uncertain), and
    the mean score of: each single expert, the routed expert, and the best expert of each
    prompt (the oracle, inflated by luck). Rows lacking any expert's score are left out.
    """
    keep: NDArray[np.bool_] = np.all(~np.isnan(rows.scores), axis=1)
    rows, X = rows.rows(keep), X[keep]
    if not rows.prompt_ids:
        return {"n_prompts": 0}
    found = head.assess(X)
    expected = np.array(
        [
            table.expected(p, bool(u)).quality
            for p, u in zip(found.probabilities, found.uncertain, strict=True)
        ]
    )
    routed = rows.scores[np.arange(len(rows.prompt_ids)), expected.argmax(axis=1)]
    right = head.predict(X) == rows.categories
    singles = dict(zip(rows.expert_ids, rows.scores.mean(axis=0).round(4).tolist(), strict=True))
    return {
        "n_prompts": len(rows.prompt_ids),
        "category_accuracy": round(float(right.mean()), 4),
        "coverage": round(float(1 - found.uncertain.mean()), 4),
        "score_single": singles,
        "score_routed": round(float(routed.mean()), 4),
        "score_oracle": round(float(rows.scores.max(axis=1).mean()), 4),
    }


def _with_best_penalty(estimator: CategoryRouter, X: Floats, y: NDArray[np.str_]) -> CategoryRouter:
    """A fitted copy whose ``C`` has the least log loss in stratified cross-validation.

    With fewer than five prompts in some category, the estimator's own ``C`` is kept.
    """
    counts = np.unique(y, return_counts=True)[1]
    if counts.size < 2 or counts.min() < _N_FOLDS:
        return _fitted(estimator, X, y)
    search = GridSearchCV(
        estimator,
        {"C": _PENALTIES},
        scoring="neg_log_loss",
        cv=StratifiedKFold(_N_FOLDS, shuffle=True, random_state=0),
        refit=False,
    )
    return _fitted(estimator, X, y, **search.fit(X, y).best_params_)


def _fitted(
    estimator: CategoryRouter, X: Floats, y: NDArray[np.str_], **params: Any
) -> CategoryRouter:
    router: CategoryRouter = clone(estimator).set_params(**params)
    return router.fit(X, y)


def _has_category(rows: Outcomes) -> NDArray[np.bool_]:
    known: NDArray[np.bool_] = ~np.isin(rows.categories, ("", GENERAL))
    return known


def _with_thresholds(
    head: CategoryHead, X: Floats, X_dev: Floats, y_dev: NDArray[np.str_]
) -> CategoryHead:
    """The same head with uncertainty thresholds.

    Distance: above what 99 % of training prompts have to their neighbours. Entropy: the
    largest value below which dev prompts are still classified with 90 % accuracy, never
    under the median dev entropy, so that at least half of the prompts stay covered.
    """
    k = head.n_neighbors
    # a training prompt is its own neighbour at distance 0: undo that in the mean
    own = replace(head, n_neighbors=k + 1).assess(X).distance * (k + 1) / k
    distance_threshold = float(np.quantile(own, 0.99))
    entropy_threshold = np.inf
    if len(y_dev):
        doubt = head.assess(X_dev).entropy
        order = np.argsort(doubt, kind="stable")
        right = (head.predict(X_dev) == y_dev)[order]
        accuracy = np.cumsum(right) / np.arange(1, right.size + 1)
        accurate = np.flatnonzero(accuracy >= 0.9)
        last = max(int(accurate[-1]) if accurate.size else 0, right.size // 2)
        if last < right.size - 1:
            entropy_threshold = float(doubt[order[last]])
    return replace(head, entropy_threshold=entropy_threshold, distance_threshold=distance_threshold)


def _canaries(
    head: CategoryHead, rows: Outcomes, X: Floats, n_canaries: int
) -> tuple[tuple[str, str], ...]:
    """The most confidently right training prompts of every category in turn."""
    probabilities = head.predict_proba(X)
    columns = np.searchsorted(head.classes_, rows.categories)
    confidence = probabilities[np.arange(len(columns)), columns]
    right = head.predict(X) == rows.categories
    per_category = max(1, n_canaries // head.classes_.size)
    chosen: list[tuple[str, str]] = []
    for name in head.classes_:
        mine = np.flatnonzero(right & (rows.categories == name))
        best = mine[np.argsort(-confidence[mine], kind="stable")[:per_category]]
        chosen += [(rows.prompts[i], str(name)) for i in best]
    return tuple(chosen)

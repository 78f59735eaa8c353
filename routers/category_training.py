"""Which labels to route by, and which estimator learns them best: cross-validation on train."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from coe.core import GENERAL
from coe.routers.category import CategoryRouter, CentroidRouter, LogisticRouter, NeighborRouter
from coe.routers.clusters import ClusterRouter, LeastSquaresRouter
from coe.routers.head import CategoryHead
from coe.routers.outcomes import Outcomes
from coe.routers.spreading import UNLABELLED, SpreadingRouter

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Names = NDArray[np.str_]

_MOST_COMPARED = 2000  # prompts on which estimators are compared
_MOST_POINTS = 4096  # neighbours are searched among so many training prompts when serving
_PER_TASK = 20  # prompts that a task has on average, at least, to be routed by
_PER_CLUSTER = 30
_MOST_CLUSTERS = 64
_GATES = {"k-means": ClusterRouter, "least-squares": LeastSquaresRouter}


@dataclass(frozen=True, slots=True)
class Scheme:
    """One way to cut prompts into categories.

    Parameters
    ----------
    name : "category" or "source_task", the column that labels; or "k-means" or
        "least-squares", the gate over clusters.
    labels : (n_prompts,) category of each training prompt; `UNLABELLED` where it has none.
    parents : the wider category of each category, where there is one.
    clusters : the router that formed the labels, where clusters are the categories.
    """

    name: str
    labels: Names
    parents: Mapping[str, str]
    clusters: ClusterRouter | None = None


def schemes(rows: Outcomes, X: Singles, features: int | None) -> list[Scheme]:
    """The ways to cut these prompts into categories, the plainest first.

    The labels of column ``category``; those of ``source_task`` where they are finer and not too
    fine; and clusters, where there are prompts enough.
    """
    found = []
    category, tasks = (
        np.where(names == GENERAL, UNLABELLED, names) for names in (rows.categories, rows.tasks)
    )
    if np.any(category != UNLABELLED):
        found.append(Scheme("category", category, {}))
    if _known(category).size < _known(tasks).size <= len(tasks) / _PER_TASK:
        found.append(Scheme("source_task", tasks, _parents(tasks, category)))
    n_clusters = min(_MOST_CLUSTERS, len(X) // _PER_CLUSTER)
    if n_clusters >= 2:
        for name, gate in _GATES.items():
            clusters = gate(n_clusters, distance_features=features).fit(X)
            labels = clusters.head().classes_[clusters.labels_]
            found.append(Scheme(name, labels, {}, clusters))
    return found


def estimators(scheme: Scheme, features: int | None) -> dict[str, CategoryRouter]:
    """The estimators that may learn the labels of ``scheme``, by name."""
    if scheme.clusters is not None:
        return {scheme.name: scheme.clusters}
    made: dict[str, CategoryRouter] = {
        **{f"logistic C={c:g}": LogisticRouter(c) for c in (1.0, 10.0, 100.0)},
        **{f"centroid {s:g}": CentroidRouter(s) for s in (10.0, 30.0)},
        **{f"neighbors k={k}": NeighborRouter(k) for k in (5, 20)},
    }
    if np.any(scheme.labels == UNLABELLED):
        made["spreading"] = SpreadingRouter()
    return {name: router.set_params(distance_features=features) for name, router in made.items()}


def choose(
    candidates: Mapping[str, CategoryRouter], scheme: Scheme, X: Singles, fold: NDArray[np.int64]
) -> tuple[str, dict[str, float]]:
    """The name of the best candidate, and the Brier score of each on held-out prompts.

    The score is the mean over labelled prompts of ``sum_c (p_c - [c is the label])^2``, less is
    better, zero for certain and right. Of equals the first named wins. On large tables a
    sample is compared.
    """
    if len(candidates) == 1:
        return next(iter(candidates)), {}
    sample = np.arange(len(X))
    if len(X) > _MOST_COMPARED:
        sample = np.random.default_rng(0).choice(len(X), _MOST_COMPARED, replace=False)
    X, fold, labels = X[sample], fold[sample] % 3, scheme.labels[sample]
    classes = _known(labels)
    right = (labels[:, None] == classes).astype(float)
    judged = labels != UNLABELLED
    scores = {}
    for name, router in candidates.items():
        p = held_out(router, labels, X, fold, classes)
        scores[name] = float(((p - right)[judged] ** 2).sum(axis=1).mean())
    return min(scores, key=lambda name: scores[name]), scores


def fitted(router: CategoryRouter, labels: Names, X: Singles) -> CategoryRouter:
    """A copy fitted to the labelled prompts; spreading sees all. Clusters are formed already."""
    if isinstance(router, ClusterRouter):
        return router
    made: CategoryRouter = clone(router)
    if isinstance(router, SpreadingRouter):
        return made.fit(X, labels)
    known = labels != UNLABELLED
    return made.fit(X[known], labels[known])


def held_out(
    router: CategoryRouter, labels: Names, X: Singles, fold: NDArray[np.int64], classes: Names
) -> Floats:
    """(n, n_classes) probabilities of each prompt by the fit without its fold.

    A category that a fit has not seen gets probability 0; without anything to learn from,
    all are 0. Clusters know nothing of scores: they are formed once, from all prompts.
    """
    if isinstance(router, ClusterRouter):
        return fitted(router, labels, X).predict_proba(X)
    found = np.zeros((len(X), classes.size))
    for k in np.unique(fold):
        mine = fold == k
        if not np.any(labels[~mine] != UNLABELLED):
            continue
        part = fitted(router, labels[~mine], X[~mine]).head()
        columns = np.searchsorted(classes, part.classes_)
        found[np.ix_(mine, columns)] = part.predict_proba(X[mine])
    return found


def serving_head(router: CategoryRouter) -> CategoryHead:
    """The head with at most 4,096 of its points, so that the search for neighbours is bounded."""
    head = router.head()
    if len(head.points_) <= _MOST_POINTS:
        return head
    kept = np.sort(np.random.default_rng(0).choice(len(head.points_), _MOST_POINTS, replace=False))
    codes = None if head.codes_ is None else head.codes_[kept]
    return replace(head, points_=head.points_[kept], codes_=codes)


def _parents(tasks: Names, categories: Names) -> dict[str, str]:
    """The commonest category of each task; a task whose prompts have none is left out."""
    found: dict[str, str] = {}
    for task in _known(tasks).tolist():
        mine = categories[(tasks == task) & (categories != UNLABELLED)]
        if mine.size:
            names, counts = np.unique(mine, return_counts=True)
            found[task] = str(names[counts.argmax()])
    return found


def class_names(scheme: Scheme) -> Sequence[str]:
    """The sorted categories of a scheme."""
    names: list[str] = _known(scheme.labels).tolist()
    return names


def _known(labels: Names) -> Names:
    """The distinct labels, sorted, without `UNLABELLED`."""
    return np.unique(labels[labels != UNLABELLED])

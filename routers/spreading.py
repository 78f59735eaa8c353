"""A category router for prompts of which only some are labelled."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassifierMixin, clone

from coe.routers.category import CategoryRouter, LogisticRouter, NeighborRouter

Names = NDArray[Any]

UNLABELLED = ""


class SpreadingRouter(ClassifierMixin, CategoryRouter):  # type: ignore[misc]
    """Labels spread from seeds to their neighbours, then a router fitted to all of them.

    In every round a vote among the labelled prompts is taken for each unlabelled one; it gets
    the winner's label when the vote's entropy is at most ``spread_entropy`` and the voters are
    near, and stays unlabelled otherwise (CoE, arXiv 2412.01868: semi-supervised labels, two to
    three rounds; reconstruction).

    Parameters
    ----------
    base : router to fit a copy of; by default a `LogisticRouter`.
    n_voters : neighbours that vote.
    spread_entropy : nats; votes less certain than this label nothing.
    spread_distance : mean cosine distance of the voters beyond which they label nothing.
    n_rounds : most rounds.
    n_neighbors, entropy_threshold, distance_threshold, distance_features : see `CategoryRouter`.

    Attributes
    ----------
    labels_ : (n_train,) the labels after spreading; `UNLABELLED` where none was found.
    """

    def __init__(
        self,
        base: CategoryRouter | None = None,
        n_voters: int = 5,
        spread_entropy: float = 0.7,
        spread_distance: float = 0.5,
        n_rounds: int = 3,
        n_neighbors: int = 5,
        entropy_threshold: float = np.inf,
        distance_threshold: float = np.inf,
        distance_features: int | None = None,
    ) -> None:
        self.base = base
        self.n_voters = n_voters
        self.spread_entropy = spread_entropy
        self.spread_distance = spread_distance
        self.n_rounds = n_rounds
        super().__init__(n_neighbors, entropy_threshold, distance_threshold, distance_features)

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Train on embeddings ``X`` (n, dim) with names ``y`` (n,), `UNLABELLED` where unknown.

        Raises
        ------
        ValueError
            X or y is empty, not finite, of inconsistent length, or no prompt is labelled.
        """
        points, names = self._checked(X, y)
        self.labels_ = self._spread(points, names)
        known = self.labels_ != UNLABELLED
        router = clone(self.base or LogisticRouter())
        router.set_params(
            n_neighbors=self.n_neighbors, distance_features=self.distance_features
        ).fit(points[known], self.labels_[known])
        for name in ("classes_", "points_", "coef_", "intercept_"):
            setattr(self, name, getattr(router, name))
        self.codes_ = getattr(router, "codes_", None)
        return self

    def _spread(self, X: NDArray[np.floating], seeds: Names) -> Names:
        labels = seeds.copy()
        if not np.any(labels != UNLABELLED):
            raise ValueError("no prompt is labelled: there is nothing to spread")
        for _ in range(self.n_rounds):
            missing = np.flatnonzero(labels == UNLABELLED)
            if not missing.size:
                break
            known = labels != UNLABELLED
            voters = NeighborRouter(self.n_voters, distance_features=self.distance_features)
            vote = voters.fit(X[known], labels[known]).assess(X[missing])
            sure = vote.entropy <= self.spread_entropy
            sure &= vote.distance <= self.spread_distance
            if not sure.any():
                break
            winners = voters.classes_[vote.probabilities.argmax(axis=1)]
            labels[missing[sure]] = winners[sure]
        return labels

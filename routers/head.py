"""What serving needs of a trained category router: arrays and thresholds, numpy alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from coe.core import GENERAL
from coe.kernels.gating import entropy, softmax
from coe.kernels.knn import nearest

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Assessment:
    """What a category router says of n prompts.

    ``probabilities`` (n, n_classes), columns as in ``classes_``; ``entropy`` (n,) in nats;
    ``distance`` (n,) mean cosine distance to the nearest training prompts, in [0, 2];
    ``uncertain`` (n,) bool: the entropy or the distance is above its threshold.
    """

    probabilities: Floats
    entropy: Floats
    distance: Floats
    uncertain: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class CategoryHead:
    """A fitted category router, frozen.

    Probabilities are a softmax of linear logits, or, with ``codes_``, the share of the nearest
    training prompts that each category has.

    Parameters
    ----------
    classes_ : (n_classes,) sorted category names.
    coef_ : (n_classes, dim), ``intercept_`` : (n_classes,), of the logits; zeros for a vote.
    points_ : (n_points, n_distance) float32, the leading features of training embeddings, of
        unit length.
    n_neighbors : neighbours of the distance test and of the vote.
    entropy_threshold, distance_threshold : a prompt above either is uncertain.
    codes_ : (n_points,) the column of each point's category, for a vote.

    Raises
    ------
    ValueError
        The shapes do not agree.
    """

    classes_: NDArray[Any]
    coef_: Floats
    intercept_: Floats
    points_: NDArray[np.float32]
    n_neighbors: int = 5
    entropy_threshold: float = np.inf
    distance_threshold: float = np.inf
    codes_: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        n_classes = self.classes_.size
        if self.coef_.ndim != 2 or self.points_.ndim != 2:
            raise ValueError("coef_ and points_ must have two dimensions")
        if self.coef_.shape[0] != n_classes or self.intercept_.shape != (n_classes,):
            raise ValueError("coef_ and intercept_ must have a row for each class")
        if self.points_.shape[1] > self.coef_.shape[1] or not len(self.points_):
            raise ValueError("points_ must hold training prompts, with no more features than coef_")
        if self.codes_ is not None and self.codes_.shape != (len(self.points_),):
            raise ValueError("codes_ must hold the category of every one of points_")

    def predict_proba(self, X: ArrayLike) -> Floats:
        """(n, n_classes) probabilities of embeddings ``X`` (n, dim), columns as ``classes_``."""
        points = np.asarray(X, dtype=np.float64)
        if self.codes_ is None:
            return self._linear(points)
        return self._vote(self._neighbours(points)[0])

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """(n,) the likeliest category of each row, certain or not."""
        return self.likeliest(self.predict_proba(X))

    def likeliest(self, probabilities: Floats) -> NDArray[Any]:
        """(n,) the category of the largest probability of each row; of equals the first."""
        names: NDArray[Any] = self.classes_[probabilities.argmax(axis=1)]
        return names

    def named(self, found: Assessment) -> NDArray[np.str_]:
        """(n,) the category of each assessed prompt; "general" where the router is uncertain."""
        return np.where(found.uncertain, GENERAL, self.likeliest(found.probabilities))

    def assess(self, X: ArrayLike) -> Assessment:
        """Probabilities, entropy, neighbour distance and uncertainty of each row.

        A zero row (a prompt of which nothing is known) is at distance 1.
        """
        points = np.asarray(X, dtype=np.float64)
        indices, distances = self._neighbours(points)
        probabilities = self._linear(points) if self.codes_ is None else self._vote(indices)
        doubt, distance = entropy(probabilities), distances.mean(axis=1)
        uncertain = (doubt > self.entropy_threshold) | (distance > self.distance_threshold)
        return Assessment(probabilities, doubt, distance, uncertain)

    def _linear(self, X: Floats) -> Floats:
        return softmax(X @ self.coef_.T + self.intercept_)

    def _neighbours(self, X: Floats) -> tuple[NDArray[np.int64], Floats]:
        leading = unit_rows(X[:, : self.points_.shape[1]])
        return nearest(leading, self.points_, self.n_neighbors)

    def _vote(self, indices: NDArray[np.int64]) -> Floats:
        assert self.codes_ is not None
        votes = np.zeros((len(indices), self.classes_.size))
        np.add.at(votes, (np.arange(len(indices))[:, None], self.codes_[indices]), 1.0)
        shares: Floats = votes / indices.shape[1]
        return shares


def unit_rows(X: NDArray[np.floating]) -> NDArray[np.float32]:
    """Rows scaled to unit length; zero rows stay zero."""
    norms = np.linalg.norm(X, axis=1, keepdims=True)
    return (X / np.where(norms > 0, norms, 1.0)).astype(np.float32)

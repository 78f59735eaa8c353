"""What serving needs of a trained category router: arrays and thresholds, numpy alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from coe.kernels.gating import entropy, softmax
from coe.kernels.knn import mean_cosine_distance

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

    Parameters
    ----------
    classes_ : (n_classes,) sorted category names.
    coef_ : (n_classes, dim), ``intercept_`` : (n_classes,), of the logits.
    points_ : (n_train, n_distance) float32, the leading features of the training embeddings,
        of unit length.
    n_neighbors : neighbours of the distance test.
    entropy_threshold, distance_threshold : a prompt above either is uncertain.

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

    def __post_init__(self) -> None:
        n_classes = self.classes_.size
        if self.coef_.ndim != 2 or self.points_.ndim != 2:
            raise ValueError("coef_ and points_ must have two dimensions")
        if self.coef_.shape[0] != n_classes or self.intercept_.shape != (n_classes,):
            raise ValueError("coef_ and intercept_ must have a row for each class")
        if self.points_.shape[1] > self.coef_.shape[1] or not len(self.points_):
            raise ValueError("points_ must hold training prompts, with no more features than coef_")

    def predict_proba(self, X: ArrayLike) -> Floats:
        """(n, n_classes) probabilities of embeddings ``X`` (n, dim), columns as ``classes_``."""
        return softmax(np.asarray(X, dtype=np.float64) @ self.coef_.T + self.intercept_)

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """(n,) the likeliest category of each row, certain or not."""
        names: NDArray[Any] = self.classes_[np.argmax(self.predict_proba(X), axis=1)]
        return names

    def assess(self, X: ArrayLike) -> Assessment:
        """Probabilities, entropy, neighbour distance and uncertainty of each row.

        A zero row (a prompt of which nothing is known) is at distance 1.
        """
        probabilities = self.predict_proba(X)
        doubt = entropy(probabilities)
        leading = np.asarray(X, dtype=np.float64)[:, : self.points_.shape[1]]
        distance = mean_cosine_distance(unit_rows(leading), self.points_, self.n_neighbors)
        uncertain = (doubt > self.entropy_threshold) | (distance > self.distance_threshold)
        return Assessment(probabilities, doubt, distance, uncertain)


def unit_rows(X: Floats) -> NDArray[np.float32]:
    """Rows scaled to unit length; zero rows stay zero."""
    norms = np.linalg.norm(X, axis=1, keepdims=True)
    return (X / np.where(norms > 0, norms, 1.0)).astype(np.float32)

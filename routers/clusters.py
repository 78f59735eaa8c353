"""Category routers that need no labels: categories are clusters of prompts."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import validate_data

from coe.routers.category import CategoryRouter
from coe.routers.head import CategoryHead, unit_rows

Floats = NDArray[np.float64]


class ClusterRouter(CategoryRouter):
    """K-means on the embedding, as in the Avengers (arXiv 2505.19797).

    Probabilities are the softmax of minus ``sharpness`` times the squared distances to the
    centres, which is linear in the embedding.

    Parameters
    ----------
    n_clusters : most clusters; there are never more than distinct training prompts.
    sharpness : logits per unit of squared distance, positive.
    random_state : seed of K-means.
    n_neighbors, entropy_threshold, distance_threshold, distance_features : see
        `CategoryRouter`; the clusters are formed on the same leading features as the distance.

    Attributes
    ----------
    classes_ : (n_clusters,) their numbers; `head` calls them "cluster-000" and so on.
    labels_ : (n_train,) number of the cluster of every training prompt.
    """

    def __init__(
        self,
        n_clusters: int = 64,
        sharpness: float = 20.0,
        random_state: int = 0,
        n_neighbors: int = 5,
        entropy_threshold: float = np.inf,
        distance_threshold: float = np.inf,
        distance_features: int | None = None,
    ) -> None:
        self.n_clusters = n_clusters
        self.sharpness = sharpness
        self.random_state = random_state
        super().__init__(n_neighbors, entropy_threshold, distance_threshold, distance_features)

    def fit(self, X: ArrayLike, y: ArrayLike | None = None) -> Self:
        """Cluster embeddings ``X`` (n, dim); ``y`` is ignored.

        Raises
        ------
        ValueError
            X is empty or not finite.
        """
        points: Floats = validate_data(self, X, dtype=(np.float64, np.float32))
        leading = points[:, : self.distance_features]
        self.points_ = unit_rows(leading)
        n_clusters = min(self.n_clusters, len({row.tobytes() for row in leading}))
        with warnings.catch_warnings():
            # rows that differ by rounding alone make fewer clusters than asked for: no fault
            warnings.simplefilter("ignore", ConvergenceWarning)
            found = KMeans(n_clusters, n_init=1, random_state=self.random_state).fit(leading)
        kept, labels = np.unique(found.labels_, return_inverse=True)
        self.classes_ = np.arange(kept.size)
        self.labels_ = labels.astype(np.int64)
        self._gate(points, self.labels_, found.cluster_centers_[kept].astype(np.float64))
        return self

    def predict(self, X: ArrayLike) -> NDArray[np.int64]:
        """(n,) the number of the likeliest cluster of each row."""
        numbers: NDArray[np.int64] = self.predict_proba(X).argmax(axis=1)
        return numbers

    def head(self) -> CategoryHead:
        """The fitted arrays and thresholds, for an artefact; categories are named.

        Raises
        ------
        NotFittedError
            `fit` has not been called.
        """
        head = super().head()
        return replace(head, classes_=np.array([f"cluster-{k:03d}" for k in head.classes_]))

    def _gate(self, points: Floats, labels: NDArray[np.int64], centres: Floats) -> None:
        """Set the logits' arrays: ``-|x - c|^2``, less what all clusters share."""
        unseen = np.zeros((len(centres), points.shape[1] - centres.shape[1]))
        self.coef_ = np.hstack([2.0 * self.sharpness * centres, unseen])
        norms: Floats = np.sum(centres**2, axis=1)
        self.intercept_ = -self.sharpness * norms


class LeastSquaresRouter(ClusterRouter):
    """K-means, then a gate fitted to the clusters by least squares, as in MixER.

    The gate sees the whole embedding, also the features that the clusters were not formed on.
    Reconstruction; equations ours: ridge regression of the one-hot cluster on ``x``, logits
    ``sharpness`` times its output.
    """

    def _gate(self, points: Floats, labels: NDArray[np.int64], centres: Floats) -> None:
        inputs = np.hstack([points, np.ones((len(points), 1))]).astype(np.float64)
        gram = inputs.T @ inputs + np.eye(inputs.shape[1])
        targets = np.eye(len(centres))[labels]
        weights = self.sharpness * np.linalg.solve(gram, inputs.T @ targets)
        self.coef_ = weights[:-1].T.astype(np.float64)
        self.intercept_ = weights[-1].astype(np.float64)

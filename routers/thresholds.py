"""When a category router should admit that it does not know: thresholds tuned on held-out prompts.

Robust-CoE (arXiv 2412.01868): the thresholds are those under which routing scores best.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from coe.kernels.knn import nearest
from coe.routers.expectation import Expectation
from coe.routers.head import Assessment, CategoryHead

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]

# share of prompts that each candidate leaves certain, most first: ties go to the first
_ENTROPY_COVERAGE = (0.99, 0.95, 0.9, 0.8, 0.6)
_DISTANCE_COVERAGE = (0.99, 0.95, 0.9)


def with_thresholds(
    head: CategoryHead, expectation: Expectation, X: Singles, X_held: Singles, scores: Floats
) -> CategoryHead:
    """``head`` with the thresholds under which routing the held-out prompts scores best.

    Entropy first, then distance. Candidates are quantiles: of the entropies of the held-out
    prompts, and of the distances that training prompts have to each other. Without held-out
    prompts the quantiles of the training prompts leave 99 % certain.

    Parameters
    ----------
    X : (n_train, dim) training embeddings.
    X_held : (n_held, dim) and ``scores`` (n_held, n_experts): what the thresholds are tuned on.
    """
    own = _own_distances(head)
    if not len(X_held):
        doubt = head.assess(X).entropy
        return _cut(head, float(np.quantile(doubt, 0.99)), float(np.quantile(own, 0.99)))
    found = head.assess(X_held)
    known, unknown = routed_scores(expectation, found, X_held, scores)

    def score(entropy: float, distance: float) -> float:
        uncertain = (found.entropy > entropy) | (found.distance > distance)
        return mean_known(np.where(uncertain, unknown, known))

    entropies = [float(np.quantile(found.entropy, share)) for share in _ENTROPY_COVERAGE]
    entropy = max(entropies, key=lambda at: score(at, np.inf))
    distances = [float(np.quantile(own, share)) for share in _DISTANCE_COVERAGE]
    return _cut(head, entropy, max(distances, key=lambda at: score(entropy, at)))


def routed_scores(
    expectation: Expectation, found: Assessment, X: Singles, scores: Floats
) -> tuple[Floats, Floats]:
    """(n,) score of the expert expected to be best: were each prompt recognised, were none."""
    here, none = np.arange(len(scores)), np.zeros(len(scores), dtype=bool)
    known, unknown = (
        scores[here, expectation.of(X, replace(found, uncertain=mask)).quality.argmax(axis=1)]
        for mask in (none, ~none)
    )
    return known, unknown


def mean_known(scores: Floats) -> float:
    """Mean of the scores that are not NaN; 0 without any."""
    known = scores[~np.isnan(scores)]
    return float(known.mean()) if known.size else 0.0


def _cut(head: CategoryHead, entropy: float, distance: float) -> CategoryHead:
    return replace(head, entropy_threshold=entropy, distance_threshold=distance)


def _own_distances(head: CategoryHead) -> Floats:
    """Mean distances of the kept training prompts to their neighbours, without themselves."""
    _, distances = nearest(head.points_, head.points_, head.n_neighbors + 1)
    # a training prompt is its own neighbour at distance 0: it is not counted
    own: Floats = distances.sum(axis=1) / max(distances.shape[1] - 1, 1)
    return own

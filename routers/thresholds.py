"""When a category router should admit that it does not know: thresholds tuned on held-out prompts.

Robust-CoE (arXiv 2412.01868): the thresholds are those under which routing scores best.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from coe.kernels.knn import nearest
from coe.routers.expectation import Expectation
from coe.routers.head import CategoryHead

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
    doubt = head.assess(X_held).entropy
    entropies = [float(np.quantile(doubt, share)) for share in _ENTROPY_COVERAGE]
    distances = [float(np.quantile(own, share)) for share in _DISTANCE_COVERAGE]
    candidates = [_cut(head, at, np.inf) for at in entropies]
    cut = _best(candidates, expectation, X_held, scores)
    candidates = [_cut(cut, cut.entropy_threshold, at) for at in distances]
    return _best(candidates, expectation, X_held, scores)


def routed_score(
    head: CategoryHead, expectation: Expectation, X: Singles, scores: Floats
) -> tuple[float, float]:
    """Mean known score of the expert expected to be best, and the share of certain prompts."""
    found = head.assess(X)
    picks = expectation.of(X, found).quality.argmax(axis=1)
    routed = scores[np.arange(len(scores)), picks]
    known = routed[~np.isnan(routed)]
    score = float(known.mean()) if known.size else 0.0
    return score, float(1.0 - found.uncertain.mean())


def _best(
    heads: list[CategoryHead], expectation: Expectation, X: Singles, scores: Floats
) -> CategoryHead:
    return max(heads, key=lambda head: routed_score(head, expectation, X, scores)[0])


def _cut(head: CategoryHead, entropy: float, distance: float) -> CategoryHead:
    return replace(head, entropy_threshold=entropy, distance_threshold=distance)


def _own_distances(head: CategoryHead) -> Floats:
    """Mean distances of the kept training prompts to their neighbours, without themselves."""
    _, distances = nearest(head.points_, head.points_, head.n_neighbors + 1)
    # a training prompt is its own neighbour at distance 0: it is not counted
    own: Floats = distances.sum(axis=1) / max(distances.shape[1] - 1, 1)
    return own

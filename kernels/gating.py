"""Probabilities from gate logits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows that sum to 1, proportional to ``exp(logits)``; stable for large logits.

    ``-inf`` gives probability 0. A row of only ``-inf`` gives NaN: it has no distribution.

    Parameters
    ----------
    logits : (n, n_classes), n_classes >= 1.
    """
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: NDArray[np.float64] = shifted / shifted.sum(axis=1, keepdims=True)
    return probabilities


def entropy(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Entropy of each row in nats, in [0, ln n_classes]; ``0 ln 0`` counts as 0.

    Parameters
    ----------
    probabilities : (n, n_classes) rows that sum to 1.
    """
    logs = np.log(probabilities, where=probabilities > 0, out=np.zeros_like(probabilities))
    total: NDArray[np.float64] = -np.sum(probabilities * logs, axis=1)
    return np.maximum(total, 0.0)

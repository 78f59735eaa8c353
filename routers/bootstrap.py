"""Paired bootstrap over prompts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_BATCH = 200


def resampled_means(values: Floats, n_resamples: int, rng: np.random.Generator) -> Floats:
    """(n_resamples, n_columns) column means over prompts drawn with replacement.

    All columns share the draws, so differences of columns are paired.

    Parameters
    ----------
    values : (n_prompts, n_columns), n_prompts >= 1.
    """
    n = len(values)
    means = np.empty((n_resamples, values.shape[1]))
    for start in range(0, n_resamples, _BATCH):
        size = min(_BATCH, n_resamples - start)
        counts = rng.multinomial(n, np.full(n, 1.0 / n), size=size)
        means[start : start + size] = counts @ values / n
    return means


def interval(means: Floats) -> Floats:
    """(n_columns, 2) the central 95 % of resampled means (n_resamples, n_columns)."""
    bounds: Floats = np.quantile(means, [0.025, 0.975], axis=0).T
    return bounds

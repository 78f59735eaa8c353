"""What nearest neighbours say: their votes, or their mean scores. Compiled when imported."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from coe.kernels.compiled import compiled


@compiled("f8[:,::1](i8[:,:], f8[:,:])")
def neighbour_means(indices: NDArray[np.int64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n_queries, n_columns) mean of the neighbours' rows of ``values``.

    Rows that are 1 in the column of a class and 0 elsewhere make it a vote. NaN is kept.
    O(n_queries k n_columns), without a copy of the neighbours' rows.

    Parameters
    ----------
    indices : (n_queries, k), k >= 1, rows of ``values``; they are not checked.
    values : (n_points, n_columns).
    """
    means = np.zeros((indices.shape[0], values.shape[1]))
    for i in range(indices.shape[0]):
        for j in indices[i]:
            for c in range(values.shape[1]):
                means[i, c] += values[j, c] / indices.shape[1]
    return means

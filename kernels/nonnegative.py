"""Least squares with coefficients that are not negative."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import NDArray


def nonnegative_least_squares(
    design: NDArray[np.float64], target: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The coefficients ``x >= 0`` of the smallest ``|design x - target|``.

    Every set of columns is solved without the bound, and the best solution that keeps it wins:
    the optimum is the plain solution of the columns it uses. Sets of dependent columns are
    passed over, as an optimum with independent ones exists; so ties are broken towards the fewer
    and the earlier columns, and columns of zeroes get 0. O(2^n_columns n_rows n_columns^2):
    meant for a handful of columns.

    Parameters
    ----------
    design : (n_rows, n_columns), finite, n_rows >= 1.
    target : (n_rows,), finite.

    Returns
    -------
    coefficients : (n_columns,), >= 0.
    """
    n_columns = design.shape[1]
    scale = np.linalg.norm(design, axis=0)
    unit = design / np.where(scale > 0, scale, 1.0)
    best, least = np.zeros(n_columns), float(target @ target)
    for size in range(1, n_columns + 1):
        for chosen in combinations(range(n_columns), size):
            columns = list(chosen)
            solved, _, rank, _ = np.linalg.lstsq(unit[:, columns], target, rcond=None)
            if rank < size or solved.min() < 0:
                continue
            left = target - unit[:, columns] @ solved
            if left @ left < least:
                least = float(left @ left)
                best = np.zeros(n_columns)
                best[columns] = solved / scale[columns]
    return best

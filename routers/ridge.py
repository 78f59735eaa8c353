"""Ridge regression of many targets at once, with held-out predictions almost for free."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from coe.routers.residual import with_constant

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class FoldedRidge:
    """Eigenvectors of the embeddings' squares, with each fold left out and with none.

    Preparing costs O(n dim^2 + n_folds dim^3) once; every fit after that, whatever its penalty,
    O(dim^2) a target and one pass over the rows.

    Parameters
    ----------
    rows : (n, dim + 1), embeddings with a constant 1.
    fold : (n,) fold of each row.
    spectra : (n_folds + 1, dim + 1) ascending eigenvalues of ``X' X`` without each fold; the
        last of all rows. ``vectors`` (n_folds + 1, dim + 1, dim + 1) their eigenvectors, columns.
    """

    rows: Singles
    fold: NDArray[np.int64]
    spectra: Floats
    vectors: Floats

    @classmethod
    def of(cls, X: Singles, fold: NDArray[np.int64]) -> Self:
        """Prepare for embeddings ``X`` (n, dim)."""
        rows = with_constant(X)
        n_folds = int(fold.max()) + 1 if fold.size else 1
        grams = np.array([(rows[fold == k].T @ rows[fold == k]) for k in range(n_folds)])
        total = grams.sum(axis=0, dtype=np.float64)
        pairs = [np.linalg.eigh(total - gram) for gram in grams] + [np.linalg.eigh(total)]
        return cls(rows, fold, np.array([s for s, _ in pairs]), np.array([v for _, v in pairs]))

    def fit(self, Y: Floats, penalty: float) -> Singles:
        """(n_targets, dim + 1) coefficients over all rows; unknown targets (NaN) count as 0."""
        return self._solve(-1, self._products(Y).sum(axis=0), penalty)

    def held_out(self, Y: Floats, penalty: float) -> Floats:
        """(n, n_targets) predictions of each row by the fit without its fold."""
        products = self._products(Y)
        total = products.sum(axis=0)
        found = np.zeros(Y.shape)
        for k, product in enumerate(products):
            mine = self.fold == k
            coef = self._solve(k, total - product, penalty)
            found[mine] = self.rows[mine] @ coef.T
        return found

    def axes(self, n_axes: int) -> tuple[Singles, Floats]:
        """The leading principal axes (n_axes, dim + 1), orthonormal, and their eigenvalues."""
        leading = self.vectors[-1][:, ::-1][:, :n_axes].T
        # an axis has no sign of its own: its largest entry is made positive, for repeatability
        largest = np.take_along_axis(leading, np.abs(leading).argmax(axis=1)[:, None], axis=1)
        signed = leading * np.sign(largest)
        return signed.astype(np.float32), np.maximum(self.spectra[-1][::-1][:n_axes], 0.0)

    def _products(self, Y: Floats) -> Floats:
        known = np.nan_to_num(Y).astype(np.float32)
        masks = (self.fold == k for k in range(len(self.spectra) - 1))
        return np.array([(self.rows[m].T @ known[m]).astype(np.float64) for m in masks])

    def _solve(self, k: int, product: Floats, penalty: float) -> Singles:
        """``(X'X + penalty I)^-1 product`` over all rows but fold ``k``; -1: over all."""
        vectors = self.vectors[k]
        scale = 1.0 / (np.maximum(self.spectra[k], 0.0) + penalty)
        coef = vectors @ (scale[:, None] * (vectors.T @ product))
        return np.ascontiguousarray(coef.T.astype(np.float32))

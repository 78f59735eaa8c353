"""What a prompt's embedding says of each expert beyond its category: the gate logits of MoE2."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from coe.routers.quality import Expected

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class QualityResidual:
    """Ridge regressions, one per expert, of what the category table leaves unexplained.

    Each predicts score minus the table's score from the embedding, so that a prompt's quality
    is ``table + coef @ [x, 1]``. Trained per expert, the estimates stay right on every subset
    of experts (the preserved property of MoE2; reconstruction, equations ours).

    Parameters
    ----------
    coef : (n_experts, dim + 1), the last column for a constant 1.
    noise : (n_experts,) standard deviation of a score about its estimate.
    axes : (n_axes, dim + 1) leading principal axes of the training embeddings, orthonormal.
    spectrum : (n_axes,) their eigenvalues in ``X' X``.
    penalty : the ridge penalty, positive.
    """

    coef: Singles
    noise: Floats
    axes: Singles
    spectrum: Floats
    penalty: float

    def refine(self, expected: Expected, X: Singles, known: NDArray[np.bool_]) -> Expected:
        """``expected`` with the residual added where ``known``, clipped to [0, 1].

        The standard error becomes that of the sum.

        Parameters
        ----------
        X : (n_prompts, dim) embeddings.
        known : (n_prompts,) prompts whose category was recognised.
        """
        rows = with_constant(X)
        shift = np.where(known[:, None], (rows @ self.coef.T).astype(np.float64), 0.0)
        error = np.where(known[:, None], self._standard_error(rows), 0.0)
        return replace(
            expected,
            quality=np.clip(expected.quality + shift, 0.0, 1.0),
            quality_se=np.hypot(expected.quality_se, error),
        )

    def _standard_error(self, rows: Singles) -> Floats:
        """(n_prompts, n_experts): noise times the root of the ridge leverage.

        The leverage ``x' (X'X + a I)^-1 x`` is exact on the leading axes; what lies outside is
        taken to have been seen never, so that the error is never understated.
        """
        along = (rows @ self.axes.T).astype(np.float64) ** 2
        outside = np.maximum((rows.astype(np.float64) ** 2).sum(axis=1) - along.sum(axis=1), 0.0)
        leverage = (along / (self.spectrum + self.penalty)).sum(axis=1) + outside / self.penalty
        error: Floats = np.sqrt(leverage)[:, None] * self.noise
        return error


@dataclass(frozen=True, slots=True)
class LengthResidual:
    """Ridge regressions, one per expert, of how much longer an answer is than the table says.

    Parameters
    ----------
    coef : (n_experts, dim + 1), of the logarithm of the ratio; the last column for a constant 1.
    mean_scale, cautious_scale : (n_experts,) mean and cautious length over the estimate.
    """

    coef: Singles
    mean_scale: Floats
    cautious_scale: Floats

    def refine(self, expected: Expected, X: Singles, known: NDArray[np.bool_]) -> Expected:
        """``expected`` with the lengths of recognised prompts replaced; see `QualityResidual`."""
        estimate = expected.mean_tokens * self.ratio(X)
        chosen = known[:, None]
        return replace(
            expected,
            mean_tokens=np.where(chosen, estimate * self.mean_scale, expected.mean_tokens),
            cautious_tokens=np.where(
                chosen, estimate * self.cautious_scale, expected.cautious_tokens
            ),
        )

    def ratio(self, X: Singles) -> Floats:
        """(n_prompts, n_experts) estimated ratios, between a tenth and ten."""
        ratio: Floats = np.exp(np.clip(with_constant(X) @ self.coef.T, -2.3, 2.3)).astype(float)
        return ratio


def with_constant(X: Singles) -> Singles:
    """``X`` with a last column of ones."""
    return np.hstack([X, np.ones((len(X), 1), dtype=np.float32)])

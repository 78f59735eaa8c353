"""What is expected of every expert on a prompt: the table, refined, and who is never beaten."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from coe.routers.head import Assessment
from coe.routers.quality import Expected, Figures, QualityTable
from coe.routers.residual import LengthResidual, QualityResidual

_LEAD = 1e-9  # by which an incumbent is ahead of the rest, at least: a tie could go to another


@dataclass(frozen=True, slots=True)
class Expectation:
    """Quality and answer length per expert, from the category and from the embedding.

    Parameters
    ----------
    table : the category-to-expert table.
    residual, lengths : what the embedding adds; ``None`` where it did not help in
        cross-validation.
    incumbent : column of an expert that no other is expected to match on any prompt, because
        nothing learned from the outcomes beat it on held-out prompts: the router *declines*
        to route for quality, and still routes for prices and ceilings. ``None``: it routes.
    """

    table: QualityTable
    residual: QualityResidual | None = None
    lengths: LengthResidual | None = None
    incumbent: int | None = None

    @property
    def expert_ids(self) -> tuple[str, ...]:
        """Names of the columns."""
        return self.table.expert_ids

    @property
    def categories(self) -> tuple[str, ...]:
        """Names of the table's rows; the last is the one over all prompts."""
        return self.table.categories

    def of(self, X: NDArray[np.float32], assessment: Assessment) -> Expected:
        """What each expert is expected to do with each prompt.

        Parameters
        ----------
        X : (n_prompts, dim) embeddings.
        assessment : what the category router says of them. Prompts that it is uncertain about
            get overall averages.
        """
        known = ~assessment.uncertain
        expected = self.table.expected(assessment.probabilities, assessment.uncertain)
        if self.residual is not None:
            expected = self.residual.refine(expected, X, known)
        if self.lengths is not None:
            expected = self.lengths.refine(expected, X, known)
        return replace(expected, quality=self.led(expected.quality))

    def overall(self, expert_id: str) -> Figures | None:
        """What an expert is expected to do with a prompt of which nothing is known.

        ``None``: the table does not know it.
        """
        try:
            k = self.table.expert_ids.index(expert_id)
        except ValueError:
            return None
        figures = self.table.overall(k)
        if self.incumbent is None:
            return figures
        best = max(self.table.overall(self.incumbent).quality, _LEAD)
        quality = best if k == self.incumbent else min(figures.quality, best - _LEAD)
        return figures._replace(quality=quality)

    def led(self, quality: NDArray[np.float64]) -> NDArray[np.float64]:
        """``quality`` (n_prompts, n_experts) with the incumbent, if there is one, ahead of all."""
        if self.incumbent is None:
            return quality
        best = np.maximum(quality[:, self.incumbent], _LEAD)
        led = np.minimum(quality, best[:, None] - _LEAD)
        led[:, self.incumbent] = best
        return led

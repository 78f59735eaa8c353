"""The category-to-expert table: step two of CoE's two-step routing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from coe.core import GENERAL

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Expected:
    """What each expert is expected to do with one prompt.

    ``quality`` (n_experts,) mean score in [0, 1]; ``quality_se`` its standard error;
    ``mean_tokens`` (n_experts,) the answer's mean length, ``cautious_tokens`` a high quantile.
    """

    quality: Floats
    quality_se: Floats
    mean_tokens: Floats
    cautious_tokens: Floats


@dataclass(frozen=True, slots=True)
class QualityTable:
    """Mean score and answer length of every expert in every category.

    Parameters
    ----------
    categories : (n_categories,) names; the last is `GENERAL`, the row over all prompts.
    expert_ids : (n_experts,) names of the columns.
    quality, quality_se, mean_tokens, cautious_tokens : (n_categories, n_experts).
    """

    categories: tuple[str, ...]
    expert_ids: tuple[str, ...]
    quality: Floats
    quality_se: Floats
    mean_tokens: Floats
    cautious_tokens: Floats

    @classmethod
    def fit(
        cls,
        category: NDArray[np.str_],
        expert_ids: tuple[str, ...],
        scores: Floats,
        tokens: Floats,
        shrinkage: float = 20.0,
        quantile: float = 0.9,
    ) -> Self:
        """The table of these outcomes, shrunk towards each expert's overall mean.

        ``(n_c w_ce + m w_.e) / (n_c + m)`` with ``m = shrinkage`` prompts, against the
        winner's curse. Missing cells (NaN) are left out of every mean; an expert without any
        score in a category has its overall mean there.

        Parameters
        ----------
        category : (n_prompts,) names; a prompt whose name is empty or `GENERAL` counts only in the
            general row.
        scores : (n_prompts, n_experts) in [0, 1] or NaN; every expert has at least one score.
        tokens : (n_prompts, n_experts) answer lengths or NaN, which then count as unknown;
            an expert without any length is taken to answer in 256 tokens.
        quantile : the share of answers that are no longer than ``cautious_tokens``.
        """
        names = sorted(set(category.tolist()) - {"", GENERAL})
        rows = [category == name for name in names] + [np.ones(category.size, dtype=bool)]
        overall = np.nanmean(scores, axis=0)
        quality, spread = [], []
        for row in rows:
            n = np.sum(~np.isnan(scores[row]), axis=0)
            total = np.nansum(scores[row], axis=0)
            mean = (total + shrinkage * overall) / (n + shrinkage)
            quality.append(mean)
            spread.append(np.sqrt(mean * (1 - mean) / (n + shrinkage)))
        return cls(
            categories=(*names, GENERAL),
            expert_ids=expert_ids,
            quality=np.array(quality),
            quality_se=np.array(spread),
            mean_tokens=np.array([_lengths(tokens[row], np.mean) for row in rows]),
            cautious_tokens=np.array(
                [_lengths(tokens[row], lambda known: np.quantile(known, quantile)) for row in rows]
            ),
        )

    def expected(self, probabilities: Floats, uncertain: bool) -> Expected:
        """The mixture of the category rows, or the `GENERAL` row when ``uncertain``.

        Parameters
        ----------
        probabilities : (n_categories - 1,) over the categories without `GENERAL`.
        """
        if uncertain:
            return Expected(
                self.quality[-1],
                self.quality_se[-1],
                self.mean_tokens[-1],
                self.cautious_tokens[-1],
            )
        return Expected(
            quality=probabilities @ self.quality[:-1],
            quality_se=np.sqrt(probabilities**2 @ self.quality_se[:-1] ** 2),
            mean_tokens=probabilities @ self.mean_tokens[:-1],
            cautious_tokens=probabilities @ self.cautious_tokens[:-1],
        )


def _lengths(tokens: Floats, statistic: Callable[[Floats], np.floating]) -> list[float]:
    """The statistic of each column's known lengths."""
    columns = [column[~np.isnan(column)] for column in tokens.T]
    return [float(statistic(known)) if known.size else 256.0 for known in columns]

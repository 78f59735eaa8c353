"""The category-to-expert table: step two of CoE's two-step routing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from coe.core import GENERAL

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Expected:
    """What each expert is expected to do with each prompt, arrays of (n_prompts, n_experts).

    ``quality`` mean score in [0, 1]; ``quality_se`` its standard error; ``mean_tokens`` the
    answer's mean length, ``cautious_tokens`` a high quantile.
    """

    quality: Floats
    quality_se: Floats
    mean_tokens: Floats
    cautious_tokens: Floats


class Figures(NamedTuple):
    """What one expert is expected to do with one prompt, as in `Expected`."""

    quality: float
    quality_se: float
    mean_tokens: float
    cautious_tokens: float


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
    _overall: tuple[Figures, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        rows = (self.quality, self.quality_se, self.mean_tokens, self.cautious_tokens)
        overall = tuple(
            Figures(*of) for of in zip(*(row[-1].tolist() for row in rows), strict=True)
        )
        object.__setattr__(self, "_overall", overall)

    @classmethod
    def fit(
        cls,
        category: NDArray[np.str_],
        expert_ids: tuple[str, ...],
        scores: Floats,
        tokens: Floats,
        shrinkage: float = 20.0,
        quantile: float = 0.9,
        parents: Mapping[str, str] | None = None,
    ) -> Self:
        """The table of these outcomes, shrunk towards each expert's overall mean.

        ``(n_c w_ce + m w_.e) / (n_c + m)`` with ``m = shrinkage`` prompts, against the
        winner's curse. Missing cells (NaN) are left out of every mean; an expert without any
        score in a category has its overall mean there. A category with a parent is shrunk
        towards the parent's row, which is the shrunk mean over all of the parent's children.

        Parameters
        ----------
        category : (n_prompts,) names; a prompt whose name is empty or `GENERAL` counts only in the
            general row.
        scores : (n_prompts, n_experts) in [0, 1] or NaN; every expert has at least one score.
        tokens : (n_prompts, n_experts) answer lengths or NaN, which then count as unknown;
            an expert without any length is taken to answer in 256 tokens.
        quantile : the share of answers that are no longer than ``cautious_tokens``.
        parents : the wider category that a category belongs to, where there is one.
        """
        names = sorted(set(category.tolist()) - {"", GENERAL})
        rows = [category == name for name in names] + [np.ones(category.size, dtype=bool)]
        quality = category_means(category, names, scores, shrinkage, parents)
        n = np.array([np.sum(~np.isnan(scores[row]), axis=0) for row in rows])
        return cls(
            categories=(*names, GENERAL),
            expert_ids=expert_ids,
            quality=quality,
            quality_se=np.sqrt(quality * (1 - quality) / (n + shrinkage)),
            mean_tokens=np.array([_lengths(tokens[row], np.mean) for row in rows]),
            cautious_tokens=np.array(
                [_lengths(tokens[row], lambda known: np.quantile(known, quantile)) for row in rows]
            ),
        )

    def overall(self, k: int) -> Figures:
        """What is expected of expert ``k`` where nothing is known of the prompt: `GENERAL`."""
        return self._overall[k]

    def expected(self, probabilities: Floats, uncertain: NDArray[np.bool_]) -> Expected:
        """Per prompt the mixture of the category rows; the `GENERAL` row where ``uncertain``.

        Parameters
        ----------
        probabilities : (n_prompts, n_categories - 1) over the categories without `GENERAL`.
        uncertain : (n_prompts,).
        """
        weights = np.zeros((len(probabilities), len(self.categories)))
        weights[:, :-1] = probabilities
        weights[uncertain] = 0.0
        weights[uncertain, -1] = 1.0
        return Expected(
            quality=weights @ self.quality,
            quality_se=np.sqrt(weights**2 @ self.quality_se**2),
            mean_tokens=weights @ self.mean_tokens,
            cautious_tokens=weights @ self.cautious_tokens,
        )


def category_means(
    category: NDArray[np.str_],
    names: Sequence[str],
    scores: Floats,
    shrinkage: float,
    parents: Mapping[str, str] | None = None,
) -> Floats:
    """(n_names + 1, n_experts) shrunk mean scores, the last row over all prompts.

    See `QualityTable.fit`; every expert has at least one score.
    """
    overall = np.nanmean(scores, axis=0)
    parents = parents or {}
    wider: dict[str, Floats] = {}
    for parent in set(parents.values()):
        mine = np.isin(category, [name for name in names if parents.get(name) == parent])
        wider[parent] = _shrunk(scores[mine], overall, shrinkage)
    priors = [wider[parents[name]] if name in parents else overall for name in names]
    rows = [
        _shrunk(scores[category == name], prior, shrinkage)
        for name, prior in zip(names, priors, strict=True)
    ]
    return np.array([*rows, _shrunk(scores, overall, shrinkage)])


def _shrunk(scores: Floats, prior: Floats, shrinkage: float) -> Floats:
    """Column means of ``scores`` with ``shrinkage`` more prompts that score the prior."""
    n = np.sum(~np.isnan(scores), axis=0)
    mean: Floats = (np.nansum(scores, axis=0) + shrinkage * prior) / (n + shrinkage)
    return mean


def _lengths(tokens: Floats, statistic: Callable[[Floats], np.floating]) -> list[float]:
    """The statistic of each column's known lengths."""
    columns = [column[~np.isnan(column)] for column in tokens.T]
    return [float(statistic(known)) if known.size else 256.0 for known in columns]

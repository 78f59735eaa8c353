"""Learning what to expect of each expert, judged by routing prompts that were held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from coe.routers.category_training import Scheme, class_names
from coe.routers.expectation import Expectation
from coe.routers.outcomes import Outcomes
from coe.routers.quality import QualityTable, category_means
from coe.routers.residual import LengthResidual, QualityResidual
from coe.routers.ridge import FoldedRidge

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]

_SHRINKAGES = (20.0, 100.0)
_PENALTIES = (300.0, 100.0, 30.0, 10.0)
_N_AXES = 64
_QUANTILE = 0.9
_LENGTH_GAIN = 0.02  # share of the error in log length that the embedding must save


@dataclass(frozen=True, slots=True)
class Gain:
    """Mean score of routing minus that of the best single expert, and its standard error."""

    mean: float
    se: float

    @property
    def cautious(self) -> float:
        """The gain less one standard error."""
        return self.mean - self.se


@dataclass(frozen=True, slots=True)
class Trial:
    """One way to expect quality, tried on held-out prompts.

    ``quality`` (n_prompts, n_experts) is what each prompt was expected to score by a fit that
    had not seen it, ``table`` the same by the table alone. ``penalty`` is ``None`` where nothing
    refines the table. ``contrast_error`` is what trials are compared by, see `contrast_error`;
    ``gain`` decides whether to route at all.
    """

    scheme: Scheme
    shrinkage: float
    penalty: float | None
    table: Floats
    quality: Floats
    contrast_error: float
    gain: Gain

    @classmethod
    def of(
        cls,
        scheme: Scheme,
        shrinkage: float,
        penalty: float | None,
        table: Floats,
        quality: Floats,
        scores: Floats,
        single: int,
    ) -> Self:
        """A trial, judged."""
        error, gain = contrast_error(quality, scores), routing_gain(quality, scores, single)
        return cls(scheme, shrinkage, penalty, table, quality, error, gain)


def contrast_error(quality: Floats, scores: Floats) -> float:
    """Mean squared error of the differences between experts, over all prompts.

    Both sides are taken about their mean over the experts of the prompt, so that knowing how
    hard a prompt is counts for nothing: only who does better on it does. A steadier guide than
    the score of the winner, which hangs on the few prompts where the winner changes. Unknown
    scores are left out.
    """
    known = ~np.isnan(scores)
    errors = np.where(known, quality - np.nan_to_num(scores), 0.0)
    n = np.maximum(known.sum(axis=1, keepdims=True), 1)
    centred = np.where(known, errors - errors.sum(axis=1, keepdims=True) / n, 0.0)
    return float((centred**2).sum() / max(known.sum(), 1))


def routing_gain(quality: Floats, scores: Floats, single: int) -> Gain:
    """What routing each prompt to its highest ``quality`` gains over always asking ``single``.

    Ties go to ``single``, then to the first expert. Prompts on which either score is unknown
    are left out; without any, the gain is 0.
    """
    ties_to_single = quality.copy()
    ties_to_single[:, single] += 1e-12
    picks = ties_to_single.argmax(axis=1)
    gains = scores[np.arange(len(scores)), picks] - scores[:, single]
    gains = gains[~np.isnan(gains)]
    if not gains.size:
        return Gain(0.0, 0.0)
    return Gain(float(gains.mean()), float(gains.std() / np.sqrt(gains.size)))


def trials(
    scheme: Scheme, probabilities: Floats, scores: Floats, ridge: FoldedRidge, single: int
) -> list[Trial]:
    """Every way to expect quality over one scheme, the plainest first.

    Parameters
    ----------
    probabilities : (n_prompts, n_classes) of the categories, held out.
    scores : (n_prompts, n_experts) in [0, 1] or NaN.
    single : the best single expert.
    """
    found = []
    for shrinkage in _SHRINKAGES:
        table = _held_out_table(scheme, probabilities, scores, ridge.fold, shrinkage)
        found.append(Trial.of(scheme, shrinkage, None, table, table, scores, single))
        for penalty in _PENALTIES:
            shift = ridge.held_out(scores - table, penalty)
            quality = np.clip(table + shift, 0.0, 1.0)
            found.append(Trial.of(scheme, shrinkage, penalty, table, quality, scores, single))
    return found


def best(found: Sequence[Trial]) -> Trial:
    """The trial of the least contrast error; of equals the plainest."""
    return min(found, key=lambda trial: trial.contrast_error)


def fit_expectation(
    trial: Trial, probabilities: Floats, rows: Outcomes, ridge: FoldedRidge, single: int
) -> Expectation:
    """What the winning trial expects, learned from all training rows.

    When its cautious gain is negative the router declines: nobody is expected to beat
    ``single``.
    """
    scheme, scores = trial.scheme, rows.scores
    table = QualityTable.fit(
        scheme.labels, rows.expert_ids, scores, rows.tokens, trial.shrinkage, parents=scheme.parents
    )
    residual = None
    if trial.penalty is not None:
        residual = _residual(scores - trial.table, scores - trial.quality, ridge, trial.penalty)
    lengths = _lengths(table, probabilities, rows.tokens, ridge)
    return Expectation(table, residual, lengths, single if trial.gain.cautious < 0 else None)


def held_out_lengths(
    expectation: Expectation, probabilities: Floats, tokens: Floats, ridge: FoldedRidge
) -> Floats:
    """(n_prompts, n_experts) mean answer lengths, as expected by fits that had not seen the prompt.

    Means over categories, which one prompt hardly moves, have seen it.

    Parameters
    ----------
    probabilities : (n_prompts, n_classes) of the categories, held out.
    tokens : (n_prompts, n_experts) or NaN.
    """
    base = _base_lengths(expectation.table, probabilities)
    if expectation.lengths is None:
        return base
    shift, _ = _best_shift(base, tokens, ridge)
    estimate: Floats = _ratio(shift) * base * expectation.lengths.mean_scale
    return estimate


def _held_out_table(
    scheme: Scheme,
    probabilities: Floats,
    scores: Floats,
    fold: NDArray[np.int64],
    shrinkage: float,
) -> Floats:
    """(n_prompts, n_experts) quality by the table of the other folds."""
    names = class_names(scheme)
    found = np.empty(scores.shape)
    for k in np.unique(fold):
        mine = fold == k
        # an expert known in this fold alone: better its own mean than none
        learnt = ~mine if np.any(~np.isnan(scores[~mine]), axis=0).all() else mine | ~mine
        table = category_means(
            scheme.labels[learnt], names, scores[learnt], shrinkage, scheme.parents
        )
        found[mine] = _mixed(probabilities[mine]) @ table
    return found


def _mixed(probabilities: Floats) -> Floats:
    """Rows over the categories and, for what they leave of 1, the row over all prompts."""
    rest = np.clip(1.0 - probabilities.sum(axis=1, keepdims=True), 0.0, 1.0)
    return np.hstack([probabilities, rest])


def _residual(
    targets: Floats, errors: Floats, ridge: FoldedRidge, penalty: float
) -> QualityResidual:
    axes, spectrum = ridge.axes(_N_AXES)
    return QualityResidual(
        coef=ridge.fit(targets, penalty),
        noise=np.sqrt(np.nanmean(errors**2, axis=0)),
        axes=axes,
        spectrum=spectrum,
        penalty=penalty,
    )


def _lengths(
    table: QualityTable, probabilities: Floats, tokens: Floats, ridge: FoldedRidge
) -> LengthResidual | None:
    """Lengths from the embedding, if they beat the table on held-out prompts.

    The penalty with the least absolute error of log length is kept.
    """
    if not np.any(~np.isnan(tokens), axis=0).all():
        return None
    base = _base_lengths(table, probabilities)
    targets = np.log(np.maximum(tokens, 1.0) / base)
    constant = np.nanmean(np.abs(targets - np.nanmedian(targets, axis=0)))
    shift, penalty = _best_shift(base, tokens, ridge)
    if np.nanmean(np.abs(targets - shift)) >= (1.0 - _LENGTH_GAIN) * constant:
        return None
    ratio = tokens / (base * _ratio(shift))
    return LengthResidual(
        coef=ridge.fit(targets, penalty),
        mean_scale=np.nanmean(ratio, axis=0),
        cautious_scale=np.nanquantile(ratio, _QUANTILE, axis=0),
    )


def _base_lengths(table: QualityTable, probabilities: Floats) -> Floats:
    """(n_prompts, n_experts) lengths by the table alone."""
    lengths: Floats = np.maximum(_mixed(probabilities) @ table.mean_tokens, 1.0)
    return lengths


def _best_shift(base: Floats, tokens: Floats, ridge: FoldedRidge) -> tuple[Floats, float]:
    """Logarithms of lengths over ``base``, held out, and the penalty of the least error."""
    targets = np.log(np.maximum(tokens, 1.0) / base)
    shifts = {penalty: ridge.held_out(targets, penalty) for penalty in _PENALTIES}
    errors = {p: float(np.nanmean(np.abs(targets - shift))) for p, shift in shifts.items()}
    penalty = min(errors, key=lambda p: errors[p])
    return shifts[penalty], penalty


def _ratio(shift: Floats) -> Floats:
    """As `LengthResidual.ratio`."""
    return np.exp(np.clip(shift, -2.3, 2.3))

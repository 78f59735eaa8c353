"""A device profile learned from measured requests: arrays in, profile out."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coe.device import DeviceProfile
from coe.kernels.nonnegative import nonnegative_least_squares

Floats = NDArray[np.float64]

MIN_PROMPT_LENGTHS = 3
"""Different prompt lengths that a curve with three coefficients needs."""

_FOLDS = 5


@dataclass(frozen=True, slots=True)
class Measurements:
    """Measured requests, or single phases of requests, served one at a time.

    Parameters
    ----------
    prompt_tokens : (n_rows,) >= 0; NaN where only decoding was measured and it is not known.
    output_tokens : (n_rows,) >= 0; 0 where only prefill was measured.
    ttft_ms : (n_rows,) > 0, time to the first token; NaN where only decoding was measured.
    decode_ms : (n_rows,) > 0, time after the first token; NaN where only prefill was measured.
    energy_j : (n_rows,) >= 0, above idle, over the measured phases; NaN where unknown.
    """

    prompt_tokens: Floats
    output_tokens: Floats
    ttft_ms: Floats
    decode_ms: Floats
    energy_j: Floats

    def rows(self, which: NDArray[np.int64] | NDArray[np.bool_]) -> Measurements:
        """The given rows."""
        return Measurements(
            self.prompt_tokens[which],
            self.output_tokens[which],
            self.ttft_ms[which],
            self.decode_ms[which],
            self.energy_j[which],
        )


@dataclass(frozen=True, slots=True)
class FitErrors:
    """Median absolute errors, as shares of the measured figure, on rows that were held out.

    ``latency`` is that of all the time that a row measures: a whole request, or a single phase.
    NaN where no row measures the figure. ``n_ttft``, ``n_latency`` and ``n_energy`` count rows.
    """

    ttft: float
    latency: float
    energy: float
    n_ttft: int
    n_latency: int
    n_energy: int


@dataclass(frozen=True, slots=True)
class _Coefficients:
    curve_ms: Floats  # (3,) per squared prompt token, per prompt token, constant
    token_ms: Floats  # (1,) per output token
    watts: Floats  # (2,) prefill, decode


def fit(name: str, measured: Measurements) -> DeviceProfile:
    """The profile of the smallest relative squared errors, no coefficient negative.

    Three fits: time to the first token by prompt length, time after it by output length, joules
    by the *fitted* time of each phase. Relative errors make a request of 50 ms count as
    much as one of 5 s, and a request that stalled for a minute no more than any other. Watts are 0
    where no row measures joules; so are those of a phase that the rows do not tell apart. (Form
    of the curve: EdgeReasoning, arXiv 2511.01866; the fit is ours.)

    Raises
    ------
    ValueError
        Fewer than `MIN_PROMPT_LENGTHS` prompt lengths have a time to the first token, or no row
        has a time of output tokens.
    """
    n_lengths = np.unique(measured.prompt_tokens[~np.isnan(measured.ttft_ms)]).size
    if n_lengths < MIN_PROMPT_LENGTHS:
        raise ValueError(
            f"ttft_ms: measured at {n_lengths} different prompt_tokens: "
            f"{MIN_PROMPT_LENGTHS} are needed"
        )
    found = _coefficients(measured)
    if not found.token_ms[0] > 0:
        raise ValueError("latency_ms: no row has the time of output tokens")
    a_ms, b_ms, c_ms = (float(ms) for ms in found.curve_ms)
    prefill_w, decode_w = (float(watts) for watts in np.nan_to_num(found.watts))
    tokens_per_s = 1000.0 / float(found.token_ms[0])
    return DeviceProfile(name, a_ms, b_ms, c_ms, tokens_per_s, prefill_w, decode_w)


def held_out_errors(measured: Measurements, rng: np.random.Generator) -> FitErrors:
    """Errors of predictions for rows that the predicting fit has not seen; every row is once.

    Five folds, drawn within the rows of each kind (prefill, decode, whole requests). Joules
    are predicted from tokens alone, for the phases that the row measures. A row that the others
    cannot predict, because it is the only one of its kind, is not counted.
    """
    fold = _folds(measured, rng)
    predicted = np.full((fold.size, 3), np.nan)
    for k in np.unique(fold):
        found = _coefficients(measured.rows(fold != k))
        predicted[fold == k] = _predicted(found, measured.rows(fold == k))
    whole_ms = np.nansum([measured.ttft_ms, measured.decode_ms], axis=0)
    actual = np.column_stack([measured.ttft_ms, whole_ms, measured.energy_j])
    errors = np.abs(predicted / np.where(actual > 0, actual, np.nan) - 1.0)
    known = ~np.isnan(errors)
    ttft, latency, energy = (column[there] for column, there in zip(errors.T, known.T, strict=True))
    return FitErrors(
        _median(ttft), _median(latency), _median(energy), ttft.size, latency.size, energy.size
    )


def _median(values: Floats) -> float:
    return float(np.median(values)) if values.size else math.nan


def _coefficients(measured: Measurements) -> _Coefficients:
    prefill = measured.rows(~np.isnan(measured.ttft_ms))
    decode = measured.rows(~np.isnan(measured.decode_ms))
    tokens = prefill.prompt_tokens
    curve_ms = _relative_fit(
        np.column_stack([tokens**2, tokens, np.ones_like(tokens)]), prefill.ttft_ms
    )
    token_ms = _relative_fit(decode.output_tokens[:, None], decode.decode_ms)
    phases_s = _phases_ms(curve_ms, token_ms, measured) / 1000.0
    metered = (measured.energy_j > 0) & np.isfinite(phases_s).all(axis=1)
    watts = _relative_fit(phases_s[metered], measured.energy_j[metered])
    return _Coefficients(curve_ms, token_ms, watts)


def _phases_ms(curve_ms: Floats, token_ms: Floats, rows: Measurements) -> Floats:
    """(n_rows, 2) predicted time of prefill and decode; 0 for what a row does not measure."""
    tokens = rows.prompt_tokens
    ttft_ms = (curve_ms[0] * tokens + curve_ms[1]) * tokens + curve_ms[2]
    phases_ms = np.column_stack([ttft_ms, rows.output_tokens * token_ms])
    return np.where(np.isnan([rows.ttft_ms, rows.decode_ms]).T, 0.0, phases_ms)


def _relative_fit(design: Floats, target: Floats) -> Floats:
    if not target.size:
        return np.full(design.shape[1], np.nan)
    return nonnegative_least_squares(design / target[:, None], np.ones_like(target))


def _folds(measured: Measurements, rng: np.random.Generator) -> NDArray[np.int64]:
    kinds = np.isnan(measured.ttft_ms) * 2 + np.isnan(measured.decode_ms)
    fold = np.zeros(kinds.size, dtype=np.int64)
    for kind in np.unique(kinds):
        (rows,) = np.nonzero(kinds == kind)
        fold[rng.permutation(rows)] = np.arange(rows.size) % _FOLDS
    return fold


def _predicted(found: _Coefficients, rows: Measurements) -> Floats:
    """(n_rows, 3): time to the first token, time of the measured phases, their joules."""
    phases_ms = _phases_ms(found.curve_ms, found.token_ms, rows)
    energy_j = phases_ms @ found.watts / 1000.0
    return np.column_stack([phases_ms[:, 0], phases_ms.sum(axis=1), energy_j])

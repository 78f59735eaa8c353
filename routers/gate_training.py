"""Fits the retrieval gate: from what experts scored with and without retrieval to four logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.linear_model import LogisticRegression

from coe.errors.files import OutcomesError
from coe.kernels.gating import softmax
from coe.routers.gate import BOTH, HURT, NEED, NEITHER, OUTCOMES, RetrievalGate, known

Floats = NDArray[np.float64]

PENALTIES = (0.001, 0.003, 0.01)
"""Inverse strengths of the L2 penalty that `fit_gate` chooses from."""

_N_FOLDS = 5
_FEW = 25  # questions below which nothing is chosen, outcomes below which nothing is calibrated
# Columns that vary less than this are not blown up to unit variance: the features of a unit-length
# embedding, and words that hardly any question holds.
_LEAST_SCALE = 1 / 6
_TINY = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class _Cells:
    """Pairs of a question and an expert whose scores are both known.

    ``questions`` (n_cells,) row of each; ``X`` (n_cells, d + 1) its features and the expert's
    strength; ``shares`` (n_cells, 4) how much of each of `OUTCOMES` it is, rows sum to 1.
    """

    questions: NDArray[np.int64]
    X: NDArray[Any]
    shares: Floats

    def where(self, mask: NDArray[np.bool_]) -> _Cells:
        return _Cells(self.questions[mask], self.X[mask], self.shares[mask])


def fit_gate(
    features: ArrayLike,
    without: ArrayLike,
    retrieved: ArrayLike,
    strength: ArrayLike,
    neither_weight: float = 0.2,
    penalties: Sequence[float] = PENALTIES,
    folds: ArrayLike | None = None,
) -> RetrievalGate:
    """The gate learned from scores of the same experts without and with retrieval.

    A score of 0 or 1 makes a cell one of need, hurt, both and neither. A score between is divided:
    a cell that scores a without and b with retrieval is both to min(a, b), need to max(b - a, 0),
    hurt to max(a - b, 0) and neither to the rest, which keeps a and b as means.

    The loss is a class-weighted cross-entropy of the four outcomes, in which neither counts
    ``neither_weight``, with an L2 penalty chosen from ``penalties`` in cross-validation by the
    binary cross-entropy of the gate's target: 1 for need, 0 for hurt and for both (right without
    is cheaper), neither left out. Then the logits are calibrated: the class weights are taken out
    of the intercepts, and the four logits are mapped linearly by a regression on those that
    cross-validation gave. The price of retrieval is no part of the fit: `coe.routers.gate.decide`
    weighs it against the calibrated gain, so one gate serves every budget.

    Cells with a missing score (NaN) are left out. An outcome that never occurs has probability 0;
    if but one occurs, it has probability 1. Of fewer than 25 questions nothing is
    cross-validated: the middle penalty is taken, and only the class weights are undone. The
    mapping also needs 25 cells of each outcome. Deterministic.

    Parameters
    ----------
    features : (n, d) of `coe.routers.gate.gate_features`; NaN where missing.
    without, retrieved : (n, n_experts) scores in [0, 1], NaN where unknown.
    strength : (n_experts,) or (n, n_experts) expected quality of each expert without retrieval.
    neither_weight : in (0, 1]; 1 weighs the classes alike.
    penalties : inverse strengths, positive.
    folds : (n,) the fold of each question, so that duplicates stay together; default: five
        folds, dealt out in turn.

    Raises
    ------
    OutcomesError
        The shapes do not agree, a score lies outside [0, 1], an expert has no question with
        both scores, or the folds are fewer than two.
    """
    cells = _cells(features, without, retrieved, strength)
    centre = known(_column_means(cells.X))
    scale = np.maximum(_column_scales(cells.X), _LEAST_SCALE)
    # half the time of double precision; the probabilities agree to the sixth decimal
    design = replace(cells, X=(known(cells.X - centre) / scale).astype(np.float32))
    n = len(np.asarray(features))
    fold = np.arange(n) % _N_FOLDS if folds is None else np.asarray(folds)
    if fold.shape != (n,) or np.unique(fold).size < 2 <= n:
        raise OutcomesError(f"folds must give each of {n} questions one of at least two folds")
    penalty, mapping = sorted(penalties)[len(penalties) // 2], np.eye(4, 5)
    if np.unique(cells.questions).size >= _FEW:
        penalty, logits = _cross_validated(design, fold, penalties, neither_weight)
        mapping = _calibration(logits, cells.shares)
    coef, intercept = _fitted(design, penalty, neither_weight)
    slopes, offsets = mapping[:, :4], mapping[:, 4]
    if np.isfinite(intercept).all():
        coef, intercept = slopes @ coef, slopes @ intercept + offsets
    return RetrievalGate(centre, coef / scale, intercept)


def _cells(
    features: ArrayLike, without: ArrayLike, retrieved: ArrayLike, strength: ArrayLike
) -> _Cells:
    F = np.asarray(features, dtype=np.float64)
    a, b = (np.asarray(scores, dtype=np.float64) for scores in (without, retrieved))
    if F.ndim != 2 or a.ndim != 2 or a.shape != b.shape or len(F) != len(a):
        raise OutcomesError(
            f"features {F.shape}, scores without {a.shape} and with retrieval {b.shape} "
            "must be (n, d) and twice (n, n_experts)"
        )
    given = np.asarray(strength, dtype=np.float64)
    if given.shape not in (a.shape[1:], a.shape):
        raise OutcomesError(f"strength {given.shape} must be {a.shape[1:]} or {a.shape}")
    for scores, name in ((a, "without"), (b, "with")):
        outside = (scores < 0) | (scores > 1)
        if outside.any():
            row, column = np.argwhere(outside)[0]
            raise OutcomesError(
                f"score of expert {column} {name} retrieval on question {row} is "
                f"{scores[row, column]}, not in [0, 1]"
            )
    complete = ~np.isnan(a) & ~np.isnan(b)
    for column in np.flatnonzero(~complete.any(axis=0)):
        raise OutcomesError(
            f"expert {column} has no question scored both with and without retrieval: "
            "collect some, or leave the expert out"
        )
    questions, experts = np.nonzero(complete)
    if not questions.size:
        raise OutcomesError("no question is scored both with and without retrieval")
    own = np.broadcast_to(given, a.shape)[questions, experts]
    X = np.column_stack([F[questions], own])
    return _Cells(questions, X, _shares(a[complete], b[complete]))


def _shares(without: Floats, retrieved: Floats) -> Floats:
    shares = np.zeros((without.size, 4))
    shares[:, BOTH] = np.minimum(without, retrieved)
    shares[:, NEED] = np.maximum(retrieved - without, 0.0)
    shares[:, HURT] = np.maximum(without - retrieved, 0.0)
    shares[:, NEITHER] = 1.0 - np.maximum(without, retrieved)
    return shares


def _column_means(X: Floats) -> Floats:
    """Means of what is known in each column; 0 where nothing is."""
    seen = np.isfinite(X)
    total: Floats = known(X).sum(axis=0) / np.maximum(seen.sum(axis=0), 1)
    return total


def _column_scales(X: Floats) -> Floats:
    """Standard deviations of what is known in each column; 0 where nothing is."""
    return np.sqrt(_column_means((X - _column_means(X)) ** 2))


def _fitted(design: _Cells, penalty: float, neither_weight: float) -> tuple[Floats, Floats]:
    """Coefficients (4, d + 1) and intercepts (4,), the class weights undone."""
    weights = np.ones(len(OUTCOMES))
    weights[NEITHER] = neither_weight
    rows, y = np.nonzero(design.shares > 0)
    coef, intercept = np.zeros((4, design.X.shape[1])), np.full(4, -np.inf)
    present = np.unique(y)
    if present.size == 1:
        intercept[present] = 0.0
        return coef, intercept
    estimator = LogisticRegression(C=penalty, max_iter=2000)
    estimator.fit(design.X[rows], y, sample_weight=design.shares[rows, y] * weights[y])
    # of two classes scikit-learn keeps the logit of the second against the first
    shown = present[-1:] if present.size == 2 else present
    intercept[present] = 0.0
    coef[shown], intercept[shown] = estimator.coef_, estimator.intercept_
    return coef, intercept - np.log(weights)


def _cross_validated(
    design: _Cells, fold: NDArray[np.int64], penalties: Sequence[float], neither_weight: float
) -> tuple[float, Floats]:
    """The penalty of the least loss, and its out-of-fold logits (n_cells, 4)."""
    best, chosen = np.inf, (penalties[0], np.zeros_like(design.shares))
    for penalty in penalties:
        logits = np.zeros_like(design.shares)
        for name in np.unique(fold):
            held_out = fold[design.questions] == name
            if held_out.all() or not held_out.any():
                continue
            coef, intercept = _fitted(design.where(~held_out), penalty, neither_weight)
            logits[held_out] = design.X[held_out] @ coef.T + intercept
        loss = _need_loss(softmax(logits), design.shares)
        if loss < best:
            best, chosen = loss, (penalty, logits)
    return chosen


def _need_loss(p: Floats, shares: Floats) -> float:
    """Cross-entropy of need against hurt and both, summed over what is not neither."""
    right = np.maximum(p[:, NEED] + p[:, HURT] + p[:, BOTH], _TINY)
    need = np.clip(p[:, NEED] / right, _TINY, 1 - _TINY)
    others = shares[:, HURT] + shares[:, BOTH]
    return float(-(shares[:, NEED] * np.log(need) + others * np.log(1 - need)).sum())


def _calibration(logits: Floats, shares: Floats) -> Floats:
    """(4, 5) matrix and offset that turn logits into calibrated ones; the identity if unsure."""
    if not np.isfinite(logits).all() or shares.sum(axis=0).min() < _FEW:
        return np.eye(4, 5)
    centring = np.eye(4) - 1 / 4
    rows, y = np.nonzero(shares > 0)
    estimator = LogisticRegression(C=1.0, max_iter=2000)
    estimator.fit(logits[rows] @ centring, y, sample_weight=shares[rows, y])
    return np.column_stack([estimator.coef_ @ centring, estimator.intercept_])

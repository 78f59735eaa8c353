"""The retrieval gate of an artefact: learned from one table of outcomes, measured on another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from coe.routers.gate import RetrievalGate, decide, gate_features
from coe.routers.gate_training import fit_gate
from coe.routers.outcomes import Outcomes
from coe.routers.passages import LEAST_PRICE
from coe.routers.retrieve import Evidence, Index

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

FEWEST = 100
"""Prompts with both scores below which an expert teaches the gate nothing."""


@dataclass(frozen=True, slots=True, eq=False)
class Lessons:
    """Prompts, some of which experts answered both with and without passages.

    Parameters
    ----------
    rows : their outcomes.
    X : (n_prompts, dim) embeddings.
    entropy : (n_prompts,) of the category router.
    quality : (n_prompts, n_experts) expected without passages.
    evidence : (n_prompts,) what the index has to say on each; ``None``: there was none.
    """

    rows: Outcomes
    X: NDArray[np.float32]
    entropy: Floats
    quality: Floats
    evidence: Sequence[Evidence | None]

    @classmethod
    def of(
        cls,
        rows: Outcomes,
        X: NDArray[np.float32],
        entropy: Floats,
        quality: Floats,
        index: Index | None,
    ) -> Lessons:
        """The lessons of these rows; the index is asked only where there is one to learn."""
        asked = index is not None and paired(rows).any()
        evidence = [index.evidence(p) if index and asked else None for p in rows.prompts]
        return cls(rows, X, entropy, quality, evidence)

    @property
    def features(self) -> Floats:
        """(n_prompts, d) of `gate_features`."""
        return gate_features(self.rows.prompts, self.X, self.entropy, self.evidence)


def paired(rows: Outcomes) -> Bools:
    """(n_prompts, n_experts) where a score is known both with and without passages."""
    both: Bools = ~np.isnan(rows.scores) & ~np.isnan(rows.retrieved_scores)
    return both


def learned(lessons: Lessons, folds: NDArray[np.int64]) -> RetrievalGate | None:
    """The gate of the experts that have both scores on enough prompts; ``None``: none has."""
    taught = paired(lessons.rows).sum(axis=0) >= FEWEST
    if not taught.any():
        return None
    rows = lessons.rows
    return fit_gate(
        lessons.features,
        rows.scores[:, taught],
        rows.retrieved_scores[:, taught],
        lessons.quality[:, taught],
        folds=folds,
    )


def measured(gate: RetrievalGate, lessons: Lessons) -> dict[str, Any]:
    """Figures of the gate at the least price, over all pairs of a prompt and an expert.

    Mean scores of retrieving `never`, `always`, where the `gate` says so, and where it helps (the
    `oracle`, inflated by luck); the share of pairs that the gate retrieves for; and the AUC of
    "better with passages" among what is right in some way, ``None`` where there are not both kinds.
    """
    both = paired(lessons.rows)
    without, retrieved = lessons.rows.scores[both], lessons.rows.retrieved_scores[both]
    if not without.size:
        return {"n_pairs": 0}
    features = lessons.features
    chosen = decide(gate.gain(features, lessons.quality), LEAST_PRICE)[both]
    figures = {
        "score_never": without.mean(),
        "score_always": retrieved.mean(),
        "score_gate": np.where(chosen, retrieved, without).mean(),
        "score_oracle": np.maximum(retrieved, without).mean(),
        "share_retrieved": chosen.mean(),
    }
    rounded = {name: round(float(figure), 4) for name, figure in figures.items()}
    auc = _need_auc(gate.need(features, lessons.quality)[both], without, retrieved)
    return {"n_pairs": without.size, "price": LEAST_PRICE, **rounded, "need_auc": auc}


def curve(gate: RetrievalGate, lessons: Lessons) -> tuple[Floats, Floats]:
    """Mean score against the share retrieved, pairs of the largest gain first.

    Returns
    -------
    share, score : both (n_pairs + 1,), from retrieving never to always; without pairs, empty.
    """
    both = paired(lessons.rows)
    without, retrieved = lessons.rows.scores[both], lessons.rows.retrieved_scores[both]
    if not without.size:
        return np.zeros(0), np.zeros(0)
    order = np.argsort(-gate.gain(lessons.features, lessons.quality)[both], kind="stable")
    gained = np.concatenate([[0.0], np.cumsum((retrieved - without)[order])])
    return np.arange(without.size + 1) / without.size, without.mean() + gained / without.size


def _need_auc(need: Floats, without: Floats, retrieved: Floats) -> float | None:
    right = (without > 0) | (retrieved > 0)
    helped = (retrieved > without)[right]
    if not helped.size or helped.all() or not helped.any():
        return None
    return round(float(roc_auc_score(helped, need[right])), 4)

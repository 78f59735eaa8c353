"""Whether to retrieve: what a frozen retrieval gate gives at serving time, numpy alone.

The gate of ExpertRAG (arXiv 2504.08744), as an offline classifier of what retrieval does to an
answer; reconstruction, equations ours. Retrieval has one of four outcomes for a question and an
expert: right only with it (*need*), right only without it (*hurt*), right anyway (*both*), wrong
anyway (*neither*). One softmax over the four gives both P(right | not retrieved) = hurt + both and
P(right | retrieved) = need + both, so that their difference, the gain, is need - hurt. With z = 1
where it retrieves, a gate's accuracy is Acc_never + P(need, z = 1) - P(hurt, z = 1).

`coe.routers.gate_training` fits it. `gate_features` says what it looks at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from coe.kernels.gating import softmax
from coe.routers import question
from coe.routers.question import CUES, DRAFT, OPENINGS, SURFACE
from coe.routers.retrieve import Evidence

Floats = NDArray[np.float64]

OUTCOMES = ("neither", "need", "hurt", "both")
"""What retrieval can do to the rightness of an answer; last axis of `RetrievalGate.outcomes`."""

NEITHER, NEED, HURT, BOTH = range(4)


@dataclass(frozen=True, slots=True, eq=False)
class Draft:
    """A short answer that an expert gave without retrieval.

    ``embedding`` (dim,) is its vector in the space of the questions.
    """

    text: str
    embedding: NDArray[np.floating[Any]]


def column_names(dim: int, with_drafts: bool = False) -> tuple[str, ...]:
    """Names of the columns of `gate_features` for embeddings of length ``dim``."""
    names = [f"question.{name}" for name in SURFACE]
    names += [f"opening.{name}" for name in OPENINGS]
    names += [f"cue.{name}" for name in CUES]
    names += ["router.entropy", "evidence.present"]
    names += [f"evidence.{field.name}" for field in fields(Evidence)]
    names += [f"embedding.{k}" for k in range(dim)]
    if with_drafts:
        names += ["draft.present", *(f"draft.{name}" for name in DRAFT)]
        names += [f"draft.embedding.{k}" for k in range(dim)]
    return tuple(names)


def gate_features(
    texts: Sequence[str],
    embeddings: ArrayLike,
    router_entropy: ArrayLike,
    evidence: Sequence[Evidence | None],
    drafts: Sequence[Draft | None] | None = None,
) -> Floats:
    """What the gate looks at, (n, d); columns as `column_names`, NaN where something is missing.

    In order: `SURFACE` of the question; whether each of `OPENINGS` and of `CUES` occurs; the
    entropy of the category router; whether there is evidence, and the fields of `Evidence` (the
    number of matching passages as ln(1 + n)); the embedding. With ``drafts``: whether there is
    one, `DRAFT`, and its embedding. `coe.routers.question` says what the names mean.

    Parameters
    ----------
    texts : (n,) questions; never retrieved text.
    embeddings : (n, dim) their vectors.
    router_entropy : (n,) nats; NaN where no router has looked.
    evidence : (n,) ``None`` where there is no index.
    drafts : (n,) ``None`` where there is none. A gate fitted with drafts needs the argument, one
        fitted without must not get it.

    Raises
    ------
    ValueError
        The lengths do not agree.
    """
    vectors = np.asarray(embeddings, dtype=np.float64)
    if vectors.ndim != 2:
        raise ValueError(f"embeddings must be (n, dim), not {vectors.shape}")
    entropy = np.asarray(router_entropy, dtype=np.float64).reshape(len(texts), 1)
    blocks = [
        _matrix([question.surface(text) for text in texts], len(SURFACE)),
        _matrix([question.cues(text) for text in texts], len(OPENINGS) + len(CUES)),
        entropy,
        _matrix([_evidence(found) for found in evidence], 1 + len(fields(Evidence))),
        vectors,
    ]
    if drafts is not None:
        pairs = zip(texts, drafts, strict=True)
        blocks.append(_matrix([_draft(text, draft) for text, draft in pairs], 1 + len(DRAFT)))
        blank = np.full(vectors.shape[1], np.nan)
        rows = [blank if draft is None else draft.embedding for draft in drafts]
        blocks.append(_matrix(rows, vectors.shape[1]))
    return np.hstack(blocks)


@dataclass(frozen=True, slots=True, eq=False)
class RetrievalGate:
    """A fitted retrieval gate, frozen: four logits, linear in features and expert strength.

    Need and hurt differ by expert, so every answer is per expert. The *strength* of an expert is
    its expected quality without retrieval, in [0, 1]: one number for all questions, or one each
    (that of the question's category). Where a feature or a strength is missing (NaN), the mean of
    the training rows stands in for it.

    Parameters
    ----------
    centre_ : (d + 1,) means of the features, then of the strength.
    coef_ : (4, d + 1), ``intercept_`` : (4,), of the logits of `OUTCOMES`; an intercept of -inf
        is an outcome that training never saw.

    Raises
    ------
    ValueError
        The shapes do not agree.
    """

    centre_: Floats
    coef_: Floats
    intercept_: Floats

    def __post_init__(self) -> None:
        if self.centre_.ndim != 1 or not self.centre_.size:
            raise ValueError(f"centre_ must be (d + 1,), not {self.centre_.shape}")
        if self.coef_.shape != (4, self.centre_.size) or self.intercept_.shape != (4,):
            raise ValueError(
                f"coef_ {self.coef_.shape} and intercept_ {self.intercept_.shape} must be "
                f"(4, {self.centre_.size}) and (4,)"
            )
        # an outcome that never was has an intercept of -inf
        weights = np.hstack([self.centre_, self.coef_.ravel()])
        if not np.isfinite(weights).all() or np.isnan(self.intercept_).any():
            raise ValueError("centre_ and coef_ must be finite, intercept_ numbers")

    @property
    def n_features(self) -> int:
        """Columns that `gate_features` must give; the strength is not among them."""
        return self.centre_.size - 1

    def outcomes(self, features: ArrayLike, strength: ArrayLike) -> Floats:
        """(n, n_experts, 4) probabilities of `OUTCOMES`.

        Parameters
        ----------
        features : (n, d) of `gate_features`.
        strength : (n_experts,) or (n, n_experts), NaN where unknown.

        Raises
        ------
        ValueError
            The shapes do not agree with each other or with the fit.
        """
        X = np.asarray(features, dtype=np.float64)
        if X.ndim != 2 or X.shape[1] != self.n_features:
            raise ValueError(f"features {X.shape} must be (n, {self.n_features}): drafts or not?")
        strengths = np.atleast_2d(np.asarray(strength, dtype=np.float64))
        strengths = np.broadcast_to(strengths, (len(X), strengths.shape[1]))
        base = known(X - self.centre_[:-1]) @ self.coef_[:, :-1].T + self.intercept_
        own = known(strengths - self.centre_[-1])[..., None] * self.coef_[:, -1]
        logits = base[:, None, :] + own
        return softmax(logits.reshape(-1, 4)).reshape(logits.shape)

    def p_right(self, features: ArrayLike, strength: ArrayLike) -> tuple[Floats, Floats]:
        """P(right) without retrieval, and with it, both (n, n_experts). As `outcomes`."""
        p = self.outcomes(features, strength)
        return p[..., HURT] + p[..., BOTH], p[..., NEED] + p[..., BOTH]

    def gain(self, features: ArrayLike, strength: ArrayLike) -> Floats:
        """(n, n_experts) P(right | retrieved) - P(right | not), in [-1, 1]. As `outcomes`."""
        p = self.outcomes(features, strength)
        return p[..., NEED] - p[..., HURT]

    def need(self, features: ArrayLike, strength: ArrayLike) -> Floats:
        """(n, n_experts) P(need | right in some way): whether a right answer takes retrieval.

        0 where the gate is certain that the answer is wrong either way. As `outcomes`.
        """
        p = self.outcomes(features, strength)
        right = p[..., NEED] + p[..., HURT] + p[..., BOTH]
        return np.divide(p[..., NEED], right, out=np.zeros_like(right), where=right > 0)

    def to_arrays(self) -> dict[str, Floats]:
        """The arrays to keep, by name; `from_arrays` is the way back."""
        return {"centre": self.centre_, "coef": self.coef_, "intercept": self.intercept_}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> RetrievalGate:
        """The gate of `to_arrays`; whatever else the mapping holds is left alone.

        Raises
        ------
        KeyError
            An array is absent.
        ValueError
            The shapes do not agree.
        """
        centre, coef, intercept = (
            np.asarray(arrays[name], dtype=np.float64) for name in ("centre", "coef", "intercept")
        )
        return cls(centre, coef, intercept)


def decide(gain: ArrayLike, price: ArrayLike) -> NDArray[np.bool_]:
    """Whether to retrieve: where ``gain > price``, in the broadcast shape of the two.

    Parameters
    ----------
    gain : of `RetrievalGate.gain`.
    price : of retrieving, in points of quality: lambda (C_ret + C_ctx), what the search and the
        passages in the prompt cost, times what a unit of cost is worth. +inf never retrieves,
        -inf always does, and a higher price never retrieves more. NaN never does.
    """
    chosen: NDArray[np.bool_] = np.asarray(gain) > np.asarray(price)
    return chosen


def known(values: Floats) -> Floats:
    """The values, with 0 for those that are not finite."""
    return np.where(np.isfinite(values), values, 0.0)


def _matrix(rows: Sequence[ArrayLike], n_columns: int) -> Floats:
    """Rows as a matrix, also when there are none."""
    return np.array(rows, dtype=np.float64).reshape(len(rows), n_columns)


def _evidence(found: Evidence | None) -> list[float]:
    if found is None:
        return [0.0] + [np.nan] * len(fields(Evidence))
    matching = [field.name for field in fields(Evidence)].index("n_matching")
    values = [float(value) for value in astuple(found)]
    values[matching] = np.log1p(values[matching])
    return [1.0, *values]


def _draft(text: str, draft: Draft | None) -> list[float]:
    if draft is None:
        return [0.0] + [np.nan] * len(DRAFT)
    return [1.0, *question.drafted(text, draft.text)]

"""Learning a personal gate from a tenant's own outcomes: tens to hundreds of prompts.

Every way to expect the own expert's quality is tried on held-out prompts: its mean, shrunk towards
the global router's; whether it rises and falls with what the global router expects; and a ridge
regression on the embedding. The one that errs least about the *difference* between own expert and
global router is kept, as `coe.routers.quality_training` does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from coe.errors.files import OutcomesError
from coe.routers.artefact import Artefact
from coe.routers.calibration import reliability
from coe.routers.embed import Embedder
from coe.routers.folds import content_folds
from coe.routers.outcomes import Outcomes
from coe.routers.personal import PersonalGate, Premise, levelled
from coe.routers.quality_training import Gain, contrast_error
from coe.routers.train import embed_all

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Bools = NDArray[np.bool_]
Folds = NDArray[np.int64]

AUTO = "auto"
"""Name of the column with the scores of what the global router delivered."""

_FEWEST = 10  # prompts that both were scored on; with fewer the gate declines
_N_FOLDS = 10
_SHRINKAGE = 10.0
_SLOPES = (1.0, 0.5, 0.0)
_PENALTIES = (30.0, 10.0, 3.0, 1.0)
_QUANTILE = 0.9


@dataclass(frozen=True, slots=True, eq=False)
class Lessons:
    """What a tenant's outcomes teach.

    Parameters
    ----------
    X : (n_prompts, dim) embeddings.
    strength : (n_prompts,) quality that the artefact expects of the best rival, in [0, 1].
    delivered : (n_prompts,) score of the global router's answer; NaN where unknown.
    own : (n_prompts,) score of the own expert, always known.
    """

    X: Singles
    strength: Floats
    delivered: Floats
    own: Floats

    @classmethod
    def of(cls, rows: Outcomes, artefact: Artefact, X: Singles, premise: Premise) -> Self:
        """The lessons of rows that all have a score of the own expert.

        The global router's answer is that of the column ``auto``; without one, of the rival that
        the artefact expects most of, among those with a score on the prompt.
        """
        known = artefact.expectation.expert_ids
        expected = artefact.expectation.of(X, artefact.category.assess(X)).quality
        expected = expected[:, [known.index(name) for name in premise.rivals]]
        own = rows.scores[:, rows.expert_ids.index(premise.expert_id)]
        if AUTO in rows.expert_ids:
            delivered = rows.scores[:, rows.expert_ids.index(AUTO)]
        else:
            scores = rows.columns(premise.rivals).scores
            picks = np.where(np.isnan(scores), -1.0, expected).argmax(axis=1)
            delivered = scores[np.arange(len(scores)), picks]
        return cls(X, expected.max(axis=1), delivered, own)

    def rows(self, mask: Bools) -> Lessons:
        """Those where ``mask`` is true."""
        return Lessons(self.X[mask], self.strength[mask], self.delivered[mask], self.own[mask])

    @property
    def gains(self) -> Floats:
        """(n_prompts,) score of the own expert less that of the global router; NaN if unknown."""
        return self.own - self.delivered


@dataclass(frozen=True, slots=True)
class Base:
    """What is expected before the prompt is read: two means.

    ``level`` as of `PersonalGate`; ``middle`` is the mean of the best rival's levelled quality, and
    ``mean`` that of the own expert's score, shrunk towards it: until it is known better, the own
    expert is taken to be no worse and no better than the global router.
    """

    level: float
    middle: float
    mean: float

    @classmethod
    def of(cls, lessons: Lessons) -> Self:
        """The base of at least one lesson."""
        known = ~np.isnan(lessons.delivered)
        expected = float(lessons.strength[known].mean()) if known.any() else 0.0
        level = level_between(expected, _shrunk(lessons.delivered[known], expected))
        middle = float(levelled(lessons.strength, level).mean())
        return cls(level, middle, _shrunk(lessons.own, middle))

    def quality(self, lessons: Lessons, slope: float) -> Floats:
        """(n_prompts, 2) expected of the best rival and of the own expert."""
        rival = levelled(lessons.strength, self.level)
        return np.column_stack([rival, self.mean + slope * (rival - self.middle)])


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """One way to expect quality, tried.

    ``slope`` is by how much the own expert's quality rises with the best rival's; ``penalty`` that
    of the ridge, ``None`` where there is none. ``quality`` (n_prompts, 2) is what each prompt was
    expected to score, as `Base.quality`, by a fit without its fold; ``error`` by how much that
    missed the difference.
    """

    slope: float
    penalty: float | None
    quality: Floats
    error: float

    @property
    def picked(self) -> Bools:
        """(n_prompts,) whether the own expert would be asked; ties go to the global router."""
        chosen: Bools = self.quality[:, 1] > self.quality[:, 0]
        return chosen


def trials(lessons: Lessons, kernel: Floats, fold: Folds) -> list[Trial]:
    """Every way, the plainest first; O(n^3) for each fold and penalty.

    Parameters
    ----------
    kernel : (n_prompts, n_prompts) products of the centred embeddings.
    """
    scores = np.column_stack([lessons.delivered, lessons.own])
    n, slopes = len(scores), len(_SLOPES)
    found = {way: np.zeros((n, 2)) for way in product((None, *_PENALTIES), range(slopes))}
    for mine, rest in _parts(fold):
        base, learnt = Base.of(lessons.rows(rest)), lessons.rows(rest)
        targets = np.column_stack(
            [learnt.own - base.quality(learnt, slope)[:, 1] for slope in _SLOPES]
        )
        shifts: dict[float | None, Floats] = {None: np.zeros((int(mine.sum()), slopes))}
        for penalty in _PENALTIES:
            weights = _solved(kernel[np.ix_(rest, rest)], targets, penalty)
            shifts[penalty] = kernel[np.ix_(mine, rest)] @ weights
        for (way, column), held_out in found.items():
            quality = base.quality(lessons.rows(mine), _SLOPES[column])
            quality[:, 1] += shifts[way][:, column]
            held_out[mine] = np.clip(quality, 0.0, 1.0)
    return [
        Trial(_SLOPES[column], penalty, quality, contrast_error(quality, scores))
        for (penalty, column), quality in found.items()
    ]


def level_between(expected: float, found: float) -> float:
    """The level in (-1, 1) that makes of one quality the other, neither of them certain."""
    if found >= expected:
        return (found - expected) / (1.0 - expected) if expected < 1.0 else 0.0
    return found / expected - 1.0


def gain_of(picked: Bools, gains: Floats) -> Gain:
    """What asking the own expert where ``picked`` gains over the global router, and its error.

    Judged as if one more prompt had been won and one lost, so that few prompts prove little (the
    idea of Agresti and Min 2005 for matched pairs).

    Parameters
    ----------
    gains : (n_prompts,) of the own expert; unknown ones (NaN) are left out.
    """
    known = ~np.isnan(gains)
    values = np.concatenate([np.where(picked, gains, 0.0)[known], [1.0, -1.0]])
    return Gain(float(values.mean()), float(values.std() / np.sqrt(values.size)))


def _parts(fold: Folds) -> Iterator[tuple[Bools, Bools]]:
    """Each fold's rows and the others; where there are no others, the rows themselves."""
    for k in np.unique(fold):
        mine = fold == k
        yield mine, mine if mine.all() else ~mine


def _shrunk(scores: Floats, prior: float) -> float:
    return (float(scores.sum()) + _SHRINKAGE * prior) / (scores.size + _SHRINKAGE)


def _solved(kernel: Floats, targets: Floats, penalty: float) -> Floats:
    """Weights of the rows in a ridge regression by its kernel."""
    return np.asarray(np.linalg.solve(kernel + penalty * np.eye(len(kernel)), targets))


def rivals_in(outcomes: Outcomes, everybodys: Sequence[str]) -> tuple[str, ...]:
    """The global experts that an own one is weighed against: all where the table has ``auto``.

    Else those that it has scores of.

    Raises
    ------
    OutcomesError
        There are none.
    """
    known = tuple(name for name in everybodys if {name, AUTO} & set(outcomes.expert_ids))
    if not known:
        raise OutcomesError(
            f"nothing to weigh the own expert against: give the table a column score__{AUTO}, of "
            f"what the global router delivered, or score__ of one of its experts: "
            + (", ".join(everybodys) or "it has none")
        )
    return known


def personalise(
    outcomes: Outcomes,
    artefact: Artefact,
    embedder: Embedder,
    premise: Premise,
) -> PersonalGate:
    """The gate learned from every row but those of split ``test``, on which it is measured.

    It declines where the own expert does not beat the global router by a standard error on held-out
    prompts, or where fewer than ten prompts have a score of both. Deterministic. O(n^3) in prompts.

    Parameters
    ----------
    premise : whose gate it becomes; its rivals are among the artefact's experts, and each has
        scores, or the column ``auto`` has.

    Raises
    ------
    OutcomesError
        The own expert has no column, or no prompt to learn from has a score of it, or of the global
        router as well.
    """
    if premise.expert_id not in outcomes.expert_ids:
        raise OutcomesError(f"the table has no column score__{premise.expert_id}")
    scored = ~np.isnan(outcomes.columns([premise.expert_id]).scores[:, 0])
    rows = outcomes.rows(scored & (outcomes.splits != "test"))
    if not rows.prompt_ids:
        raise OutcomesError(f"no prompt to learn from has a score of {premise.expert_id!r}")
    lessons = Lessons.of(rows, artefact, embed_all(embedder, rows.prompts), premise)
    if np.isnan(lessons.delivered).all():
        raise OutcomesError(
            f"no prompt has a score of {premise.expert_id!r} and one of the global router: "
            f"score__{AUTO}, or that of one of its experts"
        )
    gate = learned(lessons, content_folds(rows.prompts, _N_FOLDS), premise, _lengths(rows, premise))
    training = {**gate.training, "outcomes_sha256": outcomes.sha256}
    asked = outcomes.rows(scored & (outcomes.splits == "test"))
    if asked.prompt_ids:
        X = embed_all(embedder, asked.prompts)
        training["test"] = measured(gate, Lessons.of(asked, artefact, X, premise))
    return replace(gate, training=training)


def learned(
    lessons: Lessons, fold: Folds, premise: Premise, lengths: tuple[float, float]
) -> PersonalGate:
    """The gate that these lessons teach; ``lengths`` are those of the own expert's answers."""
    about = lessons.X.mean(axis=0, dtype=np.float64)
    rows: Floats = lessons.X - about
    kernel: Floats = rows @ rows.T
    best = min(trials(lessons, kernel, fold), key=lambda trial: trial.error)
    gain = gain_of(best.picked, lessons.gains)
    base = Base.of(lessons)
    coef = np.zeros(len(about) + 2)
    coef[-2:] = best.slope, base.mean - best.slope * base.middle
    if best.penalty is not None:
        rest = lessons.own - base.quality(lessons, best.slope)[:, 1]
        coef[:-2] = rows.T @ _solved(kernel, rest, best.penalty)
        coef[-1] -= coef[:-2] @ about
    n_compared = int((~np.isnan(lessons.gains)).sum())
    return PersonalGate(
        premise=premise,
        level=base.level,
        coef=coef.astype(np.float32),
        quality_se=_standard_error(lessons, kernel, fold, base, best),
        mean_tokens=lengths[0],
        cautious_tokens=lengths[1],
        declined=n_compared < _FEWEST or gain.cautious <= 0 or np.unique(fold).size == 1,
        training={
            "n_prompts": lessons.own.size,
            "n_compared": n_compared,
            "slope": best.slope,
            "penalty": best.penalty,
            "gain": round(gain.mean, 4),
            "gain_se": round(gain.se, 4),
            "held_out": _figures(best.picked, lessons, best.quality),
        },
    )


def measured(gate: PersonalGate, lessons: Lessons) -> dict[str, Any]:
    """Figures of a gate on prompts that it has not seen; `_figures` says which."""
    strength = levelled(lessons.strength, gate.level)
    quality = np.column_stack([strength, gate.quality(lessons.X, strength)])
    return _figures(quality[:, 1] > quality[:, 0], lessons, quality)


def _figures(picked: Bools, lessons: Lessons, quality: Floats) -> dict[str, Any]:
    """Mean scores of four ways to choose on the prompts that both were scored on.

    The oracle knows both scores, so it is flattered by luck. ``calibration_error`` is that of the
    own expert's expected quality.
    """
    known = ~np.isnan(lessons.delivered)
    own, delivered, picked = lessons.own[known], lessons.delivered[known], picked[known]
    if not known.any():
        return {"n_prompts": 0}
    scores = {
        "never": delivered,
        "always": own,
        "gate": np.where(picked, own, delivered),
        "oracle": np.maximum(own, delivered),
    }
    return {
        "n_prompts": int(known.sum()),
        **{f"score_{name}": round(float(values.mean()), 4) for name, values in scores.items()},
        "share_own": round(float(picked.mean()), 4),
        "calibration_error": round(reliability(quality[:, 1], lessons.own).error, 4),
    }


def _standard_error(
    lessons: Lessons, kernel: Floats, fold: Folds, base: Base, trial: Trial
) -> float:
    """Of the own expert's quality at a held-out prompt: that of its mean, and that of the ridge.

    The ridge's is the noise times the root of its mean posterior variance in other folds.
    """
    mean_se = np.sqrt(base.mean * (1.0 - base.mean) / (lessons.own.size + _SHRINKAGE))
    if trial.penalty is None:
        return float(mean_se)
    noise = float(np.mean((lessons.own - trial.quality[:, 1]) ** 2))
    explained = np.zeros(lessons.own.size)
    for mine, rest in _parts(fold):
        across = kernel[np.ix_(rest, mine)]
        weights = _solved(kernel[np.ix_(rest, rest)], across, trial.penalty)
        explained[mine] = (across * weights).sum(axis=0)
    left = np.maximum(np.diag(kernel) - explained, 0.0) / trial.penalty
    return float(np.sqrt(mean_se**2 + noise * left.mean()))


def _lengths(rows: Outcomes, premise: Premise) -> tuple[float, float]:
    """Mean and cautious length of the own expert's answers; 256 tokens where none is known."""
    tokens = rows.columns([premise.expert_id]).tokens[:, 0]
    known = tokens[~np.isnan(tokens)]
    if not known.size:
        return 256.0, 256.0
    return float(known.mean()), float(np.quantile(known, _QUANTILE))

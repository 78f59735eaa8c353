"""From outcomes to an artefact."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import sklearn
from numpy.typing import NDArray

import coe
from coe.core import GENERAL, ExpertSpec
from coe.device import DeviceProfile
from coe.errors.files import OutcomesError
from coe.kernels.gating import entropy
from coe.routers.artefact import Artefact
from coe.routers.calibration import reliability
from coe.routers.category import CategoryRouter
from coe.routers.category_training import (
    Scheme,
    choose,
    class_names,
    estimators,
    fitted,
    held_out,
    schemes,
    serving_head,
)
from coe.routers.embed import Embedder
from coe.routers.expectation import Expectation
from coe.routers.folds import content_folds
from coe.routers.frontier import frontier
from coe.routers.gate import RetrievalGate
from coe.routers.head import CategoryHead
from coe.routers.modes_training import learned as learned_modes
from coe.routers.modes_training import measured as measured_modes
from coe.routers.outcomes import Outcomes
from coe.routers.quality_training import Trial, best, fit_expectation, held_out_lengths, trials
from coe.routers.retrieval_training import Lessons, measured
from coe.routers.retrieval_training import learned as learned_gate
from coe.routers.retrieve import Index
from coe.routers.ridge import FoldedRidge
from coe.routers.thresholds import with_thresholds
from coe.routers.traffic import Traffic
from coe.routers.transcript import Transcript
from coe.routers.usage import Usage

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
_UNKNOWN_DEVICE = DeviceProfile("unknown", 0, 0, 0, 1, 0, 0, source="none: not configured")
_MANY_PROMPTS = 5000  # from here on three folds instead of five
_BATCH = 512


@dataclass(frozen=True, slots=True)
class _Learned:
    """The best trial of one scheme, and what it was made of."""

    trial: Trial
    router: CategoryRouter
    estimator: str
    briers: Mapping[str, float]
    probabilities: Floats


def train(
    outcomes: Outcomes,
    embedder: Embedder,
    specs: Mapping[str, ExpertSpec] | None = None,
    features: int | None = None,
    n_canaries: int = 12,
    index: Index | None = None,
    progress: Callable[[str], None] = lambda step: None,
) -> Artefact:
    """The artefact learned from ``train`` rows, thresholds tuned and measured on ``dev`` rows.

    No other row is looked at. What is routed by (labels, tasks or clusters), the estimator that
    learns it, shrinkage, and whether the embedding refines the table are chosen by
    cross-validation on the ``train`` rows, in which equal prompts share a fold. Deterministic:
    the same table and embedder give the same arrays.

    Parameters
    ----------
    specs : the configured experts; one that is absent is recorded with an unknown device.
    features : leading features of the embedding that hold meaning; ``None``: all.
    index : where passages came from, for outcomes with retrieved scores; of these, 100 on
        ``train`` rows and one expert teach a retrieval gate.
    progress : called with the name of each step.

    Raises
    ------
    OutcomesError
        There is no ``train`` row, no way to cut them into categories, or an expert has no
        score in them.
    """
    rows = outcomes.rows(outcomes.splits == "train")
    _check(rows)
    progress("embedding prompts")
    X = embed_all(embedder, rows.prompts)
    dev = outcomes.rows(outcomes.splits == "dev")
    X_dev = embed_all(embedder, dev.prompts)
    fold = content_folds(rows.prompts, _n_folds(rows))
    single = int(np.nanmean(rows.scores, axis=0).argmax())
    ridge = FoldedRidge.of(X, fold)
    learned = []
    for scheme in _schemes(rows, X, features):
        progress(f"routing by {scheme.name}")
        learned.append(_learn(scheme, X, rows.scores, ridge, single, features))
    chosen = min(learned, key=lambda way: way.trial.contrast_error)
    progress("fitting to all prompts")
    router = fitted(chosen.router, chosen.trial.scheme.labels, X)
    expectation = fit_expectation(chosen.trial, chosen.probabilities, rows, ridge, single)
    experts = tuple(
        (specs or {}).get(name) or ExpertSpec(name, _UNKNOWN_DEVICE) for name in rows.expert_ids
    )
    operating = _operating_points(chosen.trial, expectation, router.head(), rows, X, experts)
    progress("tuning thresholds")
    head = with_thresholds(serving_head(router), expectation, X, X_dev, dev.scores)
    p, quality = chosen.probabilities, chosen.trial.quality
    lessons = Lessons.of(rows, X, entropy(p), quality, index)
    gate = learned_gate(lessons, fold)
    progress("playing modes")
    told = _transcript(chosen, expectation, head, rows, ridge)
    modes, played = learned_modes(told, expectation.categories[:-1], experts)
    told_dev = Transcript.of(dev, X_dev, head, expectation)
    return Artefact(
        embedder=embedder.name,
        category=head,
        expectation=expectation,
        experts=experts,
        canaries=_canaries(head, rows.prompts, chosen.trial.scheme.labels, X, n_canaries),
        training={
            "outcomes_sha256": outcomes.sha256,
            "n_train": len(rows.prompt_ids),
            "n_dev": len(dev.prompt_ids),
            "held_out": _report(chosen, learned, rows, single) | operating,
            "traffic": _traffic(head, (X_dev, dev), (X, rows)).document(),
            "versions": _versions(),
            **played,
        },
        metrics=_metrics(head, expectation, gate, dev, X_dev, index)
        | (measured_modes(modes, told_dev, experts) if modes is not None else {}),
        gate=gate,
        modes=modes,
    )


def _traffic(
    head: CategoryHead, dev: tuple[Singles, Outcomes], train: tuple[Singles, Outcomes]
) -> Traffic:
    """That of ``dev`` prompts, if any: the router is surer of those that it learned from."""
    X, rows = dev if dev[1].prompts else train
    return Traffic.of(head, head.named(head.assess(X)), rows.prompts)


def _metrics(
    head: CategoryHead,
    expectation: Expectation,
    gate: RetrievalGate | None,
    dev: Outcomes,
    X: Singles,
    index: Index | None,
) -> dict[str, Any]:
    if not dev.prompt_ids:
        return {}
    figures = measure(head, expectation, dev, X)
    if gate is not None:
        found = head.assess(X)
        quality = expectation.of(X, found).quality
        figures["gate"] = measured(gate, Lessons.of(dev, X, found.entropy, quality, index))
    return figures


def embed_all(embedder: Embedder, prompts: tuple[str, ...]) -> Singles:
    """(n_prompts, dim) embeddings, asked for in batches."""
    parts = [np.zeros((0, embedder.dim), dtype=np.float32)]
    parts += [
        embedder.embed(prompts[start : start + _BATCH]) for start in range(0, len(prompts), _BATCH)
    ]
    return np.vstack(parts)


def measure(
    head: CategoryHead, expectation: Expectation, rows: Outcomes, X: Singles
) -> dict[str, Any]:
    """Figures of routing these rows to the expert of the highest expected quality.

    Returns the category router's accuracy (over rows whose category it knows) and coverage
    (share of prompts not uncertain), the calibration error of the expected quality, and the
    mean score of: each single expert, the routed expert, and the best expert of each prompt
    (the oracle, inflated by luck). Rows lacking any expert's score are left out.
    """
    keep: NDArray[np.bool_] = np.all(~np.isnan(rows.scores), axis=1)
    rows, X = rows.rows(keep), X[keep]
    if not rows.prompt_ids:
        return {"n_prompts": 0}
    found = head.assess(X)
    quality = expectation.of(X, found).quality
    routed = rows.scores[np.arange(len(rows.prompt_ids)), quality.argmax(axis=1)]
    labelled = np.isin(rows.categories, head.classes_) | np.isin(rows.tasks, head.classes_)
    names = head.likeliest(found.probabilities)
    right = (names == rows.categories) | (names == rows.tasks)
    singles = dict(zip(rows.expert_ids, rows.scores.mean(axis=0).round(4).tolist(), strict=True))
    return {
        "n_prompts": len(rows.prompt_ids),
        "category_accuracy": round(float(right[labelled].mean()), 4) if labelled.any() else None,
        "coverage": round(float(1 - found.uncertain.mean()), 4),
        "fallback_rate": round(float(found.uncertain.mean()), 4),
        "calibration_error": round(reliability(quality, rows.scores).error, 4),
        "score_single": singles,
        "score_routed": round(float(routed.mean()), 4),
        "score_oracle": round(float(rows.scores.max(axis=1).mean()), 4),
    }


def _check(rows: Outcomes) -> None:
    if not rows.prompt_ids:
        raise OutcomesError("no prompt has split 'train': there is nothing to learn")
    for expert_id in rows.unscored:
        raise OutcomesError(f"expert {expert_id!r} has no score on any prompt of split 'train'")


def _schemes(rows: Outcomes, X: Singles, features: int | None) -> list[Scheme]:
    """What prompts may be routed by."""
    if not (ways := schemes(rows, X, features)):
        raise OutcomesError(
            "no prompt of split 'train' has a category, and there are too few to form clusters: "
            "there is nothing to learn"
        )
    return ways


def _n_folds(rows: Outcomes) -> int:
    return 5 if len(rows.prompts) <= _MANY_PROMPTS else 3


def _learn(
    scheme: Scheme,
    X: Singles,
    scores: Floats,
    ridge: FoldedRidge,
    single: int,
    features: int | None,
) -> _Learned:
    candidates = estimators(scheme, features)
    name, briers = choose(candidates, scheme, X, ridge.fold)
    classes = np.array(class_names(scheme))
    p = held_out(candidates[name], scheme.labels, X, ridge.fold, classes)
    trial = best(trials(scheme, p, scores, ridge, single))
    return _Learned(trial, candidates[name], name, briers, p)


def _operating_points(
    trial: Trial,
    expectation: Expectation,
    head: CategoryHead,
    rows: Outcomes,
    X: Singles,
    experts: tuple[ExpertSpec, ...],
) -> dict[str, Any]:
    """Per resource the held-out curve from dear to cheap, where usage is known.

    Its prices are in points of quality per dollar or joule, as in budgets.yaml.
    """
    tokens = expectation.of(X, head.assess(X)).mean_tokens
    expected = Usage.expected(rows.prompts, experts, tokens)
    usage = Usage.of(rows, experts, tokens)
    curves = {}
    for axis in ("cost_usd", "energy_j"):
        reckoned = getattr(expected, axis)
        if not np.isnan(reckoned).any() and reckoned.any():
            points = frontier(trial.quality, reckoned, rows.scores, getattr(usage, axis))
            curves[axis] = [asdict(point) for point in points]
    return {"curves": curves}


def _transcript(
    chosen: _Learned,
    expectation: Expectation,
    head: CategoryHead,
    rows: Outcomes,
    ridge: FoldedRidge,
) -> Transcript:
    """The training rows with what fits that had not seen them expect.

    None is far from all training prompts: the router is uncertain by entropy alone.
    """
    p, table = chosen.probabilities, expectation.table
    doubted = entropy(p) > head.entropy_threshold
    lengths = held_out_lengths(expectation, p, rows.tokens, ridge)
    quality = np.where(doubted[:, None], table.quality[-1], chosen.trial.quality)
    return Transcript(
        rows,
        np.where(doubted, GENERAL, head.likeliest(p)),
        expectation.led(quality),
        np.where(doubted[:, None], table.mean_tokens[-1], lengths),
    )


def _report(
    chosen: _Learned, learned: list[_Learned], rows: Outcomes, single: int
) -> dict[str, Any]:
    """What cross-validation on the training rows said."""
    trial = chosen.trial
    return {
        "n_folds": _n_folds(rows),
        "routed_by": trial.scheme.name,
        "estimator": chosen.estimator,
        "brier": {name: round(score, 4) for name, score in chosen.briers.items()},
        "shrinkage": trial.shrinkage,
        "residual_penalty": trial.penalty,
        "best_single": rows.expert_ids[single],
        "gain": round(trial.gain.mean, 4),
        "gain_se": round(trial.gain.se, 4),
        "gain_by_scheme": {w.trial.scheme.name: round(w.trial.gain.mean, 4) for w in learned},
        "declined": trial.gain.cautious < 0,
        "calibration_error": round(reliability(trial.quality, rows.scores).error, 4),
    }


def _versions() -> dict[str, str]:
    return {
        "coe": coe.__version__,
        "numpy": np.__version__,
        "scikit-learn": sklearn.__version__,
        "python": platform.python_version(),
    }


def _canaries(
    head: CategoryHead,
    prompts: tuple[str, ...],
    labels: NDArray[np.str_],
    X: Singles,
    n_canaries: int,
) -> tuple[tuple[str, str], ...]:
    """The most confidently right training prompts of every category in turn.

    Long prompts are passed over where a shorter one is right too: a canary is for people to read.
    """
    known = np.isin(labels, head.classes_)
    probabilities = head.predict_proba(X)
    columns = np.searchsorted(head.classes_, np.where(known, labels, head.classes_[0]))
    confidence = probabilities[np.arange(len(columns)), columns]
    right = known & (head.likeliest(probabilities) == labels)
    per_category = max(1, n_canaries // head.classes_.size)
    readable = np.array([len(prompt) <= 400 for prompt in prompts])
    chosen: list[tuple[str, str]] = []
    for name in head.classes_:
        mine = np.flatnonzero(right & (labels == name))
        order = np.lexsort((-confidence[mine], ~readable[mine]))
        chosen += [(prompts[i], str(name)) for i in mine[order[:per_category]]]
    return tuple(chosen)

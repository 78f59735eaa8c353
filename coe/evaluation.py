"""Every router on the same held-out prompts: scores, what they spend, and how sure that is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coe.core import GENERAL, Policy
from coe.errors.files import OutcomesError
from coe.ladder import Rung, ladder, map_problem, under_budget
from coe.router import Router
from coe.routers import arms as make
from coe.routers.arms import Arm
from coe.routers.bootstrap import interval, resampled_means
from coe.routers.calibration import Reliability, reliability
from coe.routers.expectation import Expectation
from coe.routers.frontier import Point, frontier
from coe.routers.head import Assessment, CategoryHead
from coe.routers.outcomes import Outcomes
from coe.routers.thresholds import routed_scores
from coe.routers.train import embed_all
from coe.routers.transcript import Transcript
from coe.routers.usage import Usage
from coe.served import Served, served

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ArmResult:
    """How one arm did. ``None`` where it is not known for every prompt.

    ``ci95`` is of the score, ``delta_ci95`` of the paired difference to the best single expert;
    ``refused`` is the share of prompts that no expert fitted, which score 0; ``n_asked`` how many
    experts a prompt was put to, on average.
    """

    name: str
    score: float
    ci95: tuple[float, float]
    delta_best_single: float
    delta_ci95: tuple[float, float]
    cost_usd: float | None
    energy_j: float | None
    latency_ms: float | None
    active_params_b: float | None
    oracle_gap_closed: float | None
    refused: float
    n_asked: float
    oracle: bool


@dataclass(frozen=True, slots=True)
class Categories:
    """What happens in each category, for a report.

    ``names`` (n_categories,) as found in the rows; ``n`` (n_categories,) prompts; ``scores``
    (n_categories, n_experts) means; ``chosen`` (n_categories, n_experts) share of the prompts
    that arm ``coe`` had each expert's answer to; ``predicted`` names of the router's categories and
    ``confusion`` (n_categories, n_predicted) shares of each row's prompts.
    """

    names: tuple[str, ...]
    n: NDArray[np.int64]
    scores: Floats
    chosen: Floats
    predicted: tuple[str, ...]
    confusion: Floats


@dataclass(frozen=True, slots=True)
class Coverage:
    """Routing with the entropy threshold at each quantile: share certain, and mean score."""

    covered: Floats
    score: Floats
    chosen_covered: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The comparison of all arms on one table. See `evaluate`.

    ``notes`` are sentences that must be known to read the figures rightly.
    """

    dataset: str
    n_prompts: int
    n_left_out: int
    expert_ids: tuple[str, ...]
    best_single: str
    arms: tuple[ArmResult, ...]
    curves: Mapping[str, Sequence[Point]]
    calibration: Reliability
    categories: Categories
    coverage: Coverage
    ladder: tuple[Rung, ...]
    seed: int
    n_resamples: int
    notes: tuple[str, ...] = ()

    @property
    def pareto(self) -> dict[str, list[str]]:
        """Per resource the arms that no other beats at no more usage, cheapest first.

        Oracles take no part.
        """
        axes = ("cost_usd", "energy_j", "latency_ms", "active_params_b")
        return {axis: _undominated(self.arms, axis) for axis in axes}


def evaluate(
    router: Router,
    outcomes: Outcomes,
    dataset: str,
    split: str = "test",
    policies: Mapping[str, Policy] | None = None,
    stored_params_b: float | None = None,
    seed: int = 0,
    n_resamples: int = 2000,
    progress: Callable[[str], None] = lambda step: None,
) -> Evaluation:
    """All arms on the prompts of ``split`` that every expert was scored on.

    The best single expert, and what arms must learn, come from the ``train`` rows alone. The
    arm ``coe`` asks ``router`` about every prompt, as serving does on an idle system; so does
    one arm for each policy. What it decides is played on recorded answers, see `coe.served`.

    Parameters
    ----------
    router : knows the experts of the table; its specs give prices, power and parameters.
    policies : "default" is that of arm ``coe``, by default without ceilings and prices; each
        other one is a further arm, "coe <name>".
    stored_params_b : budget of the arms "best single under B" and "two-step under B", in
        billions of parameters; by default the median of the experts' sizes.
    seed, n_resamples : of the bootstrap.

    Raises
    ------
    OutcomesError
        The split has no prompt that every expert was scored on, there is no ``train`` row, or
        the artefact's experts are not those of the table.
    """
    rows, train, n_left_out = _rows(router, outcomes, split)
    progress("embedding prompts")
    X, X_train = embed_all(router.embedder, rows.prompts), embed_all(router.embedder, train.prompts)
    artefact = router.artefact
    specs = [router.specs[name] for name in rows.expert_ids]
    found = artefact.category.assess(X)
    expected = artefact.expectation.of(X, found)
    reckoned = Usage.expected(rows.prompts, specs, expected.mean_tokens)
    usage = Usage.of(rows, specs, expected.mean_tokens)
    overall = np.nanmean(train.scores, axis=0)
    single, params = int(overall.argmax()), np.array([spec.params_b for spec in specs])
    budget_b = float(np.median(params)) if stored_params_b is None else stored_params_b
    progress("routing")
    names = artefact.category.named(found)
    problem = map_problem(artefact, params, X_train)
    told = Transcript.of(rows, X, artefact.category, artefact.expectation)
    asked = _as_arms(policies or {})
    decided = [served(name, router, policy, told, artefact.modes) for name, policy in asked.items()]
    arms = [
        *make.singles(rows),
        make.at_random(rows),
        *under_budget(artefact.expectation.table, problem, params, overall, budget_b, names),
        make.knn(train, X_train, X),
        make.direct_classifier(train, X_train, X),
        *make.two_step(artefact.expectation, found),
        make.oracle_category(artefact.expectation, rows),
        make.oracle_prompt(rows),
        *([] if artefact.modes is None else make.of_modes(artefact.modes, told)),
        *(one.arm for one in decided),
    ]
    results = _results(arms, rows, usage, params, single, np.random.default_rng(seed), n_resamples)
    return Evaluation(
        dataset=dataset,
        n_prompts=len(rows.prompts),
        n_left_out=n_left_out,
        expert_ids=rows.expert_ids,
        best_single=rows.expert_ids[single],
        arms=tuple(results),
        curves=_curves(expected.quality, reckoned, rows.scores, usage),
        calibration=reliability(expected.quality, rows.scores),
        categories=_categories(artefact.category, rows, names, decided[0].arm),
        coverage=_coverage(artefact.expectation, found, X, rows.scores),
        ladder=ladder(artefact.expectation.expert_ids, problem),
        seed=seed,
        n_resamples=n_resamples,
        notes=tuple(_notes(decided, len(rows.prompts))),
    )


def _as_arms(policies: Mapping[str, Policy]) -> dict[str, Policy]:
    """The policies by the names of their arms, that of arm ``coe`` first."""
    others = {f"coe {name}": policy for name, policy in policies.items() if name != "default"}
    return {"coe": policies.get("default", Policy("default")), **others}


def _rows(router: Router, outcomes: Outcomes, split: str) -> tuple[Outcomes, Outcomes, int]:
    known = router.artefact.expectation.expert_ids
    if set(known) != set(outcomes.expert_ids):
        raise OutcomesError(
            f"the table's experts are {', '.join(sorted(outcomes.expert_ids))}; "
            f"the artefact's {', '.join(sorted(known))}"
        )
    outcomes = outcomes.columns(known)
    train, asked = (
        outcomes.rows(outcomes.splits == "train"),
        outcomes.rows(outcomes.splits == split),
    )
    if not train.prompts or train.unscored:
        raise OutcomesError("arms learn from prompts of split 'train' scored by every expert")
    complete: NDArray[np.bool_] = np.all(~np.isnan(asked.scores), axis=1)
    if not complete.any():
        raise OutcomesError(f"no prompt of split {split!r} has a score of every expert")
    return asked.rows(complete), train, int((~complete).sum())


def _notes(decided: Sequence[Served], n_prompts: int) -> list[str]:
    return [
        f"{one.arm.name}: modes could not be played on {one.n_unplayed} of {n_prompts} prompts: "
        "no recorded answers; there one expert answers"
        for one in decided
        if one.n_unplayed
    ]


def _curves(
    quality: Floats, reckoned: Usage, scores: Floats, usage: Usage
) -> dict[str, list[Point]]:
    return {
        axis: frontier(quality, getattr(reckoned, axis), scores, getattr(usage, axis))
        for axis in ("cost_usd", "energy_j")
    }


def _results(
    arms: Sequence[Arm],
    rows: Outcomes,
    usage: Usage,
    params: Floats,
    single: int,
    rng: np.random.Generator,
    n_resamples: int,
) -> list[ArmResult]:
    scores = np.column_stack([(arm.weights * rows.scores).sum(axis=1) for arm in arms])
    reference = rows.scores[:, [single]]
    means = resampled_means(np.hstack([scores, reference]), n_resamples, rng)
    own, delta = interval(means[:, :-1]), interval(means[:, :-1] - means[:, [-1]])
    best = float(reference.mean())
    oracle = float(rows.scores.max(axis=1).mean())
    sizes = np.broadcast_to(np.where(params > 0, params, np.nan), rows.scores.shape)
    found = []
    for k, arm in enumerate(arms):
        score = float(scores[:, k].mean())
        found.append(
            ArmResult(
                name=arm.name,
                score=score,
                ci95=_pair(own[k]),
                delta_best_single=score - best,
                delta_ci95=_pair(delta[k]),
                cost_usd=_mean(arm.spent(usage.cost_usd)),
                energy_j=_mean(arm.spent(usage.energy_j)),
                latency_ms=_mean(arm.waited(usage.latency_ms)),
                active_params_b=_mean(arm.spent(sizes)),
                oracle_gap_closed=(score - best) / (oracle - best) if oracle > best else None,
                refused=float((arm.weights.sum(axis=1) == 0).mean()),
                n_asked=float(arm.asked().mean()),
                oracle=arm.oracle,
            )
        )
    return found


def _mean(used: Floats) -> float | None:
    """Mean use per prompt; ``None`` when an expert that is asked has an unknown one."""
    mean = used.mean()
    return None if np.isnan(mean) else float(mean)


def _pair(bounds: Floats) -> tuple[float, float]:
    return float(bounds[0]), float(bounds[1])


def _undominated(arms: Sequence[ArmResult], axis: str) -> list[str]:
    judged = [(getattr(arm, axis), -arm.score, arm.name) for arm in arms if not arm.oracle]
    names, best = [], -np.inf
    for _, negative, name in sorted(row for row in judged if row[0] is not None):
        if -negative > best:
            names.append(name)
            best = -negative
    return names


def _categories(
    head: CategoryHead, rows: Outcomes, predicted: NDArray[np.str_], ours: Arm
) -> Categories:
    labels = np.where(rows.categories == "", "(none)", rows.categories)
    names = sorted(set(labels.tolist()))
    masks = [labels == name for name in names]
    columns = [*head.classes_.tolist(), GENERAL]
    return Categories(
        names=tuple(names),
        n=np.array([mask.sum() for mask in masks]),
        scores=np.array([rows.scores[mask].mean(axis=0) for mask in masks]),
        chosen=np.array([ours.weights[mask].mean(axis=0) for mask in masks]),
        predicted=tuple(columns),
        confusion=np.array([[(predicted[m] == c).mean() for c in columns] for m in masks]),
    )


def _coverage(expectation: Expectation, found: Assessment, X: Singles, scores: Floats) -> Coverage:
    """Score when the least certain prompts get overall averages, for each share of them."""
    known, unknown = routed_scores(expectation, found, X, scores)
    order = np.argsort(found.entropy, kind="stable")
    gained = np.concatenate([[0.0], np.cumsum((known - unknown)[order])])
    return Coverage(
        covered=np.arange(len(X) + 1) / len(X),
        score=(unknown.sum() + gained) / len(X),
        chosen_covered=float(1.0 - found.uncertain.mean()),
    )

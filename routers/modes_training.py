"""Learning what modes are worth from prompts on which they were played."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coe.core import GENERAL, ExpertSpec
from coe.routers.calibration import reliability
from coe.routers.confidence import Bools, Floats, Integers
from coe.routers.confidence_training import effective_options, fit_confidence
from coe.routers.habit import learned_habits
from coe.routers.modes import LearnedModes, ModeTable
from coe.routers.played import Played, elections, modes, play
from coe.routers.transcript import Transcript
from coe.routers.usage import Usage

_FEWEST_PROMPTS = 200
_MOST_PROMPTS = 10_000  # more make eight coefficients and some hundred means no better
_MOST_EXPERTS = 6
_MOST_MODES = 200
_LEAST_GAINS = (0.0, *(0.001 * 2**k for k in range(11)))


def learned(
    told: Transcript, categories: Sequence[str], specs: Sequence[ExpertSpec]
) -> tuple[LearnedModes | None, dict[str, Any]]:
    """What modes are worth, and a report under "modes"; neither where no answers are known.

    Of at most six experts, see `worthiest`, on at most 10,000 prompts that all of them answered;
    ``None`` with fewer than 200 prompts or two experts. Where experts are shared, every mode of
    several has them. Kept are singles, the votes of the best three and of all, and what is
    undominated in a category, see `worthwhile`.

    Parameters
    ----------
    told : its expectations are those of fits that had not seen the prompt.
    categories : of the router, without "general".
    specs : (n_experts,) the experts of ``told``.
    """
    n_answered = int((told.answered().sum(axis=1) > 1).sum())
    if not n_answered:
        return None, {}
    chosen = worthiest(told, specs)
    part = told.complete([specs[k].id for k in chosen], _MOST_PROMPTS)
    rows, names = part.rows, part.rows.expert_ids
    if len(chosen) < 2 or len(rows.prompts) < _FEWEST_PROMPTS:
        return None, {"modes": {"n_answered": n_answered, "n_modes": 0}}
    said = part.said()
    n_options = effective_options(said, rows.scores)
    habits = learned_habits(rows.logprobs, names)
    answers = part.answers(said, n_options, habits)
    confidence = fit_confidence(answers, rows.scores)
    shared = {spec.id for spec in specs if spec.shared}.intersection(names)
    every = [
        mode
        for mode in modes(names, most_together=len(names))
        if mode.kind == "single" or shared.issubset(mode.members)
    ]
    known = elections(answers, confidence, names, every)
    played = (play(mode, known) for mode in every)
    table = mode_table(part.category, categories, names, played, rows.scores, rows.tokens)
    kept = worthwhile(table, _means(part, categories, [specs[k] for k in chosen]))
    whole = _only(table, kept, [spec.id for spec in specs])
    report = {
        "n_answered": n_answered,
        "n_prompts": len(rows.prompts),
        "expert_ids": list(names),
        "n_options": round(n_options, 2),
        "n_modes": len(whole.modes),
    }
    return LearnedModes(whole, confidence, n_options, habits), {"modes": report}


def worthiest(told: Transcript, specs: Sequence[ExpertSpec]) -> list[int]:
    """Columns, ascending, of at most six experts with 200 known answers.

    Shared ones first; then one after the other whoever adds most to the best score of each
    prompt, of equals the best alone.
    """
    known = told.answered()
    scores = np.where(known, told.rows.scores, 0.0)
    left = [k for k in range(len(specs)) if known[:, k].sum() >= _FEWEST_PROMPTS]
    chosen: list[int] = []
    best = np.zeros(len(scores))
    while left and len(chosen) < _MOST_EXPERTS:
        together = {k: float(np.maximum(best, scores[:, k]).sum()) for k in left}
        alone = scores.sum(axis=0)
        k = max(left, key=lambda k: (specs[k].shared, together[k], alone[k], -k))
        best = np.maximum(best, scores[:, k])
        chosen.append(k)
        left.remove(k)
    return sorted(chosen)


def mode_table(
    category: NDArray[np.str_],
    names: Sequence[str],
    expert_ids: tuple[str, ...],
    played: Iterable[Played],
    scores: Floats,
    tokens: Floats,
    shrinkage: float = 400.0,
) -> ModeTable:
    """The table of recorded outcomes under modes that were played on them.

    Many modes are compared, and the luckiest looks best. So what a mode scored is shrunk towards
    what the confidence, one for all modes, expected of the answers that it delivered: ``f +
    n / (n + m) (s - f)`` over n prompts with mean score s and mean confidence f. A category
    without prompts has the row over all.

    Parameters
    ----------
    category : (n_prompts,) of each prompt, as the router sees it.
    names : the categories of the rows; `GENERAL` is added.
    expert_ids : (n_experts,) names of the columns that follow.
    scores, tokens : (n_prompts, n_experts), all known.
    shrinkage : m, in prompts.
    """
    rows = _rows(category, names)
    n = np.array([0 if row is rows[-1] else row.sum() for row in rows[:-1]] + [len(scores)])
    kept = np.array([row.sum() / (row.sum() + shrinkage) for row in rows])
    means = np.stack([tokens[row].mean(axis=0) for row in rows])
    here = np.arange(len(scores))
    found, quality, usage, reach = [], [], [], []
    for one in played:
        written, score = tokens * one.asked(expert_ids), scores[here, one.winner]
        foreseen = np.array([one.confidence[row].mean() for row in rows])
        scored = np.array([score[row].mean() for row in rows])
        stages = range(len(one.mode.stages))
        found.append(one.mode)
        quality.append(foreseen + kept * (scored - foreseen))
        usage.append([written[row].mean(axis=0) for row in rows] / np.maximum(means, 1.0))
        reach.append(np.array([[(one.n_stages[row] > k).mean() for k in stages] for row in rows]))
    worth = np.clip(np.stack(quality, axis=1), 0.0, 1.0)
    n_stages = max(part.shape[1] for part in reach)
    return ModeTable(
        categories=(*names, GENERAL),
        expert_ids=expert_ids,
        modes=tuple(found),
        quality=worth,
        quality_se=np.sqrt(worth * (1 - worth) / (n[:, None] + shrinkage)),
        usage=np.stack(usage, axis=1),
        reach=np.stack(
            [np.pad(part, ((0, 0), (0, n_stages - part.shape[1]))) for part in reach], axis=1
        ),
    )


def undominated(quality: Floats, usage: Floats, least_gain: float = 0.0) -> Integers:
    """Indices of modes that nothing cheaper equals, cheapest first; of equals the first stays.

    Parameters
    ----------
    quality, usage : (n_modes,) worth, and mean use of one resource.
    least_gain : of those, who is worth no more than this above the last one that stays goes too.
    """
    order = np.lexsort((np.arange(usage.size), -quality, usage))
    best = np.maximum.accumulate(quality[order])
    kept: list[int] = []
    for n in order[np.r_[True, best[1:] > best[:-1]]].tolist():
        if not kept or quality[n] > quality[kept[-1]] + least_gain:
            kept.append(n)
    return np.array(kept, dtype=np.int64)


def worthwhile(table: ModeTable, means: Sequence[Floats]) -> Integers:
    """Indices, ascending, of the modes to keep, some 200 at most.

    Singles, the votes of the best three and of all, and what is undominated in any category for
    any resource. Where that is more, a mode must be worth .001 more than the next cheaper one
    that stays, or .002, and so on.

    Parameters
    ----------
    means : for each resource (n_categories, n_experts) mean use of an answer. The last is time,
        which passes once for all experts of a stage; the others add up.
    """
    *amounts, time = means
    uses = [np.einsum("cme,ce->cm", table.usage, mean) for mean in amounts]
    uses.append(table.latency(time))
    fixed = [n for n, mode in enumerate(table.modes) if mode.kind == "single"]
    fixed += [table.modes.index(vote) for n in (3, len(fixed)) if (vote := table.vote_of_best(n))]
    kept = set(fixed)
    for least_gain in _LEAST_GAINS:
        fronts = [
            undominated(quality, use, least_gain)
            for part in uses
            for quality, use in zip(table.quality, part, strict=True)
        ]
        kept = set(fixed).union(*(front.tolist() for front in fronts))
        if len(kept) <= _MOST_MODES:
            break
    return np.array(sorted(kept), dtype=np.int64)


def measured(modes: LearnedModes, told: Transcript, specs: Sequence[ExpertSpec]) -> dict[str, Any]:
    """How modes do on prompts that they were not learned from, under "modes"; {}: no answers.

    The calibration error of the confidence in what modes deliver; score, and joules where they
    are known, of the best single, of the vote of the best three, and of the mode worth most among
    those that use no more joules than the best single.

    Parameters
    ----------
    specs : of the experts of ``told``, which are those of the table.
    """
    table = modes.table
    part = told.complete(table.known_ids)
    rows = part.rows
    if not rows.prompts:
        return {}
    usage = Usage.of(rows, [spec for spec in specs if spec.id in rows.expert_ids], part.mean_tokens)
    energy_j = rows.tokens if np.isnan(usage.energy_j).any() else usage.energy_j
    single = table.best(lambda mode: mode.kind == "single")
    columns = [table.expert_ids.index(name) for name in rows.expert_ids]
    use = table.usage[-1][:, columns] @ energy_j.mean(axis=0)
    most = use[table.modes.index(single)] * (1 + 1e-9)
    frugal = {mode for mode, used in zip(table.modes, use.tolist(), strict=True) if used <= most}
    chosen = {
        "best_single": single,
        "vote_of_best_three": table.vote_of_best(3),
        "best_at_its_joules": table.best(frugal.__contains__),
    }
    played = dict(zip(table.modes, part.play(modes, table.modes), strict=True))
    here = np.arange(len(rows.prompts))
    confidence = np.concatenate([one.confidence for one in played.values()])
    scored = np.concatenate([rows.scores[here, one.winner] for one in played.values()])

    def figures(one: Played) -> dict[str, Any]:
        joules = (usage.energy_j * one.asked(rows.expert_ids)).sum(axis=1).mean()
        return {
            "name": one.mode.name,
            "score": round(float(rows.scores[here, one.winner].mean()), 4),
            "energy_j": None if np.isnan(joules) else round(float(joules), 3),
        }

    error = round(reliability(confidence, scored).error, 4)
    report = {"n_prompts": len(rows.prompts), "calibration_error": error}
    return {"modes": report | {n: figures(played[m]) for n, m in chosen.items() if m is not None}}


def _means(
    part: Transcript, categories: Sequence[str], specs: Sequence[ExpertSpec]
) -> list[Floats]:
    """For each resource mean uses as `worthwhile` wants them.

    Where joules are unknown, active parameters times tokens stand for them, where time is, tokens.
    """
    tokens = part.rows.tokens
    usage = Usage.of(part.rows, specs, part.mean_tokens)
    sizes = np.array([spec.params_b for spec in specs])
    work = tokens * sizes if sizes.all() else tokens
    resources = [work if np.isnan(usage.energy_j).any() else usage.energy_j]
    resources += [] if np.isnan(usage.cost_usd).any() else [usage.cost_usd]
    resources.append(tokens if np.isnan(usage.latency_ms).any() else usage.latency_ms)
    rows = _rows(part.category, categories)
    return [np.stack([each[row].mean(axis=0) for row in rows]) for each in resources]


def _rows(category: NDArray[np.str_], names: Sequence[str]) -> list[Bools]:
    """Masks (n_prompts,) of each category, and of all; of all for a category without prompts."""
    everything = np.ones(category.size, dtype=bool)
    rows = [category == name for name in names]
    return [row if row.any() else everything for row in rows] + [everything]


def _only(table: ModeTable, kept: Integers, expert_ids: Sequence[str]) -> ModeTable:
    """The table of the ``kept`` modes, with columns of all these experts."""
    usage = np.zeros((len(table.categories), kept.size, len(expert_ids)))
    columns = [expert_ids.index(name) for name in table.expert_ids]
    usage[:, :, columns] = table.usage[:, kept]
    return ModeTable(
        categories=table.categories,
        expert_ids=tuple(expert_ids),
        modes=tuple(table.modes[n] for n in kept.tolist()),
        quality=table.quality[:, kept],
        quality_se=table.quality_se[:, kept],
        usage=usage,
        reach=table.reach[:, kept],
    )

"""Learning what modes are worth from prompts on which they were played."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from coe.core import GENERAL
from coe.routers.confidence import Floats, Integers
from coe.routers.modes import ModeTable
from coe.routers.played import Played


def mode_table(
    category: NDArray[np.str_],
    names: Sequence[str],
    expert_ids: tuple[str, ...],
    played: Sequence[Played],
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
    rows = [category == name for name in names] + [np.ones(len(scores), dtype=bool)]
    rows = [row if row.any() else rows[-1] for row in rows]
    n = np.array([0 if row is rows[-1] else row.sum() for row in rows[:-1]] + [len(scores)])
    n_stages = max(len(one.mode.stages) for one in played)
    quality = np.zeros((len(rows), len(played)))
    usage = np.zeros((*quality.shape, scores.shape[1]))
    reach = np.zeros((*quality.shape, n_stages))
    means = np.stack([tokens[row].mean(axis=0) for row in rows])
    for m, one in enumerate(played):
        written = tokens * one.asked(expert_ids)
        score = scores[np.arange(len(scores)), one.winner]
        for c, row in enumerate(rows):
            foreseen = one.confidence[row].mean()
            kept = row.sum() / (row.sum() + shrinkage)
            quality[c, m] = foreseen + kept * (score[row].mean() - foreseen)
            usage[c, m] = written[row].mean(axis=0) / np.maximum(means[c], 1.0)
            reach[c, m] = [(one.n_stages[row] > k).mean() for k in range(n_stages)]
    quality = np.clip(quality, 0.0, 1.0)
    return ModeTable(
        categories=(*names, GENERAL),
        expert_ids=expert_ids,
        modes=tuple(one.mode for one in played),
        quality=quality,
        quality_se=np.sqrt(quality * (1 - quality) / (n[:, None] + shrinkage)),
        usage=usage,
        reach=reach,
    )


def undominated(quality: Floats, usage: Floats) -> Integers:
    """Indices of modes that nothing cheaper equals, cheapest first; of equals the first stays.

    Parameters
    ----------
    quality, usage : (n_modes,) worth, and mean use of one resource.
    """
    order = np.lexsort((np.arange(usage.size), -quality, usage))
    best = np.maximum.accumulate(quality[order])
    better = np.r_[True, best[1:] > best[:-1]]
    kept: Integers = order[better]
    return kept

"""Ways to answer with several experts, replayed on recorded answers.

A mode asks its experts in stages. Those of a stage are asked at once and everything in hand is put
to the vote; if the confidence in what wins falls short of the threshold, the next stage is asked.
So one stage of one expert is a single, one stage of several a vote, two stages a cascade, whose
weak answers stay in the vote and are paid for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from coe.core import GENERAL
from coe.routers.confidence import Answers, Bools, Confidence, Floats, Integers, elected

THRESHOLDS = (0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95)

Stage = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Mode:
    """Who is asked, when.

    Parameters
    ----------
    stages : numbers of the experts asked at each; nobody twice, no stage empty.
    threshold : confidence in [0, 1] at which nobody else is asked.
    """

    stages: tuple[Stage, ...]
    threshold: float = 0.0

    @property
    def members(self) -> Stage:
        """Everyone who may be asked, ascending."""
        return tuple(sorted(n for stage in self.stages for n in stage))

    def name(self, expert_ids: Sequence[str]) -> str:
        """In words: ``a + b, else c (0.80)``."""
        said = ", else ".join(" + ".join(expert_ids[n] for n in stage) for stage in self.stages)
        return said if len(self.stages) == 1 else f"{said} ({self.threshold:.2f})"


def modes(
    experts: Sequence[int],
    most_first: int = 3,
    most_together: int = 5,
    thresholds: Sequence[float] = THRESHOLDS,
) -> Iterator[Mode]:
    """Every single, every vote and every cascade of two stages among ``experts``, singles first.

    Of five experts and with as few as these limits 1,431 modes, of ten some 10^5: choose the
    experts before.

    Parameters
    ----------
    most_first, most_together : experts of a first stage, and of both together.
    """
    sets = [
        chosen
        for size in range(1, min(most_together, len(experts)) + 1)
        for chosen in combinations(sorted(experts), size)
    ]
    for chosen in sets:
        yield Mode((chosen,))
    for chosen in sets:
        for size in range(1, min(most_first, len(chosen) - 1) + 1):
            for first in combinations(chosen, size):
                rest = tuple(n for n in chosen if n not in first)
                for threshold in thresholds:
                    yield Mode((first, rest), threshold)


@dataclass(frozen=True, slots=True)
class Election:
    """What one set elects on every prompt: (n_prompts,) whose answer, and how sure that is."""

    winner: Integers
    confidence: Floats


def elections(
    answers: Answers, confidence: Confidence, wanted: Iterable[Mode]
) -> dict[Stage, Election]:
    """The election of every set of experts that ``wanted`` modes may have in hand."""
    found: dict[Stage, Election] = {}
    here = np.arange(len(answers.said))
    for mode in wanted:
        for hand in _hands(mode):
            if hand not in found:
                asked = np.isin(np.arange(answers.said.shape[1]), hand)
                winner = elected(answers, asked)
                found[hand] = Election(winner, confidence.of(answers, asked)[here, winner])
    return found


@dataclass(frozen=True, slots=True)
class Played:
    """How a mode went, prompt by prompt.

    Parameters
    ----------
    winner, confidence : (n_prompts,) whose answer was delivered, and how sure that was.
    n_stages : (n_prompts,) how many stages were asked.
    """

    mode: Mode
    winner: Integers
    confidence: Floats
    n_stages: Integers

    def rows(self, mask: Bools) -> Played:
        """The prompts where ``mask`` (n_prompts,) is true."""
        return Played(self.mode, self.winner[mask], self.confidence[mask], self.n_stages[mask])

    def asked(self, n_experts: int) -> Bools:
        """(n_prompts, n_experts) who was asked, and is paid."""
        when = np.full(n_experts, len(self.mode.stages), dtype=np.int64)
        for k, stage in enumerate(self.mode.stages):
            when[list(stage)] = k
        asked: Bools = when < self.n_stages[:, None]
        return asked

    def latency(self, each: Floats) -> Floats:
        """(n_prompts,) time until the answer: the slowest of a stage, one stage after the other.

        Parameters
        ----------
        each : (n_prompts, n_experts) time of each answer.
        """
        time = np.zeros(len(each))
        for k, stage in enumerate(self.mode.stages):
            time += np.where(k < self.n_stages, each[:, list(stage)].max(axis=1), 0.0)
        return time


def play(mode: Mode, known: Mapping[Stage, Election]) -> Played:
    """The mode on every prompt that ``known`` elections are of."""
    last, *earlier = reversed(_hands(mode))
    winner, confidence = known[last].winner, known[last].confidence
    n_stages = np.full(winner.size, len(mode.stages), dtype=np.int64)
    for back, hand in enumerate(earlier, start=1):
        sure = known[hand].confidence >= mode.threshold
        winner = np.where(sure, known[hand].winner, winner)
        confidence = np.where(sure, known[hand].confidence, confidence)
        n_stages = np.where(sure, len(mode.stages) - back, n_stages)
    return Played(mode, winner, confidence, n_stages)


@dataclass(frozen=True, slots=True)
class ModeTable:
    """What each mode is worth in each category, and what of its experts it uses.

    Parameters
    ----------
    categories : (n_categories,) the last is the row over all prompts.
    modes : (n_modes,).
    quality, quality_se : (n_categories, n_modes) mean score, shrunk as `mode_table` says.
    usage : (n_categories, n_modes, n_experts) tokens each expert writes under the mode over those
        it writes if asked every time; 0 for who is never asked. Prompts on which a cascade goes on
        have longer answers, so a share of tokens may exceed the share of prompts. It multiplies
        joules and dollars.
    reach : (n_categories, n_modes, n_stages) share of prompts that reach each stage: the mean
        latency is the sum over stages of reach times the slowest member.
    """

    categories: tuple[str, ...]
    modes: tuple[Mode, ...]
    quality: Floats
    quality_se: Floats
    usage: Floats
    reach: Floats


def mode_table(
    category: NDArray[np.str_],
    names: Sequence[str],
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
        written = tokens * one.asked(scores.shape[1])
        score = scores[np.arange(len(scores)), one.winner]
        for c, row in enumerate(rows):
            foreseen = one.confidence[row].mean()
            kept = row.sum() / (row.sum() + shrinkage)
            quality[c, m] = foreseen + kept * (score[row].mean() - foreseen)
            usage[c, m] = written[row].mean(axis=0) / np.maximum(means[c], 1.0)
            reach[c, m] = [(one.n_stages[row] > k).mean() for k in range(n_stages)]
    return ModeTable(
        categories=(*names, GENERAL),
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


def _hands(mode: Mode) -> list[Stage]:
    """Whose answers are in hand after each stage."""
    hands = [tuple(sorted(mode.stages[0]))]
    for stage in mode.stages[1:]:
        hands.append(tuple(sorted((*hands[-1], *stage))))
    return hands

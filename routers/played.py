"""Ways to answer with several experts, played on recorded answers.

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

from coe.mode import Mode
from coe.routers.confidence import Answers, Bools, Confidence, Floats, Integers, elected

THRESHOLDS = (0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95)

Hand = frozenset[str]
"""Experts whose answers are in hand."""


def modes(
    expert_ids: Sequence[str],
    most_first: int = 3,
    most_together: int = 5,
    thresholds: Sequence[float] = THRESHOLDS,
) -> Iterator[Mode]:
    """Every single, every vote and every cascade of two stages among these experts, singles first.

    Of five experts and with as few as these limits 1,431 modes, of ten some 10^5: choose the
    experts before. Within a stage experts stand in the order given.

    Parameters
    ----------
    most_first, most_together : experts of a first stage, and of both together.
    """
    sets = [
        chosen
        for size in range(1, min(most_together, len(expert_ids)) + 1)
        for chosen in combinations(expert_ids, size)
    ]
    for chosen in sets:
        yield Mode("single" if len(chosen) == 1 else "vote", (chosen,))
    for chosen in sets:
        for size in range(1, min(most_first, len(chosen) - 1) + 1):
            for first in combinations(chosen, size):
                rest = tuple(name for name in chosen if name not in first)
                for threshold in thresholds:
                    yield Mode("cascade", (first, rest), threshold)


@dataclass(frozen=True, slots=True)
class Election:
    """What one set elects on every prompt: (n_prompts,) whose answer, and how sure that is.

    ``winner`` is the column of the expert.
    """

    winner: Integers
    confidence: Floats


def elections(
    answers: Answers, confidence: Confidence, expert_ids: Sequence[str], wanted: Iterable[Mode]
) -> dict[Hand, Election]:
    """The election of every set of experts that ``wanted`` modes may have in hand.

    Parameters
    ----------
    expert_ids : (n_experts,) names of the columns of ``answers``.
    wanted : singles, votes and cascades.
    """
    found: dict[Hand, Election] = {}
    here = np.arange(len(answers.said))
    for mode in wanted:
        for hand in _hands(mode):
            if hand not in found:
                asked = np.array([name in hand for name in expert_ids])
                winner = elected(answers, asked)
                found[hand] = Election(winner, confidence.of(answers, asked)[here, winner])
    return found


@dataclass(frozen=True, slots=True)
class Played:
    """How a mode went, prompt by prompt.

    Parameters
    ----------
    winner, confidence : (n_prompts,) column of the expert whose answer was delivered, and how
        sure that was.
    n_stages : (n_prompts,) how many stages were asked.
    """

    mode: Mode
    winner: Integers
    confidence: Floats
    n_stages: Integers

    def rows(self, mask: Bools) -> Played:
        """The prompts where ``mask`` (n_prompts,) is true."""
        return Played(self.mode, self.winner[mask], self.confidence[mask], self.n_stages[mask])

    def stages(self, expert_ids: Sequence[str]) -> tuple[Bools, ...]:
        """For each stage (n_prompts, n_experts) who of these was asked in it."""
        return tuple(
            np.array([name in stage for name in expert_ids]) & (k < self.n_stages)[:, None]
            for k, stage in enumerate(self.mode.stages)
        )

    def asked(self, expert_ids: Sequence[str]) -> Bools:
        """(n_prompts, n_experts) who of these was asked at all, and is paid."""
        asked: Bools = np.logical_or.reduce(self.stages(expert_ids))
        return asked

    def latency(self, expert_ids: Sequence[str], each: Floats) -> Floats:
        """(n_prompts,) time until the answer: the slowest of a stage, one stage after the other.

        Parameters
        ----------
        each : (n_prompts, n_experts) time of each answer of these experts.
        """
        time = np.zeros(len(each))
        for k, stage in enumerate(self.mode.stages):
            columns = [expert_ids.index(name) for name in stage]
            time += np.where(k < self.n_stages, each[:, columns].max(axis=1), 0.0)
        return time


def play(mode: Mode, known: Mapping[Hand, Election]) -> Played:
    """The mode, which is no fusion and no mixture, on every prompt that ``known`` are of."""
    last, *earlier = reversed(_hands(mode))
    winner, confidence = known[last].winner, known[last].confidence
    n_stages = np.full(winner.size, len(mode.stages), dtype=np.int64)
    for back, hand in enumerate(earlier, start=1):
        sure = known[hand].confidence >= mode.threshold
        winner = np.where(sure, known[hand].winner, winner)
        confidence = np.where(sure, known[hand].confidence, confidence)
        n_stages = np.where(sure, len(mode.stages) - back, n_stages)
    return Played(mode, winner, confidence, n_stages)


def _hands(mode: Mode) -> list[Hand]:
    """Whose answers are in hand after each stage."""
    hands = [frozenset(mode.stages[0])]
    for stage in mode.stages[1:]:
        hands.append(hands[-1].union(stage))
    return hands

"""How sure an expert is of its own words, beside how sure it usually is.

The mean log-probability of an answer's tokens is no probability that the answer is right: it
differs by expert and by kind of text, and fluent errors are likely words. What it may tell is
which of one expert's answers are better than its others (Mowst, arXiv 2311.05185, takes the
dispersion of the weak expert's output; reconstruction for text, equations ours).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_FARTHEST = 3.0
_FEWEST = 20
_LEAST_SPREAD = 1e-6


@dataclass(frozen=True, slots=True)
class Habit:
    """Of the mean log-probabilities of an expert's answers, their mean and their spread.

    Parameters
    ----------
    mean : at most 0.
    spread : standard deviation; positive.
    """

    mean: float
    spread: float

    def sureness(self, logprobs: Floats) -> Floats:
        """By how many spreads each of these is above the mean, in [-3, 3]; 0 where it is NaN."""
        above = np.clip((logprobs - self.mean) / self.spread, -_FARTHEST, _FARTHEST)
        return np.where(np.isnan(above), 0.0, above)


def sureness(logprobs: Floats, expert_ids: Sequence[str], habits: Mapping[str, Habit]) -> Floats:
    """As `Habit.sureness`, of the columns of several experts; 0 for those without a habit.

    Parameters
    ----------
    logprobs : (n_prompts, n_experts) mean log-probability of each answer; NaN where unknown.
    """
    found = np.zeros(logprobs.shape)
    for k, name in enumerate(expert_ids):
        if name in habits:
            found[:, k] = habits[name].sureness(logprobs[:, k])
    return found


def learned_habits(logprobs: Floats, expert_ids: Sequence[str]) -> dict[str, Habit]:
    """The habits of the experts of whom 20 answers that differ are known, by id.

    Parameters
    ----------
    logprobs : as in `sureness`, of training prompts.
    """
    habits = {}
    for name, column in zip(expert_ids, logprobs.T, strict=True):
        known = column[~np.isnan(column)]
        if known.size >= _FEWEST and known.std() > _LEAST_SPREAD:
            habits[name] = Habit(float(known.mean()), float(known.std()))
    return habits

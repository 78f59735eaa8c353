"""How likely an answer in hand is right, given the others in hand.

What can be known without asking an expert again: what the router expected of it on this prompt,
whether it says anything that can be told, how long it is, who else says the same or something
else, and how likely its words are to the expert itself. That ranks answers, and says whether a
cascade may stop (Mowst, arXiv 2311.05185: confidence of the weak expert; traits, equations ours).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Bools = NDArray[np.bool_]

SILENT = -1
"""In place of the number of a verdict: the answer says nothing that can be told."""

TRAITS = ("expected", "silent", "length", "support", "opposition", "others", "sureness")
_MOST_CERTAIN = 0.99
_LONGEST = 2.0
_SAME_WEIGHT = 1e-9


@dataclass(frozen=True, slots=True)
class Answers:
    """Answers of several experts to several prompts, arrays of (n_prompts, n_experts).

    Parameters
    ----------
    quality : in [0, 1], what the router expected of each.
    weight : of each in a vote; at least 0.
    said : numbers of verdicts, equal in a row where answers say the same; `SILENT` for none.
    stretch : length of each answer over the length expected; positive.
    sureness : of the expert in its own words, see `coe.routers.habit`; 0 where unknown.
    """

    quality: Floats
    weight: Floats
    said: Integers
    stretch: Floats
    sureness: Floats

    @classmethod
    def of(
        cls,
        quality: Floats,
        said: Integers,
        stretch: Floats,
        n_options: float,
        sureness: Floats | None = None,
    ) -> Self:
        """Answers that vote with the weights of `coe.combine.log_odds`."""
        likely = np.clip(quality, 1e-9, _MOST_CERTAIN)
        weight = np.maximum(np.log(likely * (n_options - 1) / (1 - likely)), 0.0)
        unknown = np.zeros(quality.shape)
        return cls(quality, weight, said, stretch, unknown if sureness is None else sureness)

    def rows(self, mask: Bools) -> Answers:
        """The answers to the prompts where ``mask`` (n_prompts,) is true."""
        return Answers(
            self.quality[mask],
            self.weight[mask],
            self.said[mask],
            self.stretch[mask],
            self.sureness[mask],
        )


@dataclass(frozen=True, slots=True)
class Confidence:
    """A logistic regression on the traits of an answer.

    Parameters
    ----------
    coef : (n_traits,), in the order of `TRAITS`.
    intercept : at traits of 0.
    """

    coef: Floats
    intercept: float

    def of(self, answers: Answers, asked: Bools) -> Floats:
        """(n_prompts, n_experts) probability that each answer is right; -1 of those not asked.

        Parameters
        ----------
        asked : (n_experts,) whose answers are in hand; the others' are not looked at.
        """
        logits = traits(answers, asked) @ self.coef + self.intercept
        return np.where(asked, 1.0 / (1.0 + np.exp(-logits)), -1.0)


def traits(answers: Answers, asked: Bools) -> Floats:
    """(n_prompts, n_experts, n_traits) what the confidence in each answer hangs on.

    Log odds of the expected quality; silence; logarithm of the stretch; weights of the others who
    say the same, and of those who say something else; how many others were asked; and sureness.
    """
    likely = np.clip(answers.quality, 1.0 - _MOST_CERTAIN, _MOST_CERTAIN)
    silent = answers.said == SILENT
    voices = np.where(asked & ~silent, answers.weight, 0.0)
    support = totals(answers, asked) - voices
    opposition = voices.sum(axis=1, keepdims=True) - voices - support
    found = (
        np.log(likely / (1 - likely)),
        silent.astype(float),
        np.clip(np.log(answers.stretch), -_LONGEST, _LONGEST),
        support,
        opposition,
        np.full(likely.shape, float(asked.sum() - 1)),
        answers.sureness,
    )
    return np.stack(found, axis=2)


def totals(answers: Answers, asked: Bools) -> Floats:
    """(n_prompts, n_experts) weight in a vote of what each answer says; 0 of those that abstain."""
    votes = asked & (answers.said != SILENT)
    alike = (answers.said[:, :, None] == answers.said[:, None, :]) & votes[:, None, :]
    total: Floats = np.einsum("pab,pb->pa", alike & votes[:, :, None], answers.weight)
    return total


def elected(answers: Answers, asked: Bools) -> Integers:
    """(n_prompts,) whose answer `coe.combine.vote` delivers, for many prompts at once.

    Of verdicts of equal weight, to nine digits, the one of the heaviest voter wins, then the one of
    the lowest number; where nobody votes, the heaviest expert's answer is delivered.

    Parameters
    ----------
    asked : (n_experts,) at least one.
    """
    total = np.round(totals(answers, asked) / _SAME_WEIGHT) * _SAME_WEIGHT
    votes = asked & (answers.said != SILENT)
    total = np.where(votes, total, np.where(asked, -1.0, -2.0))
    leading = total == total.max(axis=1, keepdims=True)
    weight = np.where(leading, answers.weight, -1.0)
    heaviest = weight == weight.max(axis=1, keepdims=True)
    number = np.where(heaviest, answers.said, np.iinfo(np.int64).max)
    winner: Integers = number.argmin(axis=1)
    return winner

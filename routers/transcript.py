"""What experts said to prompts, beside what the router expected of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from coe.mode import Mode
from coe.routers.confidence import SILENT, Answers, Bools, Floats, Integers
from coe.routers.confidence_training import numbered
from coe.routers.expectation import Expectation
from coe.routers.habit import Habit, sureness
from coe.routers.head import CategoryHead
from coe.routers.modes import LearnedModes
from coe.routers.outcomes import Outcomes
from coe.routers.played import Played, elections, play
from coe.routers.verdict import verdict


@dataclass(frozen=True, slots=True)
class Transcript:
    """Recorded answers, and what was known of the prompts before.

    Parameters
    ----------
    category : (n_prompts,) as the router sees it; "general" where it is uncertain.
    quality, mean_tokens : (n_prompts, n_experts) score and length expected of each answer.
    """

    rows: Outcomes
    category: NDArray[np.str_]
    quality: Floats
    mean_tokens: Floats

    @classmethod
    def of(
        cls, rows: Outcomes, X: NDArray[np.float32], head: CategoryHead, expectation: Expectation
    ) -> Self:
        """Of prompts with embeddings ``X`` that the router did not learn from."""
        found = head.assess(X)
        expected = expectation.of(X, found)
        return cls(rows, head.named(found), expected.quality, expected.mean_tokens)

    def answered(self) -> Bools:
        """(n_prompts, n_experts) where text, score and length of the answer are known."""
        if self.rows.answers is None:
            return np.zeros(self.rows.scores.shape, dtype=bool)
        texts = self.rows.answers.tolist()
        told = np.array([[text is not None for text in row] for row in texts], dtype=bool)
        known: Bools = ~np.isnan(self.rows.scores + self.rows.tokens)
        known &= told.reshape(known.shape)
        return known

    def complete(self, expert_ids: Sequence[str], most: int | None = None) -> Transcript:
        """The prompts that all of these experts answered, with no column but theirs.

        Parameters
        ----------
        most : so many prompts at most, evenly spread; ``None``: all.
        """
        columns = [self.rows.expert_ids.index(name) for name in expert_ids]
        full = np.flatnonzero(self.answered()[:, columns].all(axis=1))
        if most is not None and full.size > most:
            full = full[np.linspace(0, full.size - 1, most).astype(np.int64)]
        return self.part(np.isin(np.arange(len(self.category)), full), expert_ids)

    def part(self, mask: Bools, expert_ids: Sequence[str]) -> Transcript:
        """The prompts where ``mask`` (n_prompts,) is true, with no column but of these experts."""
        columns = [self.rows.expert_ids.index(name) for name in expert_ids]
        return Transcript(
            self.rows.columns(expert_ids).rows(mask),
            self.category[mask],
            self.quality[mask][:, columns],
            self.mean_tokens[mask][:, columns],
        )

    def said(self) -> Integers:
        """(n_prompts, n_experts) numbers of what answers say; see `numbered`."""
        if self.rows.answers is None or not len(self.rows.answers):
            return np.full(self.quality.shape, SILENT)
        texts = self.rows.answers.tolist()
        return numbered([[None if a is None else verdict(a) for a in row] for row in texts])

    def answers(
        self, said: Integers, n_options: float, habits: Mapping[str, Habit] = MappingProxyType({})
    ) -> Answers:
        """The answers as voters, who say what `said` says, and are as sure as their habits tell."""
        stretch = np.maximum(self.rows.tokens, 1.0) / np.maximum(self.mean_tokens, 1.0)
        sure = sureness(self.rows.logprobs, self.rows.expert_ids, habits)
        return Answers.of(self.quality, said, stretch, n_options, sure)

    def play(self, modes: LearnedModes, wanted: Sequence[Mode]) -> list[Played]:
        """Singles, votes and cascades as they go with what was learned of them.

        Everyone in them must have answered every prompt.
        """
        answers = self.answers(self.said(), modes.n_options, modes.habits)
        known = elections(answers, modes.confidence, self.rows.expert_ids, wanted)
        return [play(mode, known) for mode in wanted]

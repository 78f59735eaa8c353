"""Which of several answers is delivered, how sure that is, and whether it can still change."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from coe.combine import choose, decided, log_odds, posterior, vote
from coe.core import Estimate
from coe.form import keeps_form
from coe.routers.confidence import SILENT, Answers, Confidence
from coe.routers.habit import Habit
from coe.routers.verdict import verdict


@dataclass(frozen=True, slots=True)
class Given:
    """An expert's own answer.

    Parameters
    ----------
    said : what it says, if that can be told.
    logprob : mean log-probability of its tokens, at most 0, where the expert tells.
    """

    expert_id: str
    text: str
    output_tokens: float
    said: Hashable | None
    logprob: float | None = None


@dataclass(frozen=True, slots=True)
class Elected:
    """The answer to deliver, and how it came to that.

    Parameters
    ----------
    share, tie : as in `coe.combine.Vote`; of the verdict of the delivered answer.
    agreeing : experts that say the same as the delivered answer, in the order of the hand; empty
        where it says nothing that can be told.
    confidence : in [0, 1], that the delivered answer is right.
    """

    answer: Given
    share: float
    tie: bool
    agreeing: tuple[str, ...]
    confidence: float


@dataclass(frozen=True, slots=True)
class Ballot:
    """Counts the answers to one request. In which order they came is of no account.

    Parameters
    ----------
    alone : what is expected of each expert's own answer.
    confidence : learned; ``None``: `coe.combine.posterior`.
    n_options : of a question, as in `coe.combine.log_odds`.
    form : the caller's ``response_format``. An answer that does not keep it says nothing.
    habits : by expert, how sure it usually is of its own words; absent: not looked at.
    """

    alone: Mapping[str, Estimate]
    confidence: Confidence | None = None
    n_options: float = 2.0
    form: Mapping[str, Any] = field(default_factory=dict)
    habits: Mapping[str, Habit] = field(default_factory=dict)

    def read(
        self, expert_id: str, text: str, output_tokens: int, logprob: float | None = None
    ) -> Given:
        """An answer that has come, and what it says."""
        said = verdict(text) if keeps_form(text, self.form) else None
        return Given(expert_id, text, output_tokens, said, logprob)

    def elect(self, hand: Sequence[Given], surest: bool = False) -> Elected:
        """The answer to deliver of those in hand, at least one.

        Blank ones are left out while another is there. Of what has most weight together the
        answer of the best expert is delivered, of equals of the first by name.

        Parameters
        ----------
        surest : deliver the answer of the highest confidence instead, of equals that of the best
            expert.
        """
        hand = self._sorted(hand)
        said = [answer.said for answer in hand]
        weights = self._weights(hand)
        sure = self._sure(hand)
        counted = vote(said, weights)
        if not surest:
            n, share, tie = counted.winner, counted.share, counted.tie
            agreeing = counted.agreeing
        else:
            n, tie = choose(sure), sure.count(max(sure)) > 1
            agreeing = tuple(k for k, one in enumerate(said) if one is not None and one == said[n])
            everything = sum(w for w, one in zip(weights, said, strict=True) if one is not None)
            share = sum(weights[k] for k in agreeing) / everything if everything > 0 else 0.0
        names = tuple(hand[k].expert_id for k in agreeing)
        return Elected(hand[n], share, tie, names, sure[n])

    def settled(self, hand: Sequence[Given], outstanding: Sequence[str]) -> bool:
        """Whether the verdict of those in hand wins, whatever the ``outstanding`` experts say."""
        hand = self._sorted(hand)
        said = [answer.said for answer in hand]
        return decided(said, self._weights(hand), self._log_odds(outstanding))

    def stays_sure(
        self, hand: Sequence[Given], outstanding: Sequence[str], threshold: float
    ) -> bool:
        """Whether the answer in hand reaches ``threshold`` whatever the ``outstanding`` say.

        Looked at are all of them agreeing, all saying what is second or new, and all silent; in
        between confidence lies in between. Their answers count as of the expected length.
        """
        winner = self.elect(hand).answer
        hand = self._sorted(hand)
        at = hand.index(winner)
        return all(
            self._sure([*hand, *(self._expected(name, said) for name in outstanding)])[at]
            >= threshold
            for said in (winner.said, self._rival(hand, winner.said), None)
        )

    def _expected(self, expert_id: str, said: Hashable | None) -> Given:
        """An answer that is still out, as if it said this."""
        return Given(expert_id, "", self.alone[expert_id].output_tokens, said)

    def _rival(self, hand: Sequence[Given], winning: Hashable | None) -> Hashable:
        """What has most weight against what is winning; something new if nothing has."""
        others = [None if answer.said == winning else answer.said for answer in hand]
        second = others[vote(others, self._weights(hand)).winner]
        return object() if second is None else second

    def _sorted(self, hand: Sequence[Given]) -> list[Given]:
        """The answers that are not blank, if there are any, best expert first."""
        spoken = [answer for answer in hand if answer.text.strip()] or list(hand)
        return sorted(spoken, key=lambda a: (-self.alone[a.expert_id].quality, a.expert_id))

    def _stretch(self, answer: Given) -> float:
        """Its length over the length expected."""
        expected = self.alone[answer.expert_id].output_tokens
        return max(1.0, answer.output_tokens) / max(1.0, expected)

    def _sureness(self, answer: Given) -> float:
        """The expert's own, in its words; 0 where that is not known."""
        habit = self.habits.get(answer.expert_id)
        if habit is None or answer.logprob is None:
            return 0.0
        return float(habit.sureness(np.array(answer.logprob)))

    def _weights(self, hand: Sequence[Given]) -> tuple[float, ...]:
        return self._log_odds([answer.expert_id for answer in hand])

    def _log_odds(self, expert_ids: Sequence[str]) -> tuple[float, ...]:
        return log_odds([self._quality(name) for name in expert_ids], self.n_options)

    def _quality(self, expert_id: str) -> float:
        # a table plus a regression may expect a little more than everything
        return min(max(self.alone[expert_id].quality, 0.0), 1.0)

    def _sure(self, hand: Sequence[Given]) -> list[float]:
        """How likely each answer is right."""
        said = [answer.said for answer in hand]
        if self.confidence is None:
            return list(posterior(said, self._weights(hand), self.n_options))
        numbers = {one: n for n, one in enumerate(dict.fromkeys(said))}
        answers = Answers.of(
            quality=np.array([[self._quality(answer.expert_id) for answer in hand]]),
            said=np.array([[SILENT if one is None else numbers[one] for one in said]]),
            stretch=np.array([[self._stretch(answer) for answer in hand]]),
            n_options=self.n_options,
            sureness=np.array([[self._sureness(answer) for answer in hand]]),
        )
        asked = np.ones(len(hand), dtype=bool)
        found: list[float] = self.confidence.of(answers, asked)[0].tolist()
        return found

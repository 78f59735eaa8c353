"""Which of a conversation's user turns says what the next answer is about.

The state of the router is carried over the turns, as in RMoE (reconstruction, rule ours). It is
worked out anew from the messages that every request brings along, so no gateway remembers one.
`benchmarks/turns` measures the rules.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from coe.core import Message, TurnRule

MAX_TURNS = 16
"""How many of the latest user turns a sticky reading looks at."""

SWITCH_MARGIN = 0.03
"""Points of quality that another expert must add for a switch, unless configured otherwise."""

_BRIEF_TOKENS = 20


@dataclass(frozen=True, slots=True)
class UserTurn:
    """What a user said at a time: ``text`` of the messages ``[start, end)`` of the conversation."""

    text: str
    start: int
    end: int


def user_turns(messages: Sequence[Message]) -> tuple[UserTurn, ...]:
    """The user's turns, oldest first; user messages in a row are one turn."""
    turns = []
    runs = groupby(enumerate(messages), key=lambda numbered: numbered[1].role == "user")
    for said in (list(run) for is_user, run in runs if is_user):
        text = "\n".join(message.text for _, message in said)
        turns.append(UserTurn(text, said[0][0], said[-1][0] + 1))
    return tuple(turns)


def turns_read(messages: Sequence[Message], rule: TurnRule) -> tuple[UserTurn, ...]:
    """The turns that are read under ``rule``, oldest first: at least one.

    ``last`` reads the last one, ``all`` all of them as if they were one, ``sticky`` each of the
    last `MAX_TURNS`. Without any user turn there is one that says nothing.
    """
    turns = user_turns(messages)
    if rule == "sticky" and turns:
        return turns[-MAX_TURNS:]
    if rule == "last" and turns:
        return turns[-1:]
    return (UserTurn("\n".join(turn.text for turn in turns), 0, len(messages)),)


def is_clear(turn: UserTurn, probability: float) -> bool:
    """Whether a turn that follows others shows what it is about.

    Brief turns often refer to what was said before, and seem to be of a category that they are not
    of. One of n tokens, four bytes each, is clear if its likeliest category has a probability of
    at least ``20 / (20 + n)``; ours, measured.
    """
    return probability >= _BRIEF_TOKENS / (_BRIEF_TOKENS + _n_tokens(turn))


def margin_at(turn: UserTurn, margin: float) -> float:
    """What another expert must add at this turn: ``margin * (1 + 20 / n)`` for n tokens."""
    return margin * (1.0 + _BRIEF_TOKENS / _n_tokens(turn))


def turn_that_holds(
    categories: Sequence[str | None],
    utility: Callable[[int], NDArray[np.float64]],
    switch_cost: Callable[[int, int], float],
) -> int:
    """Index of the turn whose reading the answer to the last turn goes by.

    From the oldest turn to the newest, a turn that is certain takes over if its best expert is
    the present one, or if its category is another and its best expert is worth more than the
    present one by more than a switch costs. After a turn that was uncertain, an uncertain one
    takes over too: nothing is known of either. Of equally useful experts the first is the best.

    Parameters
    ----------
    categories : (n_turns,) the category of each turn alone, n_turns >= 1; ``None`` where it is
        uncertain or not clear.
    utility : of a turn, (n_experts,) what each expert's answer to it is worth, n_experts >= 1.
        Not asked where there is one turn.
    switch_cost : of a turn and an expert (column), in the same points, what is lost when this
        expert, which has read what came before the turn, gives way there to another.
    """
    if len(categories) == 1:
        return 0
    held, present = 0, int(utility(0).argmax())
    for turn in range(1, len(categories)):
        unknown = categories[turn] is None
        if unknown and categories[held] is not None:
            continue
        worth = utility(turn)
        best = int(worth.argmax())
        gain = float(worth[best] - worth[present])
        changed = categories[turn] != categories[held]
        if unknown or best == present or (changed and gain > switch_cost(turn, present)):
            held, present = turn, best
    return held


def _n_tokens(turn: UserTurn) -> float:
    return max(1.0, len(turn.text.encode(errors="replace")) / 4)

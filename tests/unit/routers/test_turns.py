"""Which turn of a conversation holds: a state that is worked out anew from the messages."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from coe.core import Message, Request
from coe.routers.turns import (
    MAX_TURNS,
    UserTurn,
    is_clear,
    margin_at,
    turn_that_holds,
    turns_read,
    user_turns,
)

RULES = ("last", "all", "sticky")
messages = st.lists(
    st.builds(Message, st.sampled_from(["user", "assistant", "system"]), st.text(max_size=5)),
    max_size=60,
)


def talk(*texts):
    """Messages of these user turns, with an answer after each but the last."""
    said = [m for text in texts for m in (Message("user", text), Message("assistant", "answer"))]
    return tuple(said[:-1])


def refuse(*_):
    raise AssertionError("asked for")


def held(categories, utility, cost=0.0):
    """The turn that holds where every switch costs the same."""
    rows = np.array(utility, dtype=float)
    return turn_that_holds(categories, lambda k: rows[k], lambda k, expert: cost)


# ---- what is a turn


def test_user_messages_in_a_row_are_one_turn():
    said = (
        Message("system", "be brief"),
        Message("user", "a long text"),
        Message("user", "what is it about?"),
        Message("assistant", "code"),
        Message("user", "and why?"),
    )
    assert user_turns(said) == (
        UserTurn("a long text\nwhat is it about?", 1, 3),
        UserTurn("and why?", 4, 5),
    )


@given(messages)
def test_turns_are_what_the_user_said_and_nothing_else(said):
    turns = user_turns(said)
    assert "\n".join(turn.text for turn in turns) == Request(tuple(said)).text
    ends = [0, *(end for turn in turns for end in (turn.start, turn.end)), len(said)]
    assert ends == sorted(ends)
    roles = [{m.role for m in said[a:b]} for a, b in pairwise(ends)]
    assert all("user" not in between for between in roles[::2])
    assert all(own == {"user"} for own in roles[1::2])


# ---- what is read


def test_each_rule_reads_its_turns():
    said = talk("one", "two", "three")
    assert [turn.text for turn in turns_read(said, "last")] == ["three"]
    assert [turn.text for turn in turns_read(said, "all")] == ["one\ntwo\nthree"]
    assert [turn.text for turn in turns_read(said, "sticky")] == ["one", "two", "three"]


@given(messages)
def test_something_is_read_whatever_was_said(said):
    for rule in RULES:
        assert 1 <= len(turns_read(said, rule)) <= MAX_TURNS


@pytest.mark.parametrize("said", [(), (Message("assistant", "hello"),), talk("some code")])
def test_of_one_turn_or_none_every_rule_reads_the_same(said):
    (text,) = {tuple(turn.text for turn in turns_read(said, rule)) for rule in RULES}
    assert text == (Request(said).text,)


def test_a_sticky_reading_looks_at_the_last_turns_only():
    turns = turns_read(talk(*map(str, range(50))), "sticky")
    assert [turn.text for turn in turns] == [str(k) for k in range(50 - MAX_TURNS, 50)]


# ---- what a switch needs


@given(st.text(max_size=400), st.text(max_size=400), st.floats(0, 1), st.floats(0, 1))
def test_a_longer_or_likelier_turn_is_no_less_clear(one, other, p, q):
    brief, long = (UserTurn(text, 0, 1) for text in (one, one + other))
    assert is_clear(long, p) >= is_clear(brief, p)
    assert is_clear(brief, max(p, q)) >= is_clear(brief, min(p, q))
    assert is_clear(brief, 1.0)
    assert not is_clear(long, 0.0)


def test_a_brief_follow_up_is_not_clear_where_a_question_is():
    assert not is_clear(UserTurn("And why?", 0, 1), 0.7)
    assert is_clear(UserTurn("Which planet of our solar system is the largest one?", 0, 1), 0.7)


@given(st.text(max_size=400), st.text(max_size=400), st.floats(0, 1))
def test_a_switch_needs_the_margin_and_more_where_the_turn_is_brief(one, other, margin):
    brief, long = sorted([one, one + other], key=len)
    needed = [margin_at(UserTurn(text, 0, 1), margin) for text in (brief, long)]
    assert needed[0] >= needed[1] >= margin
    assert math.isfinite(needed[0])


def test_without_a_margin_nothing_is_needed():
    assert margin_at(UserTurn("", 0, 1), 0.0) == 0.0


def test_what_a_lone_surrogate_needs_is_known():
    assert margin_at(UserTurn("\ud800", 0, 1), 0.1) == margin_at(UserTurn("?", 0, 1), 0.1)


# ---- which turn holds


def test_one_turn_holds_and_nothing_is_asked():
    assert turn_that_holds(["code"], refuse, refuse) == 0
    assert turn_that_holds([None], refuse, refuse) == 0


def test_an_uncertain_turn_keeps_what_was_read_before():
    assert held(["code", None, None], [[0, 1], [1, 0], [1, 0]]) == 0


def test_a_turn_that_is_certain_of_another_category_takes_over():
    assert held(["code", "maths"], [[0, 1], [1, 0]]) == 1
    assert held(["code", "maths", None, "code", None], [[0, 1], [1, 0], [0, 1]] * 2) == 3


def test_a_switch_must_gain_more_than_it_costs():
    utility = [[0.0, 1.0], [0.75, 0.5]]
    assert held(["code", "maths"], utility, cost=0.2) == 1
    assert held(["code", "maths"], utility, cost=0.25) == 0


def test_what_a_switch_costs_is_asked_of_the_expert_that_gives_way():
    asked = []
    utility = np.array([[0.0, 1.0, 0.0], [0.5, 0.0, 1.0]])
    assert turn_that_holds(["a", "b"], lambda k: utility[k], lambda *at: asked.append(at) or 0) == 1
    assert asked == [(1, 1)]


def test_within_a_category_the_expert_stays():
    assert held(["code", "code"], [[0, 1], [1, 0]]) == 0


@pytest.mark.parametrize("category", ["code", "maths"])
def test_where_the_expert_stays_the_newest_certain_turn_holds_whatever_a_switch_costs(category):
    assert held(["code", category, None], [[0, 1], [0.5, 0.75], [1, 0]], cost=math.inf) == 1


def test_of_turns_that_say_nothing_the_newest_holds():
    assert held([None, None, None], [[0, 1], [1, 0], [0, 1]], cost=math.inf) == 2


def test_of_equally_useful_experts_the_first_stays():
    assert held(["code", "maths"], [[0.5, 0.5], [0.75, 0.75]], cost=math.inf) == 1


@st.composite
def conversations(draw, least=1, most=8):
    """Categories of each turn, and (n_turns, n_experts) utilities."""
    n_turns, n_experts = draw(st.integers(least, most)), draw(st.integers(1, 4))
    categories = st.sampled_from([None, "code", "maths", "chat"])
    row = st.lists(st.floats(-1, 1), min_size=n_experts, max_size=n_experts)
    return (
        draw(st.lists(categories, min_size=n_turns, max_size=n_turns)),
        draw(st.lists(row, min_size=n_turns, max_size=n_turns)),
    )


@given(conversations(), st.floats(0, 2))
def test_the_next_turn_holds_or_what_held_before(talked, cost):
    """So that what one request was told is what the next one starts from."""
    categories, utility = talked
    before = 0
    for n in range(1, len(categories) + 1):
        now = held(categories[:n], utility[:n], cost)
        assert now in (before, n - 1)
        before = now


@given(conversations(), st.floats(0, 2))
def test_a_certain_turn_never_gives_way_to_an_uncertain_one(talked, cost):
    categories, utility = talked
    for n in range(2, len(categories) + 1):
        if categories[held(categories[: n - 1], utility[: n - 1], cost)] is not None:
            assert categories[held(categories[:n], utility[:n], cost)] is not None


@given(conversations(least=2, most=2), st.floats(0, 2), st.floats(0, 2))
def test_a_switch_that_costs_more_is_not_made_sooner(talked, one, other):
    cheap, dear = sorted([one, other])
    assert held(*talked, dear) <= held(*talked, cheap)


@given(conversations(), st.permutations(range(4)))
@example((["code", "maths"], [[0.5, 1.0], [1.0, 0.5]]), [1, 0, 2, 3])
def test_the_order_of_experts_does_not_matter(talked, order):
    categories, utility = talked
    rows = np.array(utility)
    # ties go to the first: leave none
    rows = rows + 1e-3 * np.arange(rows.shape[1])
    if any(len(set(row)) < len(row) for row in rows.tolist()):
        return
    columns = [k for k in order if k < rows.shape[1]]
    assert held(categories, rows, 0.1) == held(categories, rows[:, columns], 0.1)

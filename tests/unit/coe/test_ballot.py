"""Which answer is delivered: an election by what answers say, blind to the order they came in."""

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coe.ballot import Ballot
from coe.core import Estimate
from coe.routers.confidence import TRAITS, Confidence
from coe.routers.habit import Habit

NAMES = ("a", "b", "c", "d")


def estimate(quality, tokens=10.0):
    return Estimate(quality, 1.0, 1.0, 1.0, 0.0, tokens)


def ballot(*qualities, **more):
    return Ballot(
        {n: estimate(q) for n, q in zip(NAMES, qualities or (0.9, 0.8, 0.7, 0.6), strict=False)},
        **more,
    )


def hand_of(counting, *texts):
    return [counting.read(n, text, 10) for n, text in zip(NAMES, texts, strict=False)]


def learned(**coef):
    return Confidence(np.array([coef.get(trait, 0.0) for trait in TRAITS]), 0.0)


SAID = st.sampled_from(
    ["The answer is 4.", "It is 5", "five apples, I guess, or so it seems to me"]
)
QUALITY = st.sampled_from([0.3, 0.6, 0.8, 0.95])
HANDS = st.lists(st.tuples(SAID, QUALITY), min_size=1, max_size=4)
CONFIDENCE = st.none() | st.builds(
    learned,
    expected=st.floats(0.5, 1.0),
    silent=st.floats(-2.0, 0.0),
    support=st.floats(0.0, 1.0),
    opposition=st.floats(-1.0, 0.0),
    others=st.floats(-0.3, 0.3),
)


@given(HANDS, st.booleans(), CONFIDENCE, st.randoms(use_true_random=False))
def test_the_order_of_arrival_decides_nothing(cast, surest, confidence, rng):
    counting = ballot(*(quality for _, quality in cast), confidence=confidence)
    hand = hand_of(counting, *(text for text, _ in cast))
    shuffled = hand.copy()
    rng.shuffle(shuffled)
    assert counting.elect(shuffled, surest) == counting.elect(hand, surest)


@given(HANDS, CONFIDENCE)
def test_an_early_end_changes_neither_the_verdict_nor_that_it_is_sure(cast, confidence):
    """Whatever those say who were not waited for."""
    counting = ballot(*(quality for _, quality in cast), confidence=confidence)
    everyone = hand_of(counting, *(text for text, _ in cast))
    for n in range(1, len(cast)):
        hand, outstanding = everyone[:n], [late.expert_id for late in everyone[n:]]
        if not counting.settled(hand, outstanding):
            continue
        before, after = counting.elect(hand), counting.elect(everyone)
        assert after.answer.said == before.answer.said
        assert not after.tie
        if counting.stays_sure(hand, outstanding, 0.8) and after.answer == before.answer:
            assert after.confidence >= 0.8


def test_the_best_of_those_who_agree_is_delivered():
    counting = ballot()
    hand = hand_of(counting, "3", "4", "The answer is 4.", "answer: 4")
    elected = counting.elect(hand)
    assert elected.answer.expert_id == "b"
    assert elected.agreeing == ("b", "c", "d")
    assert 0.5 < elected.share < 1.0
    assert not elected.tie


def test_the_surest_is_not_always_of_the_majority():
    counting = ballot(0.97, 0.6, 0.6, confidence=learned(expected=1.0))
    hand = hand_of(counting, "3", "4", "4")
    elected = counting.elect(hand, surest=True)
    assert elected.answer.expert_id == "a"
    assert elected.agreeing == ("a",)
    assert elected.confidence == pytest.approx(0.97)


def test_confidence_grows_with_support_and_falls_with_opposition():
    for confidence in (None, learned(expected=1.0, support=0.5, opposition=-0.5)):
        counting = ballot(confidence=confidence)
        alone, agreed, opposed = (
            counting.elect(hand_of(counting, *texts)).confidence
            for texts in (["4"], ["4", "4"], ["4", "5"])
        )
        assert opposed < alone < agreed


def test_without_anything_learned_one_answer_is_as_sure_as_its_expert_is_good():
    counting = ballot(0.7)
    assert counting.elect(hand_of(counting, "4")).confidence == pytest.approx(0.7)


def test_length_counts_against_the_length_expected():
    counting = ballot(0.7, confidence=learned(length=-1.0))
    brief, long = (counting.elect([counting.read("a", "4", n)]).confidence for n in (10, 40))
    assert brief == pytest.approx(0.5)
    assert long < brief


def test_where_nobody_says_anything_that_can_be_told_the_best_expert_is_delivered():
    counting = ballot(0.2, 0.3, 0.3)
    prose = "There are many ways to look at this, and none of them is short.\nLet us begin."
    elected = counting.elect(hand_of(counting, prose, prose, prose))
    assert (elected.answer.expert_id, elected.agreeing, elected.share) == ("b", (), 0.0)
    assert elected.confidence == 0.0


@pytest.mark.parametrize("surest", [True, False])
def test_a_blank_answer_is_delivered_only_where_all_are(surest):
    counting = ballot()
    prose = "There are many ways to look at this, and none of them is short.\nLet us begin."
    assert counting.elect(hand_of(counting, " \n", prose), surest).answer.expert_id == "b"
    assert counting.elect(hand_of(counting, " \n", ""), surest).answer.expert_id == "a"


def test_nobody_need_wait_for_who_cannot_overrule_what_is_there():
    counting = ballot(0.9, 0.6, 0.6)
    hand = hand_of(counting, "4")
    assert counting.settled(hand, ["b", "c"])
    assert not ballot(0.65, 0.6, 0.6).settled(hand, ["b", "c"])
    assert not counting.settled(hand_of(counting, ""), ["b", "c"])


def test_a_cascade_waits_for_opposition_that_would_send_it_on():
    counting = ballot(0.9, 0.8)
    hand = hand_of(counting, "4")
    assert counting.settled(hand, ["b"])
    assert not counting.stays_sure(hand, ["b"], 0.85)
    assert counting.stays_sure(hand, ["b"], 0.6)


# ---- the form that the caller asked for

SCHEMA = {
    "type": "json_schema",
    "json_schema": {"name": "x", "schema": {"type": "object", "required": ["answer", "why"]}},
}


def test_an_answer_of_another_form_has_no_vote():
    counting = ballot(0.95, 0.6, form=SCHEMA)
    good = json.dumps({"answer": 4, "why": "so"})
    elected = counting.elect(hand_of(counting, '{"answer": 5}', good))
    assert elected.answer.text == good


def test_every_order_of_ties_ends_alike():
    counting = ballot(0.8, 0.8, 0.8)
    hand = hand_of(counting, "4", "5", "6")
    found = {counting.elect(order).answer for order in itertools.permutations(hand)}
    assert len(found) == 1
    assert counting.elect(hand).tie


def test_who_is_surer_than_usual_is_believed_more():
    habits = {"a": Habit(-0.5, 0.25), "b": Habit(-2.0, 1.0)}
    counting = ballot(0.8, 0.8, 0.8, confidence=learned(sureness=1.0), habits=habits)
    logprobs = {"a": -0.75, "b": -1.0, "c": -0.1}
    hand = [counting.read(name, "4 or so", 10, logprob) for name, logprob in logprobs.items()]
    # a is below its habit, b above it, and of c's nothing is known
    assert [counting.elect([one]).confidence for one in hand] == pytest.approx(
        [1 / (1 + math.exp(1.0)), 1 / (1 + math.exp(-1.0)), 0.5]
    )
    assert counting.elect(hand, surest=True).answer.expert_id == "b"
    untold = [counting.read(name, "4 or so", 10) for name in "abc"]
    assert [counting.elect([one]).confidence for one in untold] == [0.5] * 3

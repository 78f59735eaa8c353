"""Switches: what they do to a request, and that the engine consults them at every decision."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coe.core import Message, Policy, Request
from coe.engine import Engine
from coe.errors.callers import InfeasibleError
from coe.errors.experts import ExpertUnavailableError
from coe.experts.stub import StubExpert
from coe.load import Presence
from coe.offers import Menu, Offers
from coe.switches import Switches

NAMES = ("good", "fair", "poor")
TURNS = st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(["on", "ban", "force"])))
SOME = st.frozensets(st.sampled_from(NAMES))


def ask(text="some code", stream=True, **fields):
    return Request((Message("user", text),), stream=stream, **fields)


def turned(turns):
    switches = Switches()
    for name, switch in turns:
        switches = switches.turned(name, switch)
    return switches


@given(TURNS)
def test_the_last_word_on_an_expert_holds(turns):
    switches, last = turned(turns), dict(turns)
    assert {name: switches.of(name) for name in NAMES} == {n: last.get(n, "on") for n in NAMES}


@given(TURNS, SOME, SOME, SOME)
def test_a_ban_wins_over_whoever_forces_and_nothing_is_permitted_anew(turns, deny, ban, force):
    switches = turned(turns)
    policy = Policy("p", ban=ban, force=force - ban, local_only=True)
    found = switches.applied(ask(policy=policy, deny=deny))
    assert found.deny == deny | switches.banned
    assert found.policy.force == (policy.force | switches.forced) - switches.banned - ban
    assert replace(found, deny=deny, policy=policy) == ask(policy=policy, deny=deny)
    assert (found.policy.ban, found.policy.local_only) == (ban, True)


def test_a_request_by_name_gets_that_expert_or_a_refusal():
    switches = Switches(frozenset({"good"}), frozenset({"fair"}))
    assert switches.applied(ask(pinned="poor")) == ask(pinned="poor")
    with pytest.raises(InfeasibleError, match="'good' is switched off: ask for another") as refused:
        switches.applied(ask(pinned="good"))
    assert (refused.value.code, refused.value.param) == ("expert_banned", "model")


@pytest.fixture
def engine(make_spec, make_router, clock):
    """An engine over "good", "fair" and "poor", best first."""

    def build(**unusual):
        experts = {name: StubExpert(name) for name in NAMES} | unusual
        router = make_router([make_spec(name) for name in NAMES], [[0.9, 0.6, 0.3]] * 3)
        return Engine(router, experts, now=clock)

    return build


async def answered(engine, request):
    reply = await engine.answer(request)
    async for _ in reply.pieces():
        pass
    return reply


async def test_a_ban_holds_from_the_next_request_on_and_ends_when_it_is_lifted(engine):
    switched = engine()
    begun = await switched.answer(ask())
    switched.switches = switched.switches.turned("good", "ban")
    assert (await answered(switched, ask())).decision.expert_id == "fair"
    assert switched.decide(ask()).expert_id == "fair"
    assert [piece async for piece in begun.pieces()], "what has begun goes on"
    switched.switches = switched.switches.turned("good", "on")
    assert (await answered(switched, ask())).decision.expert_id == "good"
    assert len(switched.experts["good"].requests) == 2


async def test_nobody_is_asked_where_all_are_banned(engine):
    switched = engine()
    switched.switches = Switches(frozenset(NAMES))
    with pytest.raises(InfeasibleError) as refused:
        await switched.answer(ask())
    assert refused.value.code == "no_expert"
    with pytest.raises(InfeasibleError, match="switched off"):
        await switched.answer(ask(pinned="good"))
    assert not any(expert.requests for expert in switched.experts.values())


async def test_no_banned_expert_takes_over(engine):
    broken = StubExpert("good", error=ExpertUnavailableError("good", "gone"))
    switched = engine(good=broken)
    switched.switches = Switches(frozenset({"fair"}))
    assert (await answered(switched, ask())).decision.expert_id == "poor"
    switched.switches = Switches(frozenset({"fair", "poor"}))
    with pytest.raises(ExpertUnavailableError, match="gone"):
        await switched.answer(ask())
    assert switched.experts["fair"].requests == []


def test_a_banned_expert_is_not_asked_even_where_all_others_are_absent(engine):
    switched = engine()
    switched.presence = lambda: {"fair": Presence(0, 0), "poor": Presence(0, 0)}
    switched.switches = Switches(frozenset({"good"}))
    assert switched.decide(ask()).expert_id == "fair"


def test_a_conversation_leaves_an_expert_that_is_banned(engine):
    switched = engine()
    talk = Request((Message("user", "some code"), Message("assistant", "x"), Message("user", "?")))
    assert switched.decide(talk).expert_id == "good"
    switched.switches = Switches(frozenset({"good"}))
    assert switched.decide(talk).expert_id == "fair"


def menu(*sets):
    """The sets of a plan for one category, each with what it is worth."""
    members = [[name in experts for name in NAMES] for experts, _ in sets]
    return Menu.of(np.array(members), np.array([quality for _, quality in sets]))


def test_a_plans_menu_answers_for_who_is_banned(engine):
    """Its sets without the banned expert are still looked up; nothing is planned anew."""
    switched = engine()
    sets = menu(
        (("good",), 0.9), (("fair",), 0.6), (("poor",), 0.3),
        (("good", "fair"), 0.95), (("fair", "poor"), 0.9),
    )  # fmt: skip
    offers = Offers(NAMES, {"code": sets})
    switched.router = replace(switched.router, offers=offers, most_experts=2)
    whole = ask(stream=False)
    assert set(switched.decide(whole).selection.expert_ids) == {"good", "fair"}
    switched.switches = Switches(frozenset({"good"}))
    decision = switched.decide(whole)
    assert decision.selection.expert_ids == ("fair", "poor")
    # what the plan expects poor to add to fair
    assert decision.predicted.quality == pytest.approx(0.6 + 0.3)
    switched.switches = Switches(frozenset({"good", "poor"}))
    assert switched.decide(whole).selection.expert_ids == ("fair",)

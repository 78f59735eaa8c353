"""Who may be asked under a policy and a request, and who of them together."""

import numpy as np
import pytest

from coe.core import MOST_EXPERTS, Message, Policy, Request
from coe.errors.callers import InfeasibleError, RequestError
from coe.permitted import Circle, most_asked, permitted

ABC = ("a", "b", "c")


def ask(policy=None, **fields):
    return Request((Message("user", "some code"),), policy or Policy("p"), **fields)


@pytest.fixture
def specs(make_spec):
    """Only a is local, only c a generalist."""
    return {name: make_spec(name, local=name == "a", shared=name == "c") for name in ABC}


def test_everyone_is_permitted_who_is_neither_banned_nor_afar(specs):
    assert permitted(ABC, specs, Policy("p")) == ["a", "b", "c"]
    assert permitted(ABC, specs, Policy("p", ban=frozenset({"b"}))) == ["a", "c"]
    assert permitted(ABC, specs, Policy("p", local_only=True)) == ["a"]


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        (Policy("p", ban=frozenset(ABC)), "every expert is excluded"),
        (Policy("p", local_only=True, ban=frozenset({"a"})), "'p' is local_only"),
    ],
)
def test_where_nobody_is_permitted_it_says_why(specs, policy, said):
    with pytest.raises(InfeasibleError, match=said) as refused:
        permitted(ABC, specs, policy)
    assert refused.value.code == "no_expert"


@pytest.mark.parametrize(
    ("policy", "fields", "most"),
    [
        ({}, {}, MOST_EXPERTS),
        ({"most_experts": 3}, {}, 3),
        ({"most_experts": 3}, {"most_experts": 2}, 2),
        ({"most_experts": 3}, {"most_experts": 5}, 3),
        ({"combine": "never"}, {"most_experts": 5}, 1),
        ({}, {"mode": "single"}, 1),
        # a stream of several begins late: somebody must want that
        ({}, {"stream": True}, 1),
        ({}, {"stream": True, "most_experts": 1}, 1),
        ({}, {"stream": True, "most_experts": 3}, 3),
        ({}, {"stream": True, "mode": "vote"}, MOST_EXPERTS),
        ({"combine": "always"}, {"stream": True}, MOST_EXPERTS),
        # answers that cannot be combined
        ({}, {"n_answers": 2, "mode": "vote"}, 1),
        ({}, {"pinned": "a", "mode": "vote"}, 1),
        ({}, {"payload": {"tools": [{"type": "function"}]}, "mode": "vote"}, 1),
        ({"combine": "always"}, {"payload": {"logprobs": True}}, 1),
        ({}, {"payload": {"tools": [], "logprobs": False}}, MOST_EXPERTS),
    ],
)
def test_so_many_may_be_asked_for_one_answer(policy, fields, most):
    assert most_asked(ask(Policy("p", **policy), **fields)) == most


@pytest.mark.parametrize("policy", [{"combine": "never"}, {"most_experts": 1}])
def test_a_kind_that_the_policy_does_not_permit_is_refused(policy):
    with pytest.raises(RequestError) as refused:
        most_asked(ask(Policy("p", **policy), mode="vote"))
    assert (refused.value.param, refused.value.code) == ("coe.mode", "mode_unavailable")


def admitted(request, specs, *sets):
    circle = Circle.of(request, list(specs.values()))
    members = np.array([[name in chosen for name in circle.names] for chosen in sets])
    return [chosen for chosen, kept in zip(sets, circle.admits(members), strict=True) if kept]


def test_a_generalist_is_in_every_set_of_several(specs):
    sets = ("a", "b", "c", "ab", "ac", "bc", "abc")
    assert admitted(ask(), specs, *sets) == ["a", "b", "c", "ac", "bc", "abc"]
    assert admitted(ask(most_experts=2), specs, *sets) == ["a", "b", "c", "ac", "bc"]
    assert admitted(ask(most_experts=1), specs, *sets) == ["a", "b", "c"]


def test_who_is_forced_is_in_every_set(specs):
    sets = ("a", "b", "c", "ac", "bc", "abc")
    policy = Policy("p", force=frozenset({"b"}))
    assert admitted(ask(policy), specs, *sets) == ["b", "bc", "abc"]
    both = Policy("p", force=frozenset({"a", "b"}))
    assert admitted(ask(both), specs, *sets) == ["abc"]


def test_where_one_answers_it_is_one_of_the_forced(specs):
    policy = Policy("p", force=frozenset({"a", "b"}))
    assert admitted(ask(policy, stream=True), specs, "a", "b", "c", "abc") == ["a", "b"]


def test_an_expert_asked_for_by_name_needs_no_forced_one(specs):
    policy = Policy("p", force=frozenset({"b"}))
    assert admitted(ask(policy, pinned="a"), {"a": specs["a"]}, "a") == ["a"]


def test_who_is_forced_and_not_there_is_missed(specs):
    with pytest.raises(InfeasibleError, match="forces d, e") as refused:
        Circle.of(ask(Policy("p", force=frozenset({"e", "d"}))), list(specs.values()))
    assert refused.value.code == "no_expert"


def test_more_forced_experts_than_may_be_asked_are_refused(specs):
    request = ask(Policy("p", force=frozenset(ABC)), most_experts=2)
    with pytest.raises(InfeasibleError, match="forces 3 experts, and 2 at most") as refused:
        Circle.of(request, list(specs.values()))
    assert (refused.value.param, refused.value.code) == ("coe.k", "no_expert")

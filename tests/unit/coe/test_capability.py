"""Who may answer a request that asks for more than a text."""

from dataclasses import replace

import pytest

from coe.capability import EVERYTHING, OF_KIND
from coe.core import Message, Policy, Request
from coe.errors.callers import InfeasibleError, RequestError
from coe.permitted import capable, incapable, roomy
from coe.standing import Standing

IMAGE = {"images": "messages[0].content"}


@pytest.fixture
def specs(make_spec):
    """Of three, one that sees, one that takes ``top_k``, and one that does neither."""
    blind = make_spec("blind", capabilities=frozenset({"seed"}))
    seeing = make_spec("seeing", capabilities=frozenset({"seed", "images"}))
    tuned = make_spec("tuned", capabilities=frozenset(), extras=frozenset({"top_k"}))
    return {spec.id: spec for spec in (blind, seeing, tuned)}


def ask(text="some code", **fields):
    return Request((Message("user", text),), Policy("any"), **fields)


@pytest.mark.parametrize(
    ("fields", "able"),
    [
        ({}, ["blind", "seeing", "tuned"]),
        ({"needs": IMAGE}, ["seeing"]),
        ({"needs": {"seed": "seed"}}, ["blind", "seeing"]),
        ({"extras": frozenset({"top_k"})}, ["tuned"]),
    ],
)
def test_only_experts_that_can_are_left(specs, fields, able):
    request = ask(**fields)
    assert capable([*specs], specs, request) == able
    assert incapable([*specs], specs, request).keys() == specs.keys() - set(able)


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"needs": {"seed": "seed", "tools": "tools"}}, "tools", "capability_missing"),
        ({"extras": frozenset({"min_p"})}, "min_p", "unknown_parameter"),
        (
            {"needs": IMAGE, "extras": frozenset({"top_k"})},
            "messages[0].content",
            "capability_missing",
        ),
    ],
)
def test_what_nobody_can_is_refused_by_the_field_that_asks(specs, fields, param, code):
    with pytest.raises(RequestError) as refused:
        capable([*specs], specs, ask(**fields))
    assert (refused.value.param, refused.value.code) == (param, code)


def test_an_answer_that_stands_ready_needs_nobody_who_can(specs):
    request = ask(needs=IMAGE, standing={"blind": Standing("It is a cat.", 4, 0.9, "")})
    assert capable([*specs], specs, request) == ["blind", "seeing"]


def test_the_expert_that_can_is_chosen_and_the_better_one_says_what_it_lacks(
    make_router, make_spec
):
    worse = make_spec("worse", capabilities=frozenset({"images"}))
    better = make_spec("better", capabilities=frozenset())
    router = make_router([worse, better], [[0.25, 0.75]] * 3)
    assert router.decide(ask()).expert_id == "better"
    decision = router.decide(ask(needs=IMAGE))
    assert decision.expert_id == "worse"
    (other,) = decision.alternatives
    assert (other.expert_id, other.why_not) == ("better", "lacks images")
    assert other.utility == pytest.approx(0.75)
    assert decision.why.endswith("; better lacks images")


def test_an_expert_asked_for_by_name_is_refused_if_it_cannot(make_router, make_spec):
    router = make_router([make_spec("only", capabilities=frozenset())], [[0.5]] * 3)
    with pytest.raises(RequestError) as refused:
        router.decide(ask(needs={"tools": "tools"}, pinned="only"))
    assert (refused.value.param, refused.value.code) == ("tools", "capability_missing")


@pytest.mark.parametrize(
    ("max_tokens", "left"), [(None, ["a", "b"]), (90, ["a", "b"]), (91, ["b"])]
)
def test_the_context_must_hold_prompt_and_answer(make_spec, max_tokens, left):
    specs = {s.id: s for s in (make_spec("a", context_tokens=100), make_spec("b"))}
    request = ask("four", max_tokens=max_tokens)
    assert request.prompt_tokens == 9
    specs["a"] = replace(specs["a"], context_tokens=99)
    assert roomy([*specs], specs, request) == left


@pytest.mark.parametrize(
    ("max_tokens", "error", "param", "code"),
    [
        (101, RequestError, "max_tokens", "invalid_value"),
        (100, InfeasibleError, "messages", "context_length_exceeded"),
    ],
)
def test_what_no_context_holds_is_refused(make_spec, max_tokens, error, param, code):
    specs = {"a": make_spec("a", context_tokens=100)}
    with pytest.raises(error) as refused:
        roomy(["a"], specs, ask(max_tokens=max_tokens))
    assert (refused.value.param, refused.value.code) == (param, code)


def test_no_kind_is_taken_to_see_or_hear():
    for kind, capabilities in OF_KIND.items():
        assert capabilities <= EVERYTHING - {"images", "audio", "files"}, kind

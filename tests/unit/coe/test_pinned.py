"""Requests that name their expert: not read where nothing hangs on it, decided just so."""

from dataclasses import replace

import pytest

from coe.core import Budget, Message, Policy, Request
from coe.errors import CoeError
from coe.load import Load
from coe.pinned import UNREAD

QUALITY = [[0.25, 0.75], [0.625, 0.5], [0.375, 0.5]]
PINNED = Policy("pinned")
LONG = "word " * 20_000


@pytest.fixture
def router(make_spec, make_router):
    """A router whose embedder counts what it embeds."""
    specs = [make_spec("small", answer_tokens=99), make_spec("large", local=True)]
    return replace(make_router(specs, QUALITY), new_id=lambda: "dec", now=lambda: 0.0)


def ask(text="some maths", policy=PINNED, **fields):
    fields.setdefault("pinned", "small")
    return Request((Message("user", text),), policy, **fields)


class Unasked:
    name, dim = "words", 3

    def embed(self, texts):
        raise AssertionError(f"read {texts}")


@pytest.mark.parametrize("retrieve", ["auto", "never"])
def test_what_nothing_hangs_on_is_not_read(router, retrieve):
    unread = replace(router, embedder=Unasked())
    request = ask(retrieve=retrieve)
    decision = unread.decide(request)
    assert decision.category == UNREAD
    assert unread.texts(request) == ()
    # as the table has it for all prompts
    assert decision.predicted.quality == 0.375


@pytest.mark.parametrize(
    "request_",
    [
        ask(pinned=None),
        ask(read=True),
        ask(budget=Budget(latency_ms=1e6)),
        ask(policy=Policy("pinned", Budget(energy_j=1e6))),
        ask(most_experts=2),
        ask(mode="single"),
    ],
)
def test_everything_else_is(router, request_):
    assert router.decide(request_).category.name == "maths"
    assert router.texts(request_) == ("some maths",)


def test_everything_is_where_the_operator_wants_it(router):
    eager = replace(router, read_pinned=True)
    assert eager.decide(ask()).category.name == "maths"


def test_a_ceiling_that_is_left_is_kept(router):
    assert router.decide(ask(), Budget(latency_ms=1e6)).category.name == "maths"


@pytest.mark.parametrize("max_tokens", [None, 7])
@pytest.mark.parametrize("n_answers", [1, 3])
@pytest.mark.parametrize("retrieve", ["auto", "never"])
@pytest.mark.parametrize("pinned", ["small", "large"])
def test_it_is_the_decision_of_a_router_that_reads(router, pinned, retrieve, n_answers, max_tokens):
    request = ask(
        "weather", pinned=pinned, max_tokens=max_tokens, n_answers=n_answers, retrieve=retrieve
    )
    loads = {"small": Load(3, 2.0)}
    slow = router.decide(replace(request, read=True), loads=loads)
    # of a prompt that looks unfamiliar, averages over all prompts are all that is known, too
    assert replace(slow, category=UNREAD) == router.decide(request, loads=loads)


@pytest.mark.parametrize(
    "fields",
    [
        {"pinned": "nobody"},
        {"deny": frozenset({"nobody"})},
        {"allow": frozenset({"nobody"})},
        {"text": LONG},
        {"max_tokens": 10**6},
        {"policy": Policy("here", local_only=True)},
        {"policy": Policy("barred", ban=frozenset({"small"}))},
        {"extras": frozenset({"top_k"})},
        {"retrieve": "always"},
    ],
)
def test_it_refuses_what_a_router_that_reads_refuses(router, fields):
    with pytest.raises(CoeError) as read:
        router.decide(ask(**fields, read=True))
    with pytest.raises(CoeError) as unread:
        router.decide(ask(**fields))
    assert type(unread.value) is type(read.value)
    assert unread.value.args == read.value.args


def test_an_excluded_expert_does_not_answer(router):
    with pytest.raises(CoeError, match="every expert is excluded"):
        router.decide(ask(), excluded=frozenset({"small"}))

"""Experts that compute nothing: when their answers stand ready, and when they are chosen."""

import json
from dataclasses import replace

import pytest

from coe.assembly import Assembly
from coe.core import Budget, Message, Policy, Prices, Request
from coe.decision import CategoryGuess
from coe.engine import Engine
from coe.errors.callers import InfeasibleError, RequestError
from coe.errors.experts import ExpertRejectedError, ExpertUnavailableError
from coe.experts.standing import StandingExpert
from coe.experts.stub import StubExpert
from coe.free import CannedSection, ConstantSection, NullSection, free_spec, stock_of
from coe.retrieval import Retriever
from coe.routers.retrieve import Index, Passage
from coe.standing import text_tokens
from coe.stock import MATCHED_CHARS, Canned, Constants, Declination

MATHS = CategoryGuess("maths", "maths", 1.0, 0.0, 0.0, False)
UNSURE = replace(MATHS, name="general", uncertain=True)
FAQ = ConstantSection(
    id="faq",
    kind="constant",
    answers=[
        CannedSection(text="Nine to five.", patterns=["(?i)opening hours"]),
        CannedSection(text="Use a calculator.", categories=["maths"], quality=0.6),
    ],
)
NOBODY = NullSection(id="nobody", kind="null")
# rows: code, maths, anything else; columns: small, large
QUALITY = [[0.5, 0.9], [0.5, 0.9], [0.5, 0.9]]


def ask(*texts, **fields):
    roles = ("user", "assistant")
    messages = tuple(Message(roles[n % 2], text) for n, text in enumerate(texts))
    return Request(messages, **{"policy": Policy("strict"), **fields})


def said(request, guess=MATHS):
    ready = stock_of(FAQ).ready(request, guess)
    return None if ready is None else ready.text


@pytest.mark.parametrize(
    ("texts", "guess", "answer"),
    [
        (["What are your Opening Hours?"], UNSURE, "Nine to five."),
        (["What are your opening hours?"], MATHS, "Nine to five."),
        (["What is 3 + 4?"], MATHS, "Use a calculator."),
        (["What is 3 + 4?"], UNSURE, None),
        (["opening hours?", "Nine to five.", "And why?"], UNSURE, None),
        (["And now?", "What?", "opening hours"], UNSURE, "Nine to five."),
        (["opening hours?", "Nine to"], UNSURE, None),
        (["." * MATCHED_CHARS + "opening hours"], UNSURE, None),
    ],
)
def test_a_canned_answer_is_to_the_last_user_turn(texts, guess, answer):
    assert said(ask(*texts), guess) == answer


@pytest.mark.parametrize(
    "fields",
    [
        {"n_answers": 2},
        {"max_tokens": 2},
        {"retrieve": "always"},
        {"mode": "vote"},
        {"payload": {"tools": [{"type": "function"}]}},
        {"needs": {"images": "messages[0].content"}},
        {"payload": {"logprobs": True}},
        {"payload": {"response_format": {"type": "json_object"}}},
    ],
)
def test_nothing_is_ready_where_a_text_is_not_what_was_asked_for(fields):
    assert said(ask("opening hours?", **fields)) is None
    assert Declination("No.").ready(ask("opening hours?", **fields), MATHS).declines


def test_the_first_of_the_best_answers_is_taken():
    answers = [("c", 0.5), ("a", 0.7), ("b", 0.7)]
    stock = Constants(tuple(Canned(t, q, frozenset({"maths"})) for t, q in answers))
    assert stock.ready(ask("x"), MATHS).text == "a"


@pytest.fixture
def router(make_spec, make_router):
    """Two experts, one that is dear, and two that compute nothing."""
    specs = [make_spec("small"), make_spec("large", watts=100.0, context_tokens=1000)]
    made = make_router(specs, QUALITY)
    free = {section.id: free_spec(section) for section in (FAQ, NOBODY)}
    stocks = {section.id: stock_of(section) for section in (NOBODY, FAQ)}
    return replace(made, specs={**made.specs, **free}, stocks=stocks)


def test_a_canned_answer_competes_on_quality_and_takes_nothing(router):
    free = router.decide(ask("some opening hours code"))
    assert (free.expert_id, free.predicted.quality) == ("faq", 0.9)
    assert free.predicted.latency_ms == free.cautious.energy_j == free.predicted.cost_usd == 0
    assert "a canned answer for '(?i)opening hours'" in free.why
    better = router.decide(ask("some maths"))
    assert better.expert_id == "large"
    assert {o.expert_id for o in better.alternatives} == {"small", "faq", "nobody"}
    frugal = Policy("frugal", prices=Prices(per_joule=0.05))
    assert router.decide(ask("some maths", policy=frugal)).expert_id == "faq"


def test_it_is_no_candidate_where_it_has_nothing_to_say(router):
    decision = router.decide(ask("some code"))
    assert {o.expert_id for o in decision.alternatives} == {"small", "nobody"}


def test_a_null_declines_what_fits_nobody_and_says_what_would(router):
    with pytest.raises(InfeasibleError) as refused:
        replace(router, stocks={}).decide(ask("some code"), Budget(energy_j=0.1))
    decision = router.decide(ask("some code"), Budget(energy_j=0.1))
    assert (decision.expert_id, decision.declined, decision.status) == ("nobody", True, "optimal")
    assert decision.needed == refused.value.needed
    assert str(refused.value) in decision.why
    assert decision.binding == "energy_j"
    enough = router.decide(ask("some code"), Budget(energy_j=decision.needed["energy_j"]))
    assert (enough.declined, enough.expert_id, enough.needed) == (False, "small", {})


def test_a_null_declines_what_is_not_worth_its_price(router):
    dear = Policy("dear", prices=Prices(per_joule=1.0))
    decision = router.decide(ask("some code", policy=dear))
    assert decision.declined
    assert "no answer is worth what it takes" in decision.why
    assert decision.needed == {}


def test_under_nearest_nobody_is_declined_for_a_ceiling(router):
    nearest = Policy("nearest", on_infeasible="nearest")
    decision = router.decide(ask("some code", policy=nearest), Budget(energy_j=0.1))
    assert (decision.expert_id, decision.status, decision.declined) == ("small", "nearest", False)
    dear = replace(nearest, prices=Prices(per_joule=1.0))
    assert router.decide(ask("some code", policy=dear)).declined


def test_a_null_stands_in_for_nobody_who_is_gone_or_cannot_read_so_much(router):
    gone = frozenset({"small", "large"})
    with pytest.raises(InfeasibleError, match="every expert is excluded"):
        router.decide(ask("some code"), excluded=gone)
    assert router.decide(ask("opening hours"), excluded=gone).expert_id == "faq"
    with pytest.raises(InfeasibleError) as refused:
        router.decide(ask("code " * 10_000))
    assert refused.value.code == "context_length_exceeded"


def test_they_answer_by_name_where_they_can(router):
    pinned = router.decide(ask("opening hours", pinned="faq"))
    assert (pinned.expert_id, pinned.status) == ("faq", "pinned")
    with pytest.raises(RequestError, match="faq has no answer ready") as refused:
        router.decide(ask("some code", pinned="faq"))
    assert (refused.value.code, refused.value.param) == ("no_answer_ready", "model")
    declined = router.decide(ask("some code", pinned="nobody"), Budget(energy_j=0.1))
    assert (declined.declined, declined.why) == (True, "nobody: asked for by name")


def test_allow_and_deny_hold_for_them(router):
    assert router.decide(ask("opening hours", deny=frozenset({"faq"}))).expert_id == "large"
    only = router.decide(ask("some code", allow=frozenset({"nobody"})))
    assert only.declined
    assert "nobody else may answer" in only.why
    with pytest.raises(InfeasibleError):
        router.decide(ask("some code", allow=frozenset({"small"})), Budget(energy_j=0.1))


def test_a_router_of_nothing_else_answers(router):
    alone = replace(router, specs={n: router.specs[n] for n in router.stocks})
    assert alone.decide(ask("opening hours")).expert_id == "faq"
    assert alone.decide(ask("some code")).declined
    silent = replace(alone, stocks={"faq": router.stocks["faq"]})
    with pytest.raises(InfeasibleError):
        silent.decide(ask("some code"))


def test_a_conversation_is_not_held_by_them(router):
    followed = ask("opening hours", "Nine to five.", "Then some code")
    assert router.decide(followed).expert_id == "large"


PASSAGE = Passage("p1", "The opening of the code of engines.", "engines.md")


@pytest.mark.parametrize("retrieve", ["auto", "always", "never"])
def test_no_passages_go_to_who_computes_nothing(router, retrieve):
    fed = replace(router, retriever=Retriever(Index.build([PASSAGE])))
    request = ask("opening hours of the code", retrieve=retrieve)
    for asked in (request, replace(request, budget=Budget(energy_j=0.1))):
        decision, outgoing = fed.dispatch(asked)
        if decision.expert_id == "large":
            assert retrieve == "always"
            assert decision.retrieval.retrieve
        else:
            assert decision.expert_id == ("nobody" if retrieve == "always" else "faq")
            assert not decision.retrieval.retrieve
            assert outgoing.passages_tokens == 0


async def body_of(engine, request):
    reply = await engine.answer(request)
    return reply, b"".join([piece async for piece in reply.pieces()])


@pytest.fixture
def engine(router, clock):
    experts = {name: StubExpert(name) for name in ("small", "large")}
    return Engine(router, {**experts, **{n: StandingExpert(n) for n in router.stocks}}, clock)


@pytest.mark.parametrize("stream", [False, True])
async def test_what_was_ready_is_said_and_nothing_is_spent(engine, stream):
    reply, body = await body_of(engine, ask("opening hours", stream=stream))
    assert b"Nine to five." in body
    receipt = reply.receipt
    assert (receipt.expert_id, receipt.outcome) == ("faq", "complete")
    assert receipt.energy_j == receipt.cost_usd == 0
    assert receipt.output_tokens == 4
    assert receipt.copied_from is None
    assert engine.experts["large"].requests == engine.experts["small"].requests == []


async def test_experts_that_fail_are_not_declined(engine):
    for name in ("small", "large"):
        engine.experts[name].error = ExpertUnavailableError(name, "gone")
    with pytest.raises(ExpertUnavailableError):
        await engine.answer(ask("some code"))
    reply, body = await body_of(engine, ask("some maths"))
    assert (reply.receipt.expert_id, reply.receipt.failed_over) == ("faq", ("large",))
    assert b"Use a calculator." in body


class SlowToFail:
    """Takes its time before it turns out not to be there."""

    def __init__(self, clock):
        self.clock = clock

    async def stream(self, request, max_tokens):
        await self.clock.sleep(100)
        raise ExpertUnavailableError("large", "gone")
        yield b""


async def test_a_failure_that_left_no_time_is_an_error_and_not_declined(engine, clock):
    engine.experts = {**engine.experts, "large": SlowToFail(clock)}
    with pytest.raises(ExpertUnavailableError):
        await engine.answer(ask("some code", budget=Budget(latency_ms=50_000.0)))


async def test_without_an_answer_it_refuses(engine):
    with pytest.raises(ExpertRejectedError, match="has no answer ready"):
        await anext(engine.experts["faq"].stream(ask("opening hours"), None))


async def test_a_declination_is_said_as_often_as_an_answer_was_asked_for(engine):
    _, whole = await body_of(engine, ask("some code", pinned="nobody", n_answers=3))
    assert [choice["index"] for choice in json.loads(whole)["choices"]] == [0, 1, 2]
    reply, body = await body_of(engine, ask("code", pinned="nobody", n_answers=3, stream=True))
    assembly = Assembly()
    assembly.feed(body)
    choices = json.loads(assembly.document())["choices"]
    assert {choice["message"]["content"] for choice in choices} == {NOBODY.text}
    assert {choice["finish_reason"] for choice in choices} == {"stop"}
    assert len(choices) == 3
    assert reply.receipt.output_tokens == 3 * text_tokens(NOBODY.text)

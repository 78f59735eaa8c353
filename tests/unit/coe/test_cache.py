"""Copies of answers: what is kept, who gets it, and when it is forgotten."""

import json
from dataclasses import replace

import pytest

from coe.answer import completion, pieces_of
from coe.cache import ENTRY_BYTES, AnswerCache
from coe.core import Budget, Message, Policy, Request
from coe.engine import Engine
from coe.errors.callers import RequestError
from coe.experts.standing import StandingExpert
from coe.experts.stub import StubExpert
from coe.free import CopySection, free_spec
from coe.standing import Origin, Standing

QUALITY = [[0.5, 0.9], [0.5, 0.9], [0.5, 0.9]]
NOTHING = Standing("", 0, 0.0, "")
COPY = CopySection(id="copy", kind="copy")


def ask(text="some code", **fields):
    payload = {"messages": [{"role": "user", "content": text}], **fields.pop("payload", {})}
    messages = (Message("user", text),)
    return Request(messages, **{"policy": Policy("strict"), "payload": payload, **fields})


@pytest.fixture
def cache(clock):
    return AnswerCache(max_entries=3, max_bytes=10_000, ttl_s=60.0, now=clock)


@pytest.fixture
def engine(make_spec, make_router, clock, cache):
    router = make_router([make_spec("small"), make_spec("large", watts=100.0)], QUALITY)
    router = replace(
        router, specs={**router.specs, "copy": free_spec(COPY)}, stocks={"copy": cache}
    )
    experts = {"small": StubExpert("small"), "large": StubExpert("large")}
    return Engine(router, {**experts, "copy": StandingExpert("copy")}, clock, cache=cache)


async def answered(engine, request):
    """Receipt and text of an answer."""
    reply = await engine.answer(request)
    body = b"".join([piece async for piece in reply.pieces()])
    if not request.stream:
        return reply.receipt, json.loads(body)["choices"][0]["message"]["content"]
    events = [json.loads(e[6:]) for e in body.split(b"\n\n") if e.startswith(b"data: {")]
    return reply.receipt, "".join(e["choices"][0]["delta"].get("content", "") for e in events)


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("second", [False, True])
async def test_who_asks_again_gets_the_same_for_nothing(engine, first, second):
    given, text = await answered(engine, ask(stream=first, payload={"stream": first, "user": "a"}))
    assert given.expert_id == "large"
    assert given.copied_from is None
    copied, again = await answered(engine, ask(stream=second, payload={"stream": second}))
    assert again == text == "Hello there."
    assert copied.expert_id == "copy"
    assert copied.copied_from == Origin(given.decision_id, "large")
    assert copied.energy_j == copied.cost_usd == 0
    assert copied.output_tokens == given.output_tokens
    assert len(engine.experts["large"].requests) == 1


async def test_a_copy_is_expected_to_be_as_good_as_what_was_copied(engine):
    await answered(engine, ask())
    decision = engine.decide(ask())
    assert decision.predicted.quality == 0.9
    assert decision.predicted.energy_j == decision.cautious.latency_ms == 0
    assert "as large answered before" in decision.why
    assert engine.decide(ask("other code")).expert_id == "large"


async def test_a_worse_copy_gives_way_where_a_better_answer_is_worth_it(engine):
    await answered(engine, ask(budget=Budget(energy_j=20.0)))
    assert len(engine.experts["small"].requests) == 1
    assert engine.decide(ask()).expert_id == "large"
    assert engine.decide(ask(budget=Budget(energy_j=20.0))).expert_id == "copy"


@pytest.mark.parametrize(
    "other",
    [
        {"tenant": "b"},
        {"policy": Policy("other")},
        {"cache": False},
        {"payload": {"seed": 1}},
        {"payload": {"temperature": 0.7}},
        {"payload": {"tools": []}},
        {"n_answers": 2},
        {"deny": frozenset({"large"})},
        {"deny": frozenset({"copy"})},
        {"allow": frozenset({"small", "copy"})},
        {"policy": Policy("strict", ban=frozenset({"large"}))},
        {"mode": "vote"},
    ],
)
async def test_another_request_gets_no_copy(engine, other):
    await answered(engine, ask(tenant="a"))
    assert engine.decide(ask(tenant="a")).expert_id == "copy"
    assert engine.decide(ask(**{"tenant": "a", **other})).expert_id != "copy"


@pytest.mark.parametrize(
    "fields",
    [
        {"cache": False},
        {"n_answers": 2},
        {"payload": {"temperature": 0.7}},
        {"payload": {"tools": [{"type": "function"}]}},
        {"payload": {"logprobs": True}},
        {"passages_tokens": 5},
    ],
)
async def test_what_may_not_be_copied_is_not_kept(engine, cache, fields):
    await answered(engine, ask(**fields))
    assert len(cache) == 0


def whole(finish="stop", text="Hi.", **message):
    document = json.loads(completion("x", "large", text, 1, 1, finish))
    document["choices"][0]["message"] |= message
    return [json.dumps(document).encode()]


def event(**choice):
    document = {"choices": [{"index": 0, "delta": {}, "finish_reason": None, **choice}]}
    return b"data: " + json.dumps(document).encode() + b"\n\n"


STREAM = list(pieces_of("x", "large", ["Hi", "."]))


@pytest.mark.parametrize(
    ("stream", "pieces", "kept"),
    [
        (False, whole(), 1),
        (False, [b"", b"", *whole()], 1),
        (False, whole(refusal=None, annotations=[]), 1),
        (False, whole("length"), 0),
        (False, whole(text=""), 0),
        (False, whole(tool_calls=[{"id": "1"}]), 0),
        (False, whole(reasoning_content="because"), 0),
        (False, [b'{"choices": [{}, {}]}'], 0),
        (False, [b'{"choices": 3}'], 0),
        (False, [b"[]"], 0),
        (False, [b"["], 0),
        (False, [b"[" * 100_000], 0),
        (True, STREAM, 1),
        (True, [bytes([byte]) for byte in b"".join(STREAM)], 1),
        (True, [b": waiting\n\n", *STREAM], 1),
        (True, [b'data: {"choices": [], "usage": {}}\n\n', *STREAM], 1),
        (True, [event(delta={"tool_calls": [{}]}), *STREAM], 0),
        (True, [event(delta={"reasoning": "because"}), *STREAM], 0),
        (True, [event(delta=None), *STREAM], 0),
        (True, [event(index=1), *STREAM], 0),
        (True, [event(delta={"content": 3}), *STREAM], 0),
        (True, [b'data: {"error": {}, "choices": []}\n\n', *STREAM], 0),
        (True, [b"data: nonsense\n\n", *STREAM], 0),
        (True, [b"data: " + b"x" * 20_000, *STREAM], 0),
        (True, STREAM[:-2], 0),
    ],
)
async def test_only_whole_plain_texts_are_kept(engine, cache, stream, pieces, kept):
    request = ask(stream=stream)
    decision = engine.decide(request)
    recording = cache.recording(request, decision)
    for piece in pieces:
        recording.feed(piece)
    receipt, _ = await answered(engine, ask(cache=False))
    recording.keep(receipt)
    assert len(cache) == kept
    if kept:
        assert cache.ready(request, decision.category).text == "Hi."


async def test_an_answer_that_was_given_up_is_not_kept(engine, cache):
    reply = await engine.answer(ask(stream=True))
    pieces = reply.pieces()
    await anext(pieces)
    await pieces.aclose()
    assert reply.receipt.outcome == "cancelled"
    assert len(cache) == 0


async def test_a_copy_is_not_copied(engine, cache):
    await answered(engine, ask())
    held = cache.n_bytes
    for _ in range(3):
        await answered(engine, ask())
    assert (len(cache), cache.n_bytes) == (1, held)


async def test_an_answer_grows_old(engine, cache, clock):
    await answered(engine, ask())
    await clock.sleep(59.0)
    assert engine.decide(ask()).expert_id == "copy"
    await clock.sleep(1.0)
    assert engine.decide(ask()).expert_id == "large"
    assert (len(cache), cache.n_bytes) == (0, 0)


async def test_by_name_it_repeats_what_experts_said_by_name(engine):
    with pytest.raises(RequestError, match="copy has no answer ready"):
        engine.decide(ask(pinned="copy"))
    by_name = {"policy": Policy("pinned")}
    await answered(engine, ask(pinned="small", **by_name))
    receipt, _ = await answered(engine, ask(pinned="copy", **by_name))
    assert receipt.copied_from.expert_id == "small"


async def test_prompts_are_not_kept(engine, cache):
    await answered(engine, ask("some secret code"))
    assert "secret" not in repr([getattr(cache, name) for name in cache.__slots__])
    same = AnswerCache(3, 10_000, 60.0)
    assert same.secret != cache.secret
    assert repr(cache.secret) not in repr(cache)


def test_what_is_larger_than_all_there_is_room_for_is_not_kept(cache):
    assert ENTRY_BYTES < 10_000
    ready = replace(NOTHING, text="x" * 10_000)
    cache.keep(b"key", ready)
    assert (len(cache), cache.n_bytes) == (0, 0)

"""An answer that several experts write together, token by token."""

import asyncio
import itertools
import json
import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coe.answer import AnswerMeter
from coe.combine import mixture, unmixable
from coe.core import Message, Request
from coe.decision import Selection
from coe.errors.callers import RequestError
from coe.errors.experts import ExpertTimeoutError, ExpertUnavailableError
from coe.experts.continuation import Token, Vocabulary
from coe.experts.mixed import MixedExpert, Spent
from coe.experts.stub import StubContinuation, StubExpert
from coe.experts.writing import Drawing, Writing
from coe.mode import Mode

END, A, B, SPACE = Token(0, b""), Token(1, b"a"), Token(2, b"b"), Token(3, b" ")
ALPHABET = (END, A, B, SPACE)
PLACE = st.lists(st.integers(1, 1000), min_size=4, max_size=4).map(
    lambda counts: {
        token: math.log(n / sum(counts)) for token, n in zip(ALPHABET, counts, strict=True)
    }
)


def certain(*tokens):
    """One that is sure of every place."""
    return StubContinuation([{token: 0.0} for token in tokens])


def ask(stream=False, **payload):
    body = {"messages": [{"role": "user", "content": "Hi"}], "stream": stream, **payload}
    return Request((Message("user", "Hi"),), stream=stream, payload=body)


def mixed(*members, weights=None):
    names = [f"m{n}" for n in range(len(members))]
    weights = weights or [1.0] * len(members)
    return MixedExpert(
        "mix",
        dict(zip(names, members, strict=True)),
        dict(zip(names, weights, strict=True)),
        Random(0),
    )


async def said(expert, request=None, max_tokens=None):
    """Text, reason to finish, and tokens of a whole answer."""
    answer = expert.stream(request or ask(), max_tokens)
    document = json.loads(b"".join([piece async for piece in answer]))
    choice = document["choices"][0]
    tokens = document["usage"]["completion_tokens"]
    return choice["message"]["content"], choice["finish_reason"], tokens


def greedy(places, most):
    """The slow twin: what one expert alone says when it always takes its likeliest."""
    text, n = b"", 0
    while n < most:
        place = places[min(n, len(places) - 1)]
        token = min(place, key=lambda t: (-place[t], t))
        n += 1
        if token == END:
            return text.decode(), "stop", n
        text += token.text
    return text.decode(), "length", n


@given(st.lists(PLACE, min_size=1, max_size=6))
def test_a_mixture_of_one_is_that_one(places):
    assert asyncio.run(said(mixed(StubContinuation(places)), max_tokens=8)) == greedy(places, 8)


@given(st.lists(st.lists(PLACE, min_size=3, max_size=3), min_size=2, max_size=4), st.randoms())
def test_the_order_of_members_decides_nothing(tables, rng):
    weights = [rng.uniform(0.1, 1.0) for _ in tables]
    order = list(range(len(tables)))
    rng.shuffle(order)

    def run(ids):
        members = [StubContinuation(tables[n]) for n in ids]
        expert = mixed(*members, weights=[weights[n] for n in ids])
        return asyncio.run(said(expert, ask(temperature=1, seed=3), 12))

    assert run(order) == run(range(len(tables)))


async def test_the_heavier_of_two_certain_ones_writes():
    one, other = certain(A, A, END), certain(B, B, END)
    assert await said(mixed(one, other, weights=[1, 2])) == ("bb", "stop", 3)
    assert await said(mixed(one, other, weights=[2, 1])) == ("aa", "stop", 3)


async def test_every_member_makes_every_token():
    members = certain(A, B, END), certain(A, A, END)
    answer = mixed(*members, weights=[2, 1]).stream(ask(), None)
    pieces = [piece async for piece in answer]
    assert answer.spent == {"m0": Spent(5, 3), "m1": Spent(5, 3)}
    assert [member.n_asked for member in members] == [3, 3]
    assert pieces[:-1] == [b""] * 3


async def test_a_stream_is_one_event_a_token_and_states_its_usage():
    pieces = [p async for p in mixed(certain(A, SPACE, B, END)).stream(ask(stream=True), None)]
    meter = AnswerMeter(stream=True)
    for piece in pieces[:-2]:
        meter.feed(piece)
    assert meter.n_tokens == 4
    for piece in pieces[-2:]:
        meter.feed(piece)
    reading = meter.reading()
    assert (reading.prompt_tokens, reading.output_tokens, reading.ended) == (5, 4, True)
    deltas = [json.loads(p[6:])["choices"][0]["delta"] for p in pieces[:-1]]
    assert "".join(delta.get("content", "") for delta in deltas) == "a b"
    assert deltas[0]["role"] == "assistant"


@pytest.mark.parametrize(("cap", "room"), [(3, 100), (None, 3), (9, 3), (3, 3)])
async def test_an_answer_ends_at_the_cap_or_where_a_context_is_full(cap, room):
    short = StubContinuation([{A: 0.0}], room_tokens=room)
    roomy = StubContinuation([{A: 0.0}])
    assert await said(mixed(roomy, short), max_tokens=cap) == ("aaa", "length", 3)


@pytest.mark.parametrize(
    ("stop", "text"),
    [("b", "a "), (["x", " b"], "a"), ("ba", "a "), ("zzz", "a baa"), ("", "a baa")],
)
async def test_a_stop_is_no_part_of_the_answer(stop, text):
    expert = mixed(certain(A, SPACE, B, A, A, END))
    whole = await said(expert, ask(stop=stop))
    assert whole[:2] == (text, "stop")
    answer = expert.stream(ask(stream=True, stop=stop), None)
    deltas = [json.loads(p[6:])["choices"][0]["delta"] async for p in answer if b"[DONE]" not in p]
    assert "".join(delta.get("content", "") for delta in deltas) == text


async def test_a_character_of_several_tokens_comes_whole():
    wave = "👋".encode()
    parts = [Token(10 + n, bytes([byte])) for n, byte in enumerate(wave)]
    answer = mixed(certain(*parts, A, END)).stream(ask(stream=True), None)
    events = [json.loads(p[6:])["choices"][0]["delta"] async for p in answer if b"[DONE]" not in p]
    contents = [event.get("content", "") for event in events]
    assert contents == ["", "", "", "", "👋", "a", "", ""]


async def test_a_failure_before_the_first_token_comes_before_the_first_piece():
    failing = StubContinuation([{A: 0.0}], error=ExpertTimeoutError("m1", "silent"))
    answer = mixed(certain(A, END), failing).stream(ask(stream=True), None)
    with pytest.raises(ExpertTimeoutError):
        await anext(answer)
    assert answer.spent == {}


async def test_a_failure_in_mid_answer_ends_it_with_the_error():
    failing = StubContinuation([{A: 0.0}], error=ExpertTimeoutError("m1", "silent"), error_after=2)
    answer = mixed(certain(A, A, A, END), failing).stream(ask(stream=True), None)
    role, first, second = [await anext(answer) for _ in range(3)]
    assert b'"assistant"' in role
    assert b'"a"' in first
    assert b'"a"' in second
    with pytest.raises(ExpertTimeoutError):
        await anext(answer)
    assert answer.spent["m0"] == Spent(5, 2)


async def test_one_who_leaves_stops_everybody():
    member = StubContinuation([{A: 0.0}])
    answer = mixed(member).stream(ask(stream=True), None)
    await anext(answer)
    await answer.aclose()
    assert member.n_asked == 1
    assert answer.spent == {"m0": Spent(5, 1)}


async def test_two_vocabularies_are_not_mixed():
    other = StubContinuation([{A: 0.0}], vocabulary=Vocabulary(4, (0, 1)))
    with pytest.raises(ExpertUnavailableError, match="'m1': does not share the vocabulary of 'm0'"):
        await anext(mixed(certain(A, END), other).stream(ask(), None))


def test_a_mixture_that_was_decided_on_is_made_of_experts_that_can_be_mixed():
    selection = Selection(("a", "b"), (0.75, 0.25), Mode("mixture", (("a", "b"),)), ())
    experts = {"a": certain(A, END), "b": certain(B, END), "c": StubExpert("c")}
    one = MixedExpert.of(selection, experts)
    assert (one.expert_id, one.weights) == ("a ~ b", {"a": 0.75, "b": 0.25})
    assert dict(one.members) == {"a": experts["a"], "b": experts["b"]}
    with pytest.raises(ExpertUnavailableError, match="'b'"):
        MixedExpert.of(selection, {**experts, "b": experts["c"]})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tools", []), ("logprobs", True), ("response_format", {}), ("logit_bias", {}),
        ("temperature", "hot"), ("temperature", -1), ("top_p", -1), ("seed", True), ("stop", 5),
    ],
)  # fmt: skip
def test_what_a_mixture_cannot_do_is_refused_before_anybody_is_asked(field, value):
    with pytest.raises(RequestError) as raised:
        mixed(certain(A, END)).stream(ask(**{field: value}), None)
    assert raised.value.param == field


def test_a_request_says_what_of_it_cannot_be_mixed():
    assert unmixable(ask(temperature=1, seed=2, stop="x", tools=None)) is None
    assert unmixable(ask(grammar="root ::= [a-z]")) == "grammar"
    assert unmixable(Request((Message("user", "Hi"),), n_answers=2)) == "n"


async def test_a_seed_repeats_and_its_draws_follow_the_mixture():
    half = {A: math.log(0.5), B: math.log(0.5)}
    expert = mixed(StubContinuation([half]), StubContinuation([{A: 0.0}]))
    once = await said(expert, ask(temperature=1, seed=7), 100)
    assert await said(expert, ask(temperature=1, seed=7), 100) == once
    # three in four, give or take five standard deviations
    assert 53 <= once[0].count("a") <= 97


@given(PLACE, st.floats(0.01, 2.0), st.floats(0.0, 1.0), st.integers(0, 2**32))
def test_a_draw_is_from_the_fewest_that_make_up_top_p(place, temperature, top_p, seed):
    probabilities = mixture([place], [1.0])
    drawn = Drawing(temperature, top_p, Random(seed)).draw(probabilities)
    raised = {t: p ** (1 / temperature) for t, p in probabilities.items()}
    likelier = sum(p for p in raised.values() if p > raised[drawn])
    assert likelier < top_p * sum(raised.values()) or raised[drawn] == max(raised.values())
    assert Drawing(0.0, top_p, Random(seed)).draw(probabilities) == next(iter(probabilities))


@given(st.text(max_size=20), st.lists(st.text("ab", min_size=1, max_size=3), max_size=2), st.data())
def test_writing_says_what_stands_before_the_first_stop(text, stops, data):
    raw = (text + data.draw(st.text("ab", max_size=6))).encode()
    whole = raw.decode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=5)))
    writing, said = Writing(stops), ""
    bounds = [0, *cuts, len(raw)]
    for n, (start, end) in enumerate(itertools.pairwise(bounds)):
        if not writing.stopped:
            said += writing.write(raw[start:end], final=n == len(cuts))
    ends = [at + len(stop) for stop in stops for at in [whole.find(stop)] if at >= 0]
    if not ends:
        assert (said, writing.stopped) == (whole, False)
    else:
        assert writing.stopped
        assert whole.startswith(said)
        assert not any(stop in said for stop in stops)
        assert len(said) <= min(ends)

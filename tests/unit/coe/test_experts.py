"""Experts that need no engine: the stub and the replay."""

import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coe.answer import AnswerMeter, Reading, pieces_of
from coe.core import Message, Request
from coe.errors.experts import ExpertRejectedError, ExpertTimeoutError
from coe.experts.replay import Recorded, ReplayExpert, prompt_key
from coe.experts.stub import StubExpert

PROMPT = "Why is the sky blue?"
ANSWER = "Because short waves\nscatter more. "


def ask(text=PROMPT, stream=True):
    return Request((Message("user", text),), stream=stream)


async def joined(expert, request, max_tokens=None):
    return b"".join([piece async for piece in expert.stream(request, max_tokens)])


def words(body):
    """What the events of a stream say, and why it finished."""
    documents = [json.loads(line[6:]) for line in body.splitlines() if line.startswith(b"data: {")]
    choices = [document["choices"][0] for document in documents]
    return "".join(c["delta"].get("content", "") for c in choices), choices[-1]["finish_reason"]


# ---- stub


async def test_a_stub_says_its_tokens_as_a_stream_and_as_a_document():
    stub = StubExpert("a", ["Good", " day"])
    assert words(await joined(stub, ask())) == ("Good day", "stop")
    document = json.loads(await joined(stub, ask(stream=False)))
    assert document["choices"][0]["message"]["content"] == "Good day"
    assert document["usage"]["completion_tokens"] == 2


async def test_a_stub_remembers_what_it_was_asked():
    stub = StubExpert("a")
    one, two = ask("one"), ask("two")
    await joined(stub, one, 2)
    await joined(stub, two)
    assert (stub.requests, stub.caps) == ([one, two], [2, None])


async def test_a_stub_keeps_to_the_cap():
    assert words(await joined(StubExpert("a", ["x", "y", "z"]), ask(), 2))[0] == "xy"


@pytest.mark.parametrize("error_after", [0, 1, 3])
async def test_a_stub_fails_after_the_pieces_it_was_told(error_after):
    stub = StubExpert("a", error=ExpertTimeoutError("a", "silent"), error_after=error_after)
    pieces = stub.stream(ask(), None)
    for piece in list(pieces_of("chatcmpl-stub-1", "a", stub.tokens))[:error_after]:
        assert await anext(pieces) == piece
    with pytest.raises(ExpertTimeoutError):
        await anext(pieces)
    assert stub.n_closed == 0


async def test_a_stub_pauses_before_each_piece(clock):
    stub = StubExpert("a", ["x", "y"], token_s=0.5, sleep=clock.sleep)
    await joined(stub, ask())
    # role, two tokens, finish reason, end mark
    assert clock() == 2.5


async def test_a_stub_counts_the_answers_that_were_closed_early():
    stub = StubExpert("a")
    pieces = stub.stream(ask(), None)
    await anext(pieces)
    await pieces.aclose()
    await joined(stub, ask())
    assert stub.n_closed == 1


# ---- replay


@pytest.fixture
def pauses():
    return []


@pytest.fixture
def replay(make_spec, pauses):
    async def sleep(seconds):
        pauses.append(seconds)

    def replaying(time_scale=1.0, answer=ANSWER, n_tokens=None, **fields):
        answers = {prompt_key(PROMPT): Recorded(answer, n_tokens)}
        return ReplayExpert(make_spec("a", **fields), answers, time_scale, sleep)

    return replaying


async def test_a_replay_says_what_was_recorded(replay):
    assert words(await joined(replay(), ask())) == (ANSWER, "stop")
    document = json.loads(await joined(replay(), ask(stream=False)))
    assert document["choices"][0]["message"]["content"] == ANSWER
    assert document["choices"][0]["finish_reason"] == "stop"


async def test_a_replay_states_its_token_counts(replay):
    meter = AnswerMeter(stream=True)
    meter.feed(await joined(replay(), ask()))
    # a word with the space before it is a token, and so is the space at the end
    assert meter.reading() == Reading(ask().prompt_tokens, 6, stated=True, ended=True)
    usage = json.loads(await joined(replay(), ask(stream=False)))["usage"]
    assert usage["completion_tokens"] == 6
    assert usage["prompt_tokens"] == ask().prompt_tokens


@pytest.mark.parametrize("stream", [True, False])
async def test_recorded_tokens_count_and_not_words(replay, pauses, stream):
    expert = replay(n_tokens=12, ttft_ms=250.0, tokens_per_s=8.0)
    meter = AnswerMeter(stream)
    meter.feed(await joined(expert, ask(stream=stream)))
    assert meter.reading() == Reading(ask().prompt_tokens, 12, stated=True, ended=True)
    assert sum(pauses) == 0.25 + 12 / 8


@pytest.mark.parametrize("stream", [True, False])
async def test_a_cap_on_recorded_tokens_cuts_words_in_proportion(replay, stream):
    meter = AnswerMeter(stream)
    body = await joined(replay(n_tokens=12), ask(stream=stream), 4)
    meter.feed(body)
    assert meter.reading().output_tokens == 4
    if stream:
        assert words(body) == ("Because short", "length")


@given(text=st.text())
def test_the_tokens_of_a_replay_lose_nothing(text, make_spec):
    expert = ReplayExpert(make_spec("a"), {prompt_key(PROMPT): Recorded(text)}, time_scale=0)
    body = drained(expert.stream(ask(), None))
    assert words(body)[0] == text


def drained(pieces):
    """The pieces of an iterator that never waits."""
    body = b""
    while True:
        try:
            anext(pieces).send(None)
        except StopIteration as piece:
            body += piece.value
        except StopAsyncIteration:
            return body


async def test_the_pace_of_a_streamed_replay_is_the_profile_s(replay, pauses):
    await joined(replay(ttft_ms=250.0, tokens_per_s=8.0), ask())
    assert pauses == [0.25] + [0.125] * 6


async def test_a_whole_replay_takes_as_long_as_a_streamed_one(replay, pauses):
    await joined(replay(ttft_ms=250.0, tokens_per_s=8.0), ask(stream=False))
    assert pauses == [0.25 + 0.125 * 6]


async def test_the_first_piece_of_a_replay_comes_at_the_time_to_the_first_token(replay, pauses):
    pieces = replay(ttft_ms=250.0).stream(ask(), None)
    await anext(pieces)
    assert pauses == [0.25]
    await pieces.aclose()


async def test_time_scale_stretches_every_pause_and_zero_waits_for_nothing(replay, pauses):
    await joined(replay(time_scale=4.0, ttft_ms=250.0, tokens_per_s=8.0), ask())
    assert pauses == [1.0] + [0.5] * 6
    pauses.clear()
    await joined(replay(time_scale=0), ask())
    assert pauses == []


@pytest.mark.parametrize("stream", [True, False])
async def test_a_replay_cut_by_the_cap_says_so(replay, pauses, stream):
    body = await joined(replay(tokens_per_s=8.0), ask(stream=stream), 2)
    if stream:
        assert words(body) == ("Because short", "length")
        assert pauses[1:] == [0.125] * 2
    else:
        choice = json.loads(body)["choices"][0]
        assert (choice["message"]["content"], choice["finish_reason"]) == (
            "Because short",
            "length",
        )


async def test_a_cap_that_is_just_enough_cuts_nothing(replay):
    assert words(await joined(replay(), ask(), 6)) == (ANSWER, "stop")


@pytest.mark.parametrize("stream", [True, False])
async def test_a_prompt_that_was_not_recorded_is_rejected_at_once(replay, pauses, stream):
    with pytest.raises(ExpertRejectedError) as refused:
        await joined(replay(), ask("What?", stream))
    assert (refused.value.expert_id, refused.value.status) == ("a", 404)
    assert pauses == []


async def test_a_recorded_prompt_is_found_whatever_its_white_space(replay):
    assert words(await joined(replay(), ask("  Why is\nthe  sky blue?\n")))[0] == ANSWER


def test_different_words_have_different_keys():
    assert len({prompt_key(text) for text in ("ab", "a b", "AB", "")}) == 4
    assert prompt_key("\ud83d") == prompt_key("\ud83d ")
    assert prompt_key(" a \n b ") == prompt_key("a b")


async def test_a_replay_answers_as_many_at_once_as_it_has_slots(make_spec):
    """First come first served, and whoever goes away makes room."""
    begun, go = [], asyncio.Event()

    async def until_told(seconds):
        begun.append(seconds)
        await go.wait()

    spec = make_spec("a", ttft_ms=1000.0, tokens_per_s=1000.0, slots=2)
    prompts = [f"{'x ' * n}why?" for n in range(4)]
    answers = {
        prompt_key(text): Recorded(" ".join(["so"] * (n + 1))) for n, text in enumerate(prompts)
    }
    expert = ReplayExpert(spec, answers, sleep=until_told)
    asked = [asyncio.create_task(joined(expert, ask(text, stream=False))) for text in prompts]

    async def settled():
        for _ in range(20):
            await asyncio.sleep(0)

    await settled()
    assert begun == [pytest.approx(1.001), pytest.approx(1.002)]
    asked[0].cancel()
    await settled()
    assert begun[2:] == [pytest.approx(1.003)]
    go.set()
    await asyncio.gather(*asked[1:])
    assert begun[3:] == [pytest.approx(1.004)]

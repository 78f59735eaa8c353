"""The shell around an expert: what it notes, who waits, and that nothing is left behind."""

import asyncio
from dataclasses import replace
from random import Random

import pytest

from coe.core import Budget, Message, Request
from coe.engine import Engine
from coe.errors.experts import (
    ExpertOverloadedError,
    ExpertRejectedError,
    ExpertTimeoutError,
    ExpertUnavailableError,
)
from coe.experts.continuation import Continuing, Token
from coe.experts.guarded import GuardedExpert, guarded
from coe.experts.protocol import was_sent
from coe.experts.stub import StubContinuation, StubExpert
from coe.guard.group import Group
from coe.guard.guards import Guards

REQUEST = Request((Message("user", "hello"),), stream=True)
DOWN = ExpertUnavailableError("e", "refused")


class Held:
    """Answers when it is let."""

    def __init__(self):
        self.gate, self.n_asked = asyncio.Semaphore(0), 0

    async def stream(self, request, max_tokens):
        self.n_asked += 1
        await self.gate.acquire()
        yield b"1"
        yield b"2"


def guard(inner, slots=None, **fields):
    group = Group("e", slots=slots, rng=Random(1), **fields)
    return guarded(inner, group, lambda request: 0.1, asyncio.get_running_loop().time)


async def answer(expert, request=REQUEST):
    return b"".join([piece async for piece in expert.stream(request, None)])


async def fail(expert, n=5, request=REQUEST):
    for _ in range(n):
        with pytest.raises((ExpertUnavailableError, ExpertRejectedError, ExpertTimeoutError)):
            await answer(expert, request)


def member(expert):
    return expert.group.members["e"]


async def test_an_answer_passes_untouched():
    inner = StubExpert("e")
    assert await answer(guard(inner, 1)) == await answer(StubExpert("e"))
    assert inner.requests == [REQUEST]


async def test_after_five_failures_only_those_who_insist_are_let_through():
    inner = StubExpert("e", error=DOWN)
    expert = guard(inner)
    await fail(expert)
    with pytest.raises(ExpertOverloadedError, match="failing"):
        await answer(expert)
    assert len(inner.requests) == 5
    inner.error = None
    await answer(expert, replace(REQUEST, insists=True))
    await answer(expert)
    assert len(inner.requests) == 7


@pytest.mark.parametrize("status", [400, 404, 413, 422])
async def test_what_is_our_fault_never_counts(status):
    expert = guard(StubExpert("e", error=ExpertRejectedError("e", "no", status)))
    await fail(expert, 30)
    assert member(expert).circuit.n_ejections == 0


async def test_an_engine_that_is_not_running_has_not_failed():
    class Stopped:
        def stream(self, request, max_tokens):
            raise ExpertOverloadedError("e", "its engine is not running")

    expert = guard(Stopped())
    await fail(expert, 30)
    assert (member(expert).circuit.n_ejections, member(expert).n_in_flight) == (0, 0)


async def test_who_leaves_in_mid_answer_says_nothing_of_the_expert():
    expert = guard(Held())
    for _ in range(30):
        pieces = expert.stream(REQUEST, None)
        expert.inner.gate.release()
        assert await anext(pieces) == b"1"
        await pieces.aclose()
    assert (member(expert).circuit.n_ejections, member(expert).n_in_flight) == (0, 0)


async def test_an_expert_that_breaks_off_every_answer_is_ejected():
    expert = guard(StubExpert("e", error=DOWN, error_after=1))
    await fail(expert)
    assert member(expert).circuit.tripped


async def test_silence_while_we_were_late_ourselves_says_nothing():
    """T-F25."""
    silent = StubExpert("e", error=ExpertTimeoutError("e", "silent"))
    expert = guard(silent, patience_s=0.0)
    for late_s, tripped in ((0.3, False), (0.1, True)):
        for _ in range(5):
            pieces = expert.stream(REQUEST, None)
            silent.sleep = lambda seconds, late_s=late_s: noted(expert, late_s)
            silent.token_s, silent.error_after = 0.001, 1
            with pytest.raises(ExpertTimeoutError):
                b"".join([piece async for piece in pieces])
        assert member(expert).circuit.tripped == tripped


async def noted(expert, late_s):
    expert.group.lag.note(late_s, expert.now())


@pytest.mark.parametrize("header", ["1", "7"])
async def test_its_own_word_of_when_to_ask_again_is_kept(header):
    inner = StubExpert("e", error=ExpertRejectedError("e", "busy", 429, retry_after=header))
    expert = guard(inner)
    await fail(expert, 1)
    with pytest.raises(ExpertOverloadedError) as raised:
        await answer(expert, replace(REQUEST, insists=True))
    assert 0 < raised.value.retry_after_s <= int(header)
    assert len(inner.requests) == 1


@pytest.mark.parametrize("header", ["0", "-1", "3.5", "abc", "Thu, 01 Jan 1970 00:00:00 GMT", None])
async def test_a_word_that_says_nothing_is_not(header):
    inner = StubExpert("e", error=ExpertRejectedError("e", "busy", 429, retry_after=header))
    expert = guard(inner)
    await fail(expert, 3, replace(REQUEST, insists=True))
    assert len(inner.requests) == 3
    with pytest.raises(ExpertOverloadedError, match="busy"):
        await answer(expert)


# ---- room


async def test_who_finds_no_room_waits_and_is_answered():
    expert = guard(Held(), slots=1)
    first, second = (asyncio.create_task(answer(expert)) for _ in range(2))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert (expert.inner.n_asked, len(expert.group.line)) == (1, 1)
    expert.inner.gate.release()
    assert await first == b"12"
    expert.inner.gate.release()
    assert await second == b"12"
    assert (member(expert).n_in_flight, expert.group.line.n_waited) == (0, 1)


async def test_a_full_line_refuses_at_once():
    expert = guard(Held(), slots=1)
    tasks = [asyncio.create_task(answer(expert)) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(ExpertOverloadedError) as raised:
        await answer(expert)
    assert 1.0 <= raised.value.retry_after_s <= 5.0
    for _ in tasks:
        expert.inner.gate.release()
    assert await asyncio.gather(*tasks) == [b"12"] * 3
    assert expert.inner.n_asked == 3


@pytest.mark.parametrize("budget", [Budget(), Budget(ttft_ms=20.0), Budget(latency_ms=20.0)])
async def test_nobody_waits_longer_than_the_request_has(budget):
    expert = guard(Held(), slots=1, wait_s=2.0 if budget.ceilings() else 0.02)
    first = asyncio.create_task(answer(expert))
    await asyncio.sleep(0)
    with pytest.raises(ExpertOverloadedError, match="no room"):
        await answer(expert, replace(REQUEST, budget=budget))
    assert (len(expert.group.line), expert.group.line.n_late) == (0, 1)
    expert.inner.gate.release()
    assert await first == b"12"


async def test_who_leaves_while_waiting_was_never_asked_for():
    expert = guard(Held(), slots=1)
    first = asyncio.create_task(answer(expert))
    await asyncio.sleep(0)
    pieces = expert.stream(REQUEST, None)
    waiting = asyncio.ensure_future(anext(pieces))
    await asyncio.sleep(0)
    assert not was_sent(pieces)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert len(expert.group.line) == 0
    expert.inner.gate.release()
    assert await first == b"12"
    assert (expert.inner.n_asked, member(expert).n_in_flight) == (1, 0)


async def test_who_leaves_just_as_its_turn_comes_hands_it_on():
    expert = guard(Held(), slots=1)
    tasks = [asyncio.create_task(answer(expert)) for _ in range(3)]
    await asyncio.sleep(0)
    first, second, third = tasks
    expert.inner.gate.release()
    await first
    # a seat was given, and its owner has not heard of it yet
    leaving, staying = (second, third) if expert.inner.n_asked == 1 else (third, second)
    leaving.cancel()
    expert.inner.gate.release()
    assert await staying == b"12"
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert member(expert).n_in_flight == 0


async def test_what_can_write_with_others_still_can():
    assert isinstance(guard(StubContinuation([{}])), Continuing)
    assert not isinstance(guard(StubExpert("e")), Continuing)
    expert = guard(StubContinuation([{}]))
    view = await expert.continuation(REQUEST)
    inner = expert.inner
    assert (view.vocabulary, view.prompt_tokens) == (inner.vocabulary, inner.prompt_tokens)
    assert view.room_tokens == inner.room_tokens
    assert isinstance(expert, GuardedExpert)


async def test_an_expert_that_fails_others_who_write_with_it_is_ejected_until_it_does_not():
    now_s = 0.0
    inner = StubContinuation([{Token(1, b"a"): 0.0}], error=DOWN)
    expert = guarded(inner, Group("e", rng=Random(1)), lambda request: 0.1, lambda: now_s)
    for _ in range(5):
        assert expert.group.failing(now_s) is None
        with pytest.raises(ExpertUnavailableError):
            await (await expert.continuation(REQUEST)).expected(())
    assert expert.group.failing(now_s) == "failing"
    now_s, inner.error = 60.0, None
    view = await expert.continuation(REQUEST)
    assert member(expert).circuit.tripped, "a prompt that is read is no answer"
    assert await view.expected(()) == inner.expecting[0]
    assert (expert.group.failing(now_s), member(expert).circuit.tripped) == (None, False)
    assert member(expert).n_in_flight == 0


async def test_an_expert_that_stays_silent_until_ceilings_are_over_has_failed(
    make_spec, make_router
):
    expert = guard(Held(), patience_s=0.01)
    router = make_router([make_spec("e")], [[0.9]] * 3)
    guards = Guards({"e": expert.group})
    engine = Engine(router, {"e": expert}, guards=guards, now=expert.now)
    asked = replace(REQUEST, budget=Budget(ttft_ms=120.0))
    for _ in range(4):
        with pytest.raises(ExpertTimeoutError):
            await engine.answer(asked)
    leaving = asyncio.create_task(engine.answer(asked))
    await asyncio.sleep(0.02)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    assert not member(expert).circuit.tripped
    with pytest.raises(ExpertTimeoutError):
        await engine.answer(asked)
    assert (member(expert).circuit.tripped, member(expert).n_in_flight) == (True, 0)

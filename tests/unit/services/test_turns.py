"""Experts that take turns in memory: one at a time where there is room for one."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from coe.core import Message, Request
from coe.errors.experts import ExpertUnavailableError
from coe.optimizer.residency import Loadable
from coe.services import turns as turns_of
from coe.services.turns import ExpertByTurns, Turns, working

REQUEST = Request((Message("user", "hello"),))


class Engine:
    """A host whose engine is ready at once, or fails; writes down when it was in memory.

    As a real one, it starts once: again only after it was stopped.
    """

    def __init__(self, name, log, fails=False):
        self.name, self.log, self.fails = name, log, fails
        self.state, self.reason = "stopped", ""
        self.watched = False

    async def start(self):
        if self.watched:
            return
        self.watched = True
        self.state = "failed" if self.fails else "ready"
        self.reason = "no weights" if self.fails else ""
        self.log.append(("load", self.name))

    async def settled(self):
        await asyncio.sleep(0)
        return self.state

    async def stop(self):
        self.state = "stopped"
        self.watched = False
        self.log.append(("evict", self.name))


class Answering:
    """Answers while its engine is in memory, once it is told to."""

    def __init__(self, engine, go):
        self.engine, self.go = engine, go

    async def stream(self, request, max_tokens):
        assert self.engine.state == "ready"
        self.engine.log.append(("answer", self.engine.name))
        yield b"1"
        await self.go.wait()
        assert self.engine.state == "ready", "evicted in mid-answer"
        yield b"2"


@asynccontextmanager
async def machine(memory_gb=1.0, fails=(), max_wait_s=30.0):
    """Experts a and b of 1 GB each; they answer when told. Nothing is loaded ahead of requests."""
    log, go = [], asyncio.Event()
    engines = {name: Engine(name, log, name in fails) for name in "ab"}
    turns = Turns(engines, dict.fromkeys("ab", Loadable(1.0, 0.01)), memory_gb, max_wait_s)
    experts = {n: ExpertByTurns(n, Answering(e, go), turns) for n, e in engines.items()}
    async with working(turns):
        yield turns, experts, engines, log, go


async def answer(expert):
    return b"".join([piece async for piece in expert.stream(REQUEST, None)])


async def settle():
    for _ in range(30):
        await asyncio.sleep(0)


async def test_an_expert_is_loaded_when_it_is_asked_for_and_stays():
    async with machine() as (turns, experts, _, log, go):
        go.set()
        assert await answer(experts["a"]) == b"12"
        assert await answer(experts["a"]) == b"12"
        assert log == [("load", "a"), ("answer", "a"), ("answer", "a")]
        assert turns.n_loads == 1


async def test_nobody_is_evicted_while_it_answers_and_waiting_requests_go_by_expert():
    async with machine() as (_, experts, _, log, go):
        asked = [asyncio.create_task(answer(experts[n])) for n in "abab"]
        await settle()
        assert log == [("load", "a"), ("answer", "a")]
        go.set()
        assert await asyncio.gather(*asked) == [b"12"] * 4
        order = [name for what, name in log if what == "answer"]
        assert order == ["a", "a", "b", "b"]
        assert log.index(("evict", "a")) < log.index(("load", "b"))
        assert [what for what, _ in log[: log.index(("answer", "b"))]].count("load") == 2


async def test_with_room_for_both_the_second_is_loaded_while_the_first_answers():
    async with machine(memory_gb=2.0) as (_, experts, _, log, go):
        first = asyncio.create_task(answer(experts["a"]))
        await settle()
        second = asyncio.create_task(answer(experts["b"]))
        await settle()
        assert ("answer", "b") in log
        assert not first.done()
        go.set()
        await asyncio.gather(first, second)
        assert not any(what == "evict" for what, _ in log)


async def test_an_engine_that_does_not_start_fails_its_requests_and_makes_room():
    async with machine(fails="a") as (_, experts, engines, _, go):
        go.set()
        with pytest.raises(ExpertUnavailableError, match="did not start: no weights"):
            await answer(experts["a"])
        assert await answer(experts["b"]) == b"12"
        engines["a"].fails = False
        assert await answer(experts["a"]) == b"12"


async def test_an_engine_that_gives_up_later_is_loaded_again():
    async with machine() as (turns, experts, engines, log, go):
        go.set()
        await answer(experts["a"])
        engines["a"].state, engines["a"].reason = "failed", "crashed eight times"
        turns.noticed(engines["a"])
        await settle()
        assert await answer(experts["a"]) == b"12"
        assert [what for what, _ in log].count("load") == 2


async def test_who_goes_away_while_waiting_leaves_nothing_behind():
    async with machine() as (turns, experts, _, log, go):
        staying = asyncio.create_task(answer(experts["a"]))
        await settle()
        leaving = asyncio.create_task(answer(experts["b"]))
        await settle()
        assert turns.presence("b").n_in_flight == 1
        leaving.cancel()
        await settle()
        assert turns.presence("b").n_in_flight == 0
        go.set()
        await staying
        assert ("answer", "b") not in log


async def test_who_goes_away_in_mid_answer_makes_room():
    async with machine() as (turns, experts, _, _, go):
        pieces = experts["a"].stream(REQUEST, None)
        assert await anext(pieces) == b"1"
        await pieces.aclose()
        assert turns.presence("a").n_in_flight == 0
        go.set()
        assert await answer(experts["b"]) == b"12"


async def test_an_expert_outside_is_expected_to_take_as_long_as_loading_did():
    async with machine() as (turns, experts, _, _, go):
        assert turns.presence("a").delay_ms == pytest.approx(10.0)
        go.set()
        await answer(experts["a"])
        assert turns.presence("a").delay_ms == 0.0
        await answer(experts["b"])
        assert turns.presence("a").delay_ms > 0.0


async def test_who_leaves_just_as_an_engine_gives_up_ends_no_turns():
    async with machine() as (turns, experts, _, _, go):
        staying = asyncio.create_task(answer(experts["a"]))
        await settle()
        leaving = asyncio.create_task(answer(experts["b"]))
        await settle()
        leaving.cancel()
        turns._give_up("b", "crashed")
        await settle()
        go.set()
        assert await staying == b"12"
        assert await answer(experts["b"]) == b"12"


async def test_an_engine_that_fails_as_nobody_foresaw_fails_its_requests_and_makes_room():
    async with machine() as (_, experts, engines, _, go):
        go.set()
        starting, engines["a"].start = engines["a"].start, None
        async with asyncio.timeout(5.0):
            with pytest.raises(ExpertUnavailableError, match="nobody foresaw TypeError"):
                await answer(experts["a"])
            assert await answer(experts["b"]) == b"12"
            engines["a"].start = starting
            assert await answer(experts["a"]) == b"12"


async def test_turns_go_on_after_one_that_fails(monkeypatch):
    monkeypatch.setattr(turns_of, "_AGAIN_S", 0.0)
    async with machine() as (turns, experts, _, _, go):
        go.set()
        ordering, n_failures = turns._node.order, 3

        def order(now_s):
            nonlocal n_failures
            n_failures -= 1
            return 1 / 0 if n_failures >= 0 else ordering(now_s)

        turns._node.order = order
        async with asyncio.timeout(5.0):
            assert await answer(experts["a"]) == b"12"

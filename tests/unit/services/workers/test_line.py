"""Two ends of a line: what is asked is answered, errors travel, and a break is noticed."""

import asyncio
import socket
from contextlib import asynccontextmanager

import pytest

from coe.errors.callers import BudgetExhaustedError
from coe.errors.gateway import GatewayError, LedgerConflictError
from coe.services.workers import line as line_module
from coe.services.workers.line import Line


@asynccontextmanager
async def connected(verbs):
    """Two ends; the second has ``verbs``."""
    one, other = socket.socketpair()
    lines = await Line.on(one, {}), await Line.on(other, verbs)
    listening = [asyncio.create_task(line.run()) for line in lines]
    try:
        yield lines
    finally:
        for line in lines:
            line.writer.close()
        await asyncio.gather(*listening)


async def test_what_is_asked_is_answered_in_any_order():
    async def echo(after_s, word):
        await asyncio.sleep(after_s)
        return {"word": word}

    async with connected({"echo": echo, "twice": lambda n: 2 * n}) as (line, _):
        late = asyncio.create_task(line.ask("echo", 0.05, "late"))
        assert await line.ask("twice", 21) == 42
        assert await line.ask("echo", 0, "é" * 100_000) == {"word": "é" * 100_000}
        assert (await late)["word"] == "late"


async def test_what_is_told_comes_in_its_order():
    heard = []
    async with connected({"hear": heard.append, "all": lambda: heard}) as (line, _):
        for n in range(100):
            line.tell("hear", n)
        assert await line.ask("all") == [*range(100)]


@pytest.mark.parametrize(
    "error",
    [
        BudgetExhaustedError("too much", "limits.a.requests", retry_after_s=7),
        LedgerConflictError("req", "was settled before"),
    ],
)
async def test_an_error_travels_with_all_that_it_says(error):
    async def fail():
        raise error

    async with connected({"fail": fail}) as (line, _):
        with pytest.raises(type(error)) as raised:
            await line.ask("fail")
        assert raised.value.args == error.args
        assert vars(raised.value) == vars(error)


async def test_what_nobody_foresaw_is_heard_of_too():
    async def fail():
        raise KeyError("no")

    async with connected({"fail": fail, "one": lambda: 1}) as (line, _):
        with pytest.raises(GatewayError, match="KeyError"):
            await line.ask("fail")
        assert await line.ask("one") == 1


async def test_who_waits_when_the_line_breaks_is_told():
    async with connected({"never": lambda: asyncio.sleep(60)}) as (line, other):
        waiting = asyncio.create_task(line.ask("never"))
        await asyncio.sleep(0.01)
        for task in other._answering:
            task.cancel()
        other.writer.close()
        with pytest.raises(GatewayError):
            await waiting
        with pytest.raises(GatewayError):
            await line.ask("never")
        line.tell("never")


@pytest.mark.parametrize("told", ["fail", "later", "unknown", "odd"])
async def test_a_call_that_fails_as_nobody_foresaw_ends_no_line(told, caplog):
    async def later():
        raise KeyError("no")

    def fail():
        raise KeyError("no")

    verbs = {"fail": fail, "later": later, "odd": lambda: {1, 2}, "one": lambda: 1}
    async with connected(verbs) as (line, _):
        line.tell(told, *(["a word too many"] if told == "fail" else []))
        with pytest.raises(GatewayError, match=r"KeyError|TypeError"):
            await line.ask(told)
        assert await line.ask("one") == 1
    assert {record.getMessage() for record in caplog.records} == {
        "hearing another process: failed, and goes on"
    }


async def test_an_error_that_was_foreseen_travels_from_a_call_that_waits_for_nothing(caplog):
    def fail():
        raise LedgerConflictError("req", "was settled before")

    async with connected({"fail": fail, "one": lambda: 1}) as (line, _):
        with pytest.raises(LedgerConflictError):
            await line.ask("fail")
        assert caplog.records == []
        line.tell("fail")
        assert await line.ask("one") == 1
    # nobody waits for what becomes of it
    assert [record.exc_info[0] for record in caplog.records] == [LedgerConflictError]


async def test_half_a_line_is_the_end_of_it_and_what_is_no_call_is_told(caplog):
    ours, theirs = socket.socketpair()
    line = await Line.on(ours, {})
    with theirs:
        theirs.sendall(b'{"no": "call"}\nnothing at all\n["tell"')
    async with asyncio.timeout(5.0):
        await line.run()
    assert not line.open
    # JSON that is none twice would be one kind
    assert len(caplog.records) == 2


async def test_a_call_that_is_too_long_ends_the_line_and_is_told(caplog, monkeypatch):
    monkeypatch.setattr(line_module, "_LONGEST", 1024)
    ours, theirs = socket.socketpair()
    line = await Line.on(ours, {})
    with theirs:
        theirs.sendall(b"." * 5000 + b"\n")
        async with asyncio.timeout(5.0):
            await line.run()
    assert [record.exc_info[0] for record in caplog.records] == [ValueError]


async def test_an_error_that_nobody_knows_is_one_all_the_same():
    async with connected({"never": lambda: asyncio.sleep(60)}) as (line, other):
        waiting = asyncio.create_task(line.ask("never"))
        await asyncio.sleep(0.01)
        other._answer(0, "raised", "NoSuchError", [])
        async with asyncio.timeout(5.0):
            with pytest.raises(GatewayError, match="nobody knows"):
                await waiting
        for task in other._answering:
            task.cancel()

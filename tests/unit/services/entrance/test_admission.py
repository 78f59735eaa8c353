"""A door in front of an application: who is let in, and how those end whose time is over."""

import asyncio
import json
from itertools import pairwise

import numpy as np
import pytest

from coe.access.caller import Caller
from coe.crowd import Crowd
from coe.errors.gateway import EndingError, OverdueError
from coe.services.entrance.admission import Admission
from coe.services.entrance.door import Door
from coe.services.observing.exchange import KEY, Exchange

START = {"type": "http.response.start", "status": 200}
JSON = [(b"content-type", b"application/json")]
EVENTS = [(b"content-type", b"text/event-stream; charset=utf-8")]


class Inner:
    """An application that begins its answer, says so, and ends it when it is told to."""

    def __init__(self, headers=None):
        self.headers, self.n_asked, self.cancelled = headers, 0, 0
        self.may_end, self.begun = asyncio.Event(), asyncio.Event()

    async def __call__(self, scope, receive, send):
        self.n_asked += 1
        if self.headers is not None:
            await send({**START, "headers": self.headers})
            await send({"type": "http.response.body", "body": b"data: a\n\n", "more_body": True})
        self.begun.set()
        try:
            await self.may_end.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.headers is None:
            await send({**START, "headers": []})
        await send({"type": "http.response.body", "body": b"b"})


class Client:
    """What comes back; a slow one takes its time for the body."""

    def __init__(self, slow=False):
        self.messages, self.slow = [], slow
        self.gone = asyncio.Event()

    async def send(self, message):
        if self.slow and message["type"] == "http.response.body" and self.messages[1:]:
            await asyncio.Event().wait()
        self.messages.append(message)

    async def receive(self):
        await self.gone.wait()
        return {"type": "http.disconnect"}

    @property
    def status(self):
        return self.messages[0]["status"]

    @property
    def headers(self):
        return dict(self.messages[0]["headers"])

    @property
    def body(self):
        return b"".join(m.get("body", b"") for m in self.messages[1:])

    @property
    def error(self):
        return json.loads(self.body)["error"]


class House:
    """An application behind a door."""

    def __init__(self, inner, longest_s=60.0, most=2, own=1):
        self.door = Door(Crowd(most, own, np.random.default_rng(0)), longest_s)
        self.inner, self.refused = inner, []
        self.app = Admission(inner, self.door)

    async def ask(self, client, path="/v1/chat/completions", caller="", **more):
        exchange = Exchange("req-1", "POST", path, 0.0, 0.0)
        who = {"coe.caller": Caller(tenant=caller)} if caller else {}
        scope = {"type": "http", "path": path, **who, KEY: exchange, **more}
        try:
            await self.app(scope, client.receive, client.send)
        finally:
            self.refused += [exchange.code] if exchange.code else []
        return client


async def started(house, client, **more):
    """A request that is inside."""
    house.inner.begun.clear()
    task = asyncio.create_task(house.ask(client, **more))
    await house.inner.begun.wait()
    return task


async def test_one_too_many_is_refused_without_reading_and_the_others_go_on():
    house = House(Inner())
    inside = [await started(house, Client()) for _ in range(2)]
    refused = await house.ask(Client())
    assert (refused.status, refused.error["code"]) == (503, "overloaded")
    assert refused.error["type"] == "server_error"
    assert 1 <= int(refused.headers[b"retry-after"]) <= 5
    assert b"connection" not in refused.headers
    assert (house.inner.n_asked, house.refused) == (2, ["overloaded"])
    house.inner.may_end.set()
    assert [client.status for client in await asyncio.gather(*inside)] == [200, 200]
    assert house.door.crowd.n == 0


async def test_a_caller_has_a_limit_of_his_own():
    house = House(Inner())
    inside = await started(house, Client(), caller="alice")
    assert (await house.ask(Client(), caller="alice")).status == 503
    house.inner.may_end.set()
    assert (await house.ask(Client(), caller="bob")).status == 200
    await inside


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/admin/experts"])
async def test_some_paths_are_always_answered(path):
    house = House(Inner(), most=1)
    await_end = await started(house, Client())
    house.door.phase = "shut"
    house.inner.may_end.set()
    answered = await house.ask(Client(), path)
    assert answered.status == 200
    assert answered.headers[b"connection"] == b"close"
    await await_end


async def test_a_whole_answer_that_takes_too_long_is_a_504():
    house = House(Inner(), longest_s=0.01)
    late = await house.ask(Client())
    assert (late.status, late.error["code"], late.error["type"]) == (
        504,
        "answer_timeout",
        "timeout_error",
    )
    assert late.headers[b"x-should-retry"] == b"false"
    assert late.headers[b"connection"] == b"close"
    assert (house.inner.cancelled, house.door.crowd.n) == (1, 0)


async def test_a_stream_that_takes_too_long_ends_with_an_error_event():
    late = await House(Inner(EVENTS), longest_s=0.01).ask(Client())
    *_, event = late.body.split(b"\n\n", 1)[1].strip().split(b"data: ")
    assert json.loads(event)["error"]["code"] == "answer_timeout"
    assert late.messages[-1] == {"type": "http.response.body", "body": b""}


async def test_whoever_reads_too_slowly_for_last_words_is_cut_off():
    client, house = Client(slow=True), House(Inner(EVENTS), longest_s=0.01)
    await house.ask(client, **{"coe.abort": client.gone.set})
    assert client.gone.is_set()
    assert len(client.messages) == 2


@pytest.mark.parametrize("abort", [True, False])
async def test_what_has_begun_and_is_no_stream_is_broken_off(abort):
    client, house = Client(), House(Inner(JSON), longest_s=0.01)
    if abort:
        await house.ask(client, **{"coe.abort": client.gone.set})
    else:
        with pytest.raises(OverdueError):
            await house.ask(client)
    assert client.gone.is_set() == abort
    assert all(m.get("more_body", True) for m in client.messages)


async def test_a_shut_door_lets_nobody_in_and_a_cut_one_has_everybody_go():
    house = House(Inner(EVENTS))
    stream = await started(house, Client())
    house.door.phase = "shut"
    refused = await house.ask(Client())
    assert (refused.status, refused.error["code"]) == (503, "shutting_down")
    assert (refused.headers[b"retry-after"], refused.headers[b"connection"]) == (b"1", b"close")
    assert not stream.done()
    house.door.cut()
    house.door.cut()
    assert b'"code": "shutting_down"' in (await stream).body
    with pytest.raises(EndingError), house.door.inside(""):
        raise AssertionError("somebody got in")
    assert house.refused == ["shutting_down"] * 2


async def test_a_time_out_of_the_application_is_its_own():
    async def hasty(scope, receive, send):
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        await House(hasty).ask(Client())


async def test_what_comes_at_once_begins_a_few_at_a_time():
    house = House(Inner(), most=100)
    asked = [asyncio.create_task(house.ask(Client())) for _ in range(40)]
    begun = []
    while house.inner.n_asked < 40:
        await asyncio.sleep(0)
        begun.append(house.inner.n_asked)
    steps = [later - earlier for earlier, later in pairwise([0, *begun])]
    assert max(steps) <= 8
    house.inner.may_end.set()
    assert {client.status for client in await asyncio.gather(*asked)} == {200}


async def test_who_goes_while_in_line_leaves_no_trace():
    house = House(Inner(), most=100)
    asked = [asyncio.create_task(house.ask(Client())) for _ in range(20)]
    await asyncio.sleep(0)
    for one in asked[10:]:
        one.cancel()
    await asyncio.gather(*asked[10:], return_exceptions=True)
    house.inner.may_end.set()
    await asyncio.gather(*asked[:10])
    assert house.door.crowd.n == 0
    assert (await house.ask(Client())).status == 200


async def test_an_answer_that_is_whole_when_its_time_is_over_was_not_refused():
    class Lingering(Inner):
        async def __call__(self, scope, receive, send):
            await super().__call__(scope, receive, send)
            self.begun.set()
            await asyncio.Event().wait()

    house, client = House(Lingering(JSON)), Client()
    house.inner.may_end.set()
    asking = await started(house, client)
    while not client.body.endswith(b"b"):  # noqa: ASYNC110
        await asyncio.sleep(0)
    house.door.cut()
    await asking
    assert house.refused == []
    assert house.door.crowd.n == 0

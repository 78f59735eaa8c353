"""A stream on its way: what comes while it is waited for, and how it ends."""

import asyncio
import json

import pytest
from starlette.requests import ClientDisconnect

from coe.errors.experts import ExpertUnavailableError
from coe.services.streaming import WAITING, EventStream

EVERY_S = 0.01
BODY = [b"data: a\n\n", b"data: b\n\n"]


class Told:
    """A source that opens when it is told to."""

    def __init__(self, error=None, known=True):
        self.error, self.known = error, known
        self.may_open = asyncio.Event()
        self.n_closed, self.cancelled = 0, False

    @property
    def headers(self):
        return {"x-coe-experts": "a"} if self.known else None

    async def open(self):
        try:
            await self.may_open.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        if self.error is not None:
            raise self.error

    async def events(self):
        for event in BODY:
            yield event

    async def close(self):
        self.n_closed += 1


class Client:
    def __init__(self):
        self.messages, self.gone, self.heard = [], asyncio.Event(), asyncio.Condition()

    async def send(self, message):
        self.messages.append(message)
        async with self.heard:
            self.heard.notify_all()

    async def receive(self):
        await self.gone.wait()
        return {"type": "http.disconnect"}

    @property
    def body(self):
        return b"".join(message["body"] for message in self.messages[1:])

    async def comments(self, n):
        async with asyncio.timeout(5), self.heard:
            await self.heard.wait_for(lambda: len(self.messages) > n)


def streaming(source, client, every_s=EVERY_S):
    stream = EventStream(source, every_s)
    return asyncio.create_task(stream({"type": "http"}, client.receive, client.send))


async def test_what_comes_soon_comes_without_comments():
    source, client = Told(), Client()
    source.may_open.set()
    await streaming(source, client)
    start = client.messages[0]
    headers = {name.decode(): value.decode() for name, value in start["headers"]}
    assert start["status"] == 200
    assert headers == {
        "x-coe-experts": "a",
        "cache-control": "no-cache",
        "x-accel-buffering": "no",
        "content-type": "text/event-stream; charset=utf-8",
    }
    assert client.body == b"".join(BODY)
    assert "more_body" not in client.messages[-1]
    assert source.n_closed == 1


async def test_comments_until_the_first_event_and_none_after_it():
    source, client = Told(), Client()
    task = streaming(source, client)
    await client.comments(3)
    source.may_open.set()
    await task
    comments = client.body.removesuffix(b"".join(BODY))
    assert comments == WAITING * (len(comments) // len(WAITING))
    assert len(comments) >= 3 * len(WAITING)
    await asyncio.sleep(3 * EVERY_S)
    assert client.body.endswith(BODY[-1])


async def test_an_error_before_the_head_is_left_to_others():
    source, client = Told(error=ExpertUnavailableError("a", "not there")), Client()
    source.may_open.set()
    with pytest.raises(ExpertUnavailableError):
        await streaming(source, client)
    assert client.messages == []
    assert source.n_closed == 1


async def test_an_error_after_comments_is_the_last_event():
    source, client = Told(error=ExpertUnavailableError("a", "not there")), Client()
    task = streaming(source, client)
    await client.comments(1)
    source.may_open.set()
    await task
    event = client.body.rpartition(b"data: ")[2]
    assert json.loads(event)["error"]["code"] == "expert_unavailable"
    assert client.messages[-1] == {"type": "http.response.body", "body": b""}


async def test_nothing_is_said_before_it_is_known_who_is_asked():
    source, client = Told(known=False), Client()
    task = streaming(source, client)
    await asyncio.sleep(5 * EVERY_S)
    assert client.messages == []
    source.known = True
    await client.comments(1)
    source.may_open.set()
    await task
    assert client.body.endswith(b"".join(BODY))


@pytest.mark.parametrize("every_s", [EVERY_S, 60])
async def test_who_leaves_while_waiting_stops_everything(every_s):
    source, client = Told(), Client()
    task = streaming(source, client, every_s)
    if every_s == EVERY_S:
        await client.comments(1)
        client.gone.set()
        await task
    else:
        client.gone.set()
        with pytest.raises(ClientDisconnect):
            await task
    assert source.cancelled
    assert source.n_closed == 1
    n_messages = len(client.messages)
    await asyncio.sleep(3 * EVERY_S)
    assert len(client.messages) == n_messages

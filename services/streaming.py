"""Answers on their way to a client that may leave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Mapping
from contextlib import aclosing
from typing import Any, Final, Protocol, TypeVar

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from coe.errors import CoeError
from coe.services.wire.refusals import error_event

_T = TypeVar("_T")

WAITING: Final = b": waiting\n\n"
"""A line of an event stream that clients skip, and that keeps connections open."""

_EVENTS: Final = {"content-type": "text/event-stream; charset=utf-8"}

_LOOKS_AFTER_S = 0.02


class Source(Protocol):
    """What a stream is made of, in the order in which it is asked for."""

    @property
    def headers(self) -> Mapping[str, str] | None:
        """Of the answer; ``None`` as long as they cannot be said."""

    async def open(self) -> None:
        """Wait for the first event.

        Raises
        ------
        CoeError
            There is none.
        """

    def events(self) -> AsyncGenerator[bytes, None]:
        """The body, once it is open."""

    async def close(self) -> None:
        """Give up what is still to come; called last, in any case."""


class EventStream(Response):
    """An event stream that gives the answer up when the client goes away.

    Its head waits for the first event, so that an error before it is an answer of its own; but not
    for ever: from ``waiting_every_s`` on there is a comment line now and again until it comes, and
    an error becomes the last event.
    """

    def __init__(self, source: Source, waiting_every_s: float) -> None:
        self.source = source
        self.waiting_every_s = waiting_every_s
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it all, or as much as the client waits for."""
        head = _Head(self.source, send, self.waiting_every_s)
        try:
            await unless_gone(receive, self._send_all(head, send))
        except ClientDisconnect:
            if not head.sent:
                raise
        finally:
            head.wait_no_more()
            await self.source.close()

    async def _send_all(self, head: _Head, send: Send) -> None:
        head.wait()
        try:
            await self.source.open()
        except CoeError as error:
            head.wait_no_more()
            if not head.sent:
                raise
            await send(_piece(error_event(error)))
        else:
            head.wait_no_more()
            await head.send()
            async with aclosing(self.source.events()) as events:
                async for event in events:
                    await send(_piece(event))
        await send({"type": "http.response.body", "body": b""})


class _Head:
    """The head of a stream, which is sent once, and the comments that may follow it."""

    def __init__(self, source: Source, send: Send, waiting_every_s: float) -> None:
        self.sent = False
        self._source = source
        self._send = send
        self._every_s = waiting_every_s
        self._timer: asyncio.TimerHandle | None = None
        self._telling: asyncio.Task[None] | None = None

    def wait(self) -> None:
        """Begin to wait for the first event; to be followed by `wait_no_more`."""
        self._timer = asyncio.get_running_loop().call_later(self._every_s, self._tell)

    def wait_no_more(self) -> None:
        """Say no more comments; harmless when called twice."""
        if self._timer is not None:
            self._timer.cancel()
        if self._telling is not None:
            self._telling.cancel()

    async def send(self) -> None:
        """Send it, if that can be done and was not yet."""
        if self.sent or (own := self._source.headers) is None:
            return
        # proxies that would collect an answer before they pass it on are asked not to
        headers = Headers(
            {**own, "cache-control": "no-cache", "x-accel-buffering": "no", **_EVENTS}
        )
        await self._send({"type": "http.response.start", "status": 200, "headers": headers.raw})
        self.sent = True

    def _tell(self) -> None:
        self._telling = asyncio.create_task(self._comment())

    async def _comment(self) -> None:
        while True:
            await self.send()
            if self.sent:
                await self._send(_piece(WAITING))
            await asyncio.sleep(self._every_s)


def _piece(body: bytes) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": True}


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, _T]) -> _T:
    """The result of ``work``, which is cancelled when the client goes away.

    The body must have been read. Who goes away sooner than `_LOOKS_AFTER_S` is noticed then.

    Raises
    ------
    ClientDisconnect
        The client went away first.
    """
    lookout = _Lookout(receive)
    lookout.start()
    try:
        result = await work
    except asyncio.CancelledError as error:
        if lookout.stop():
            raise ClientDisconnect from error
        raise
    except BaseException:
        lookout.stop()
        raise
    lookout.stop()
    return result


class _Lookout:
    """Cancels the task that it was started in when the client goes away.

    Most answers end before it begins to look: they cost a timer, and no task.

    Parameters
    ----------
    receive : of the request, whose body has been read.
    """

    __slots__ = ("_gone", "_looking", "_n_cancelled", "_receive", "_task", "_timer")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._gone = False
        self._looking: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Look out from soon on; to be followed by `stop`."""
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        assert task is not None
        self._task, self._n_cancelled = task, task.cancelling()
        self._timer = loop.call_later(_LOOKS_AFTER_S, self._look)

    def stop(self) -> bool:
        """Look no more; whether the client went away, and nobody else cancelled the task."""
        self._timer.cancel()
        if self._looking is not None:
            self._looking.cancel()
        return self._gone and self._task.uncancel() <= self._n_cancelled

    def _look(self) -> None:
        self._looking = asyncio.create_task(self._until_gone())

    async def _until_gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone = True
        self._task.cancel()

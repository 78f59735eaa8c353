"""Answers on their way to a client that may leave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

_T = TypeVar("_T")

_LOOKS_AFTER_S = 0.02


class EventStream(Response):
    """An event stream that gives the answer up when the client goes away.

    Parameters
    ----------
    events : the body; closed in any case.
    close : gives up what makes them; awaited last, in any case.
    """

    def __init__(
        self,
        events: AsyncGenerator[bytes, None],
        close: Callable[[], Awaitable[None]],
        headers: Mapping[str, str],
    ) -> None:
        super().__init__(
            media_type="text/event-stream", headers={**headers, "cache-control": "no-cache"}
        )
        del self.headers["content-length"]
        self._events = events
        self._close = close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it all, or as much as the client waits for."""
        try:
            await unless_gone(receive, self._send_all(send))
        except ClientDisconnect:
            return
        finally:
            await self._events.aclose()
            await self._close()

    async def _send_all(self, send: Send) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        async for piece in self._events:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


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
    if lookout.stop():
        raise ClientDisconnect
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
        task = asyncio.current_task()
        assert task is not None
        self._task, self._n_cancelled = task, task.cancelling()
        self._timer = asyncio.get_running_loop().call_later(_LOOKS_AFTER_S, self._look)

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

"""Who is let in before anything of a body is read, and how a request ends whose time is over."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from dataclasses import dataclass
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from coe.errors.gateway import GatewayError
from coe.services.access.middleware import caller_of
from coe.services.entrance.door import Door
from coe.services.observing.exchange import exchange_of
from coe.services.wire.refusals import error_event, refused

ALWAYS: Final = ("/healthz", "/readyz", "/metrics", "/admin/")
"""Paths that are answered whoever is inside: they say how a gateway is, and mend it."""

_LAST_WORDS_S: Final = 1.0
_CLOSE: Final = (b"connection", b"close")


@dataclass(frozen=True, slots=True)
class Admission:
    """An application behind a door."""

    app: ASGIApp
    door: Door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand on; or refuse, at once or when the time is over."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        sent = _Sent(self.door, send)
        if scope["path"].startswith(ALWAYS):
            await self.app(scope, receive, sent)
            return
        try:
            with self.door.inside(_whose(scope)) as inside:
                if inside.turn is not None:
                    await inside.turn
                await self.app(scope, receive, sent)
        except GatewayError as error:
            await self._end(error, sent, scope, receive)

    async def _end(self, error: GatewayError, sent: _Sent, scope: Scope, receive: Receive) -> None:
        """Say why, as far as that can still be said."""
        if not sent.started:
            await refused(error)(scope, receive, sent)
            return
        if sent.ended:
            return
        exchange_of(scope).end(error, error.code)
        if sent.streams:
            try:
                async with asyncio.timeout(_LAST_WORDS_S):
                    await sent.last(error)
                return
            except TimeoutError:
                # who reads so slowly has a full buffer in front of the last words
                pass
        if (abort := scope.get("coe.abort")) is None:
            raise error
        abort()
        while (await receive())["type"] != "http.disconnect":
            pass


def _whose(scope: Scope) -> str:
    """Whose requests share a bound with this one: a tenant's, else a key's; "": nobody said."""
    caller = caller_of(scope)
    return "" if caller is None else caller.tenant or caller.key_id


class _Sent:
    """How far an answer has got; the last one of its connection when nobody should come any more.

    Parameters
    ----------
    send : of the server.
    """

    def __init__(self, door: Door, send: Send) -> None:
        self._door = door
        self._send = send
        self._headers: Iterable[tuple[bytes, bytes]] = ()
        self.started = self.ended = False

    def __call__(self, message: Message) -> Awaitable[None]:
        """Hand a message on to the server."""
        if message["type"] == "http.response.start":
            self.started = True
            self._headers = message.get("headers", ())
            if self._door.phase != "open":
                kept = [header for header in self._headers if header[0] != _CLOSE[0]]
                message = {**message, "headers": [*kept, _CLOSE]}
        elif not message.get("more_body", False):
            return self._finish(message)
        return self._send(message)

    @property
    def streams(self) -> bool:
        """Whether it is an event stream that has begun."""
        return any(
            name == b"content-type" and value.startswith(b"text/event-stream")
            for name, value in self._headers
        )

    async def last(self, error: GatewayError) -> None:
        """End a stream with an event that holds the error."""
        await self({"type": "http.response.body", "body": error_event(error), "more_body": True})
        await self({"type": "http.response.body", "body": b""})

    async def _finish(self, message: Message) -> None:
        await self._send(message)
        self.ended = True

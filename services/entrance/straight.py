"""The way of most requests: past the routes, straight to the endpoint that nearly all are for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from coe.errors import CoeError

Handler = Callable[[Request, Exception], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Straight:
    """An application of which one path is served without looking for its route.

    What the endpoint raises is answered as the application answers it, and so is what its response
    raises before it has begun.

    Parameters
    ----------
    path : is POSTed to.
    endpoint : answers what is.
    refuse, gone : answer for it where it raises `CoeError` or `ClientDisconnect`.
    """

    app: ASGIApp
    path: str
    endpoint: Callable[[Request], Awaitable[Response]]
    refuse: Handler
    gone: Handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or hand on."""
        if scope["type"] != "http" or scope["path"] != self.path or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        scope["endpoint"] = self.endpoint
        http = Request(scope, receive, send)
        try:
            await (await self.endpoint(http))(scope, receive, send)
            return
        except CoeError as error:
            instead = await self.refuse(http, error)
        except ClientDisconnect as error:
            instead = await self.gone(http, error)
        await instead(scope, receive, send)

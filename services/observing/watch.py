"""The outermost layer of a gateway: every request is timed, named and told of, refused or not."""

from __future__ import annotations

import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import SystemRandom
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from coe.naming import new_name
from coe.services.enduring import Enduring
from coe.services.observing.exchange import KEY, Exchange
from coe.services.observing.traceparent import begun

UNTRACED = frozenset({"/healthz", "/readyz", "/metrics"})
"""Paths that are asked for every few seconds, and say nothing of any answer."""

Tell = Callable[[Exchange], None]
"""Told of an exchange once it has ended; must not wait."""


@dataclass(frozen=True, slots=True)
class Watch:
    """An application whose every exchange is told of.

    Parameters
    ----------
    tell : in this order.
    routes : patterns of paths, by who answers them.
    now : monotonic seconds.
    sample : as in `coe.services.observing.traceparent.begun`; ``None``: nobody traces.
    """

    app: ASGIApp
    tell: Sequence[Tell]
    routes: Mapping[Any, str] = field(default_factory=dict)
    now: Callable[[], float] = time.monotonic
    sample: float | None = None
    _telling: Enduring = field(default_factory=lambda: Enduring("telling of a request"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, then tell."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = scope[KEY] = self._begun(scope)

        def noted(message: Message) -> Awaitable[None]:
            # no coroutine of its own: it is called for every piece of an answer
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
            return send(message)

        try:
            await self.app(scope, receive, noted)
        finally:
            if exchange.status == 0 and isinstance(sys.exception(), Exception):
                exchange.status = 500
            exchange.route = self.routes.get(scope.get("endpoint"), "none")
            exchange.ended_s = self.now()
            for tell in self.tell:
                with self._telling:
                    tell(exchange)

    def _begun(self, scope: Scope) -> Exchange:
        trace = None
        if self.sample is not None and scope["path"] not in UNTRACED:
            trace = begun(_header(scope, b"traceparent"), self.sample, _RANDOM)
        return Exchange(
            # a server names its requests, and answers them by that name; others need not
            request_id=scope.get("coe.request_id") or new_name("req"),
            method=scope["method"],
            path=scope["path"],
            started_s=self.now(),
            at_s=time.time(),
            trace=trace,
        )


_RANDOM = SystemRandom()


def _header(scope: Scope, name: bytes) -> str:
    """The one header of this name; "" where there is none, or are several."""
    found = [value for key, value in scope["headers"] if key == name]
    return str(found[0].decode("latin-1")) if len(found) == 1 else ""

"""What stands between the front of a gateway and its routes: nobody passes without a right to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from coe.access.caller import Caller
from coe.access.proxies import Proxies
from coe.access.rights import PUBLIC, Right, right_to, verdict
from coe.errors.callers import ForbiddenError, RequestError
from coe.services.access.porter import Porter
from coe.services.observing.exchange import exchange_of
from coe.services.wire.head import field_of
from coe.services.wire.refusals import refused

CALLER: Final = "coe.caller"
"""Where in the scope of a request the `Caller` stands; nowhere: no keys are asked for."""


@dataclass(frozen=True, slots=True)
class Access:
    """An application that a porter stands in front of.

    Parameters
    ----------
    porter : ``None``: everybody comes in.
    proxies : whose word on the address of a client is taken; it then stands in the scope, as if
        the client itself had connected.
    """

    app: ASGIApp
    porter: Porter | None
    proxies: Proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or hand on with the caller in the scope."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if self.proxies.networks:
            self._look_behind(scope)
        exchange, address = exchange_of(scope), scope["client"][0] if scope.get("client") else ""
        exchange.client = address
        if self.porter is None or (scope["path"] in PUBLIC and scope["method"] in ("GET", "HEAD")):
            await self.app(scope, receive, send)
            return
        try:
            caller, right = await self._checked(self.porter, scope, address)
        except RequestError as error:
            await refused(error)(scope, receive, send)
            return
        scope[CALLER] = caller
        if right is None or not right.metered:
            await self.app(scope, receive, send)
            return
        telling = self._telling(self.porter, caller, send)
        try:
            self.porter.rates.admit(caller)
        except RequestError as error:
            await refused(error)(scope, receive, telling)
            return
        await self.app(scope, receive, telling)

    async def _checked(
        self, porter: Porter, scope: Scope, address: str
    ) -> tuple[Caller, Right | None]:
        caller = await porter.caller(field_of(scope, b"authorization"), address)
        exchange_of(scope).key_id = caller.key_id
        path = scope["path"]
        right = right_to(scope["method"], path)
        said = verdict(right, caller.role, path)
        if said == "yes":
            return caller, right
        if said == "forbidden":
            raise ForbiddenError(f"a key of role {caller.role} may not ask for this")
        raise RequestError("there is nothing here for this key", None, said)

    def _telling(self, porter: Porter, caller: Caller, send: Send) -> Send:
        """Send, with what the key has left in the head of the answer."""

        async def telling(message: Message) -> None:
            if message["type"] == "http.response.start":
                told = [
                    (name.encode(), value.encode()) for name, value in porter.rates.told(caller)
                ]
                message = {**message, "headers": [*message.get("headers", ()), *told]}
            await send(message)

        return telling

    def _look_behind(self, scope: Scope) -> None:
        """Put the client in the place of the proxies that speak for it."""
        if not scope.get("client"):
            return
        named = {b"x-forwarded-for": list[str](), b"forwarded": list[str]()}
        for name, value in scope["headers"]:
            if name in named:
                named[name].append(value.decode("latin-1"))
        # where both are there, the one that is older and more often set by proxies
        chains = named[b"x-forwarded-for"] or named[b"forwarded"]
        peer = scope["client"][0]
        address = self.proxies.client(peer, chains)
        if address != peer:
            scope["client"] = (address, 0)


def caller_of(scope: Scope) -> Caller | None:
    """Who asks; ``None``: nobody is asked who they are."""
    found: Caller | None = scope.get(CALLER)
    return found

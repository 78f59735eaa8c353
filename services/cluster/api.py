"""The supervisor's own HTTP face: gateways follow the fleet, operators scale and drain it."""

from __future__ import annotations

import asyncio
import hmac
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from coe.errors.callers import RequestError
from coe.errors.gateway import FleetError
from coe.replica import Deployment
from coe.services.cluster.supervisor import Supervisor
from coe.services.sockets.server import listening, server
from coe.services.wire.body import body_of

LONGEST_WAIT_S = 30.0
"""Longest that the supervisor keeps a caller who asks for news waiting."""

_LARGEST_BODY_BYTES = 65536
# before an address that somebody else has is tried again
_AGAIN_S = 1.0


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Question(_Body):
    """What the asker has seen, and how long it would wait for something else."""

    epoch: str = ""
    version: int = -1
    wait_s: float = Field(default=0.0, ge=0.0, allow_inf_nan=False)


class Scaling(_Body):
    """How many copies of an expert are to run; ``None``: as the load has it."""

    expert: str
    replicas: int | None = Field(ge=0, le=1000)


class Draining(_Body):
    """A node to empty, or to use again."""

    node: str
    drained: bool = True


_B = TypeVar("_B", bound=_Body)


@dataclass(slots=True)
class ServedSupervisor:
    """A supervisor that answers on ``host:port`` who shows ``token``."""

    supervisor: Supervisor
    host: str
    port: int
    token: str = field(repr=False)
    _complaint: str = ""
    _tried: asyncio.Event = field(default_factory=asyncio.Event, repr=False)

    async def run(self) -> None:
        """Supervise and answer, for ever; where the address is taken, answer once it is free."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.supervisor.run())
            with await self._listener() as listener:
                await server(self.app()).serve(sockets=[listener])
            raise FleetError(f"nothing listens on {self.host}:{self.port} any more")

    async def want(self, deployments: Sequence[Deployment]) -> None:
        """As `Supervisor.want`.

        Raises
        ------
        FleetError
            The address is taken: no gateway would hear of them.
        """
        await self._tried.wait()
        if self._complaint:
            raise FleetError(self._complaint)
        await self.supervisor.want(deployments)

    async def down(self) -> None:
        """As `Supervisor.down`."""
        await self.supervisor.down()

    async def _listener(self) -> socket.socket:
        while True:
            try:
                found = listening(self.host, self.port)
            except OSError as error:
                self._complaint = (
                    f"the supervisor cannot listen on {self.host}:{self.port} "
                    f"({os.strerror(error.errno or 0)}): choose another fleet.port"
                )
                self._tried.set()
                await asyncio.sleep(_AGAIN_S)
            else:
                self._complaint = ""
                self._tried.set()
                return found

    def app(self) -> Starlette:
        """The ASGI application."""
        return Starlette(
            routes=[
                Route("/v1/fleet", self._guarded(self._snapshot)),
                Route("/v1/fleet/scale", self._guarded(self._scale), methods=["POST"]),
                Route("/v1/fleet/drain", self._guarded(self._drain), methods=["POST"]),
            ]
        )

    def _guarded(
        self, answer: Callable[[Request], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        expected = f"Bearer {self.token}".encode()

        async def guarded(http: Request) -> Response:
            shown = http.headers.get("authorization", "").encode()
            if not hmac.compare_digest(shown, expected):
                return _refusal(401, "the fleet's token is missing or wrong", "invalid_token")
            try:
                return await answer(http)
            except ValidationError as error:
                return _refusal(400, _in_a_line(error), "invalid_value")
            except RequestError as error:
                return _refusal(413, str(error), error.code)
            except FleetError as error:
                return _refusal(404, str(error), "not_found")

        return guarded

    async def _snapshot(self, http: Request) -> Response:
        asked = Question.model_validate(dict(http.query_params))
        wait_s = min(asked.wait_s, LONGEST_WAIT_S)
        found = await self.supervisor.newer(asked.epoch, asked.version, wait_s)
        return JSONResponse(found.document())

    async def _scale(self, http: Request) -> Response:
        body = await _read(http, Scaling)
        self.supervisor.scale(body.expert, body.replicas)
        return JSONResponse(self.supervisor.snapshot().document())

    async def _drain(self, http: Request) -> Response:
        body = await _read(http, Draining)
        self.supervisor.shun(body.node, body.drained)
        return JSONResponse(self.supervisor.snapshot().document())


async def _read(http: Request, body: type[_B]) -> _B:
    return body.model_validate_json(await body_of(http, _LARGEST_BODY_BYTES))


def _in_a_line(error: ValidationError) -> str:
    """What is wrong with which field, without pydantic's addresses of manuals."""
    return "; ".join(
        ": ".join(filter(None, (".".join(map(str, fault["loc"])), fault["msg"])))
        for fault in error.errors()
    )


def _refusal(status: int, message: str, code: str) -> JSONResponse:
    error: dict[str, Any] = {"message": message, "type": "invalid_request_error", "code": code}
    return JSONResponse({"error": error}, status)

"""The operator's routes of a gateway: who is switched off, and who is forced."""

from __future__ import annotations

import hmac
import os
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from coe.errors.callers import RequestError, UnknownExpertError
from coe.services.access.middleware import CALLER
from coe.services.history import decisions_of
from coe.services.journal import DecisionJournal
from coe.services.runtime import Runtime
from coe.services.wire.body import body_of
from coe.switches import Switch

_LARGEST_BODY_BYTES = 4096


class SwitchBody(BaseModel):
    """Body of ``PUT /admin/experts/{expert_id}``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    switch: Switch


@dataclass(frozen=True, slots=True)
class Admin:
    """Turns the switches of one runtime for whoever shows ``token``; for nobody without one.

    Parameters
    ----------
    journal : of the decisions of late.
    """

    runtime: Runtime
    token: str | None = field(repr=False)
    journal: DecisionJournal

    def routes(self) -> list[Route]:
        """What a gateway adds to its own; errors are left to its handlers."""
        return [
            Route("/admin/reload", self._guarded(self._reload), methods=["POST"]),
            Route("/admin/status", self._guarded(self._status)),
            Route("/admin/shadow", self._guarded(self._shadow)),
            Route("/admin/decisions", self._guarded(self._decisions)),
            Route("/admin/experts", self._guarded(self._experts)),
            Route("/admin/experts/{expert_id:path}", self._guarded(self._turn), methods=["PUT"]),
        ]

    def _guarded(
        self, answer: Callable[[Request], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        async def guarded(http: Request) -> Response:
            # whoever was let in by a key was asked before what it may do
            if CALLER not in http.scope:
                self._check(http.headers.get("authorization", ""))
            return await answer(http)

        return guarded

    def _check(self, shown: str) -> None:
        if self.token is None:
            variable = self.runtime.config.gateway.admin_token_env
            raise RequestError(
                f"operators' routes are shut: start the gateway with a token in {variable}, and "
                "show it as a bearer token",
                None,
                "admin_disabled",
            )
        if not hmac.compare_digest(shown.encode(), f"Bearer {self.token}".encode()):
            raise RequestError("the operator's token is missing or wrong", None, "invalid_token")

    async def _reload(self, http: Request) -> Response:
        reloads = self.runtime.reloads
        if reloads is None:
            raise RequestError(
                "this gateway was not started from a file", None, "nothing_to_reload"
            )
        outcome = await reloads.reload()
        return JSONResponse(outcome.document(), 422 if outcome.status == "refused" else 200)

    async def _status(self, http: Request) -> Response:
        reloads, runtime = self.runtime.reloads, self.runtime
        return JSONResponse(
            {
                "config": runtime.engine.config,
                "process_id": os.getpid(),
                "reload": None if reloads is None else reloads.last.document(),
                "experts": runtime.fleet.states(),
            }
        )

    async def _shadow(self, http: Request) -> Response:
        shadow, section = self.runtime.shadow, self.runtime.config.shadow
        if shadow is None or section is None:
            raise RequestError("no second router decides here", None, "no_shadow")
        about = {"config": self.runtime.engine.config, "share": section.share}
        return JSONResponse(about | shadow.comparison.document())

    async def _decisions(self, http: Request) -> Response:
        return JSONResponse({"object": "list", "data": decisions_of(self.journal, http)})

    async def _experts(self, http: Request) -> Response:
        rows = [self._row(expert_id) for expert_id in self.runtime.fleet.specs]
        return JSONResponse({"object": "list", "data": rows})

    async def _turn(self, http: Request) -> Response:
        expert_id = http.path_params["expert_id"]
        known = self.runtime.fleet.specs
        if expert_id not in known:
            message = f"no expert is called {expert_id!r}; there are {', '.join(known)}"
            raise UnknownExpertError(message, "expert_id")
        try:
            body = SwitchBody.model_validate_json(await body_of(http, _LARGEST_BODY_BYTES))
        except ValidationError as error:
            message = 'the body must be {"switch": "on"}, or "ban", or "force"'
            raise RequestError(message, "switch") from error
        engine = self.runtime.engine
        engine.switches = engine.switches.turned(expert_id, body.switch)
        if self.runtime.siblings is not None:
            self.runtime.siblings.turned(expert_id, body.switch)
        return JSONResponse(self._row(expert_id))

    def _row(self, expert_id: str) -> dict[str, Any]:
        spec, engine = self.runtime.fleet.specs[expert_id], self.runtime.engine
        guarded = engine.guards.figures(engine.now()).experts.get(expert_id)
        return {
            "id": expert_id,
            "switch": self.runtime.engine.switches.of(expert_id),
            "state": self.runtime.fleet.states()[expert_id],
            "local": spec.local,
            "shared": spec.shared,
            "queued": 0 if guarded is None else guarded.n_queued,
            "replicas": [] if guarded is None else [asdict(one) for one in guarded.replicas],
        }

"""The OpenAI-compatible HTTP face: parse, hand to the engine, render. Decides nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

from coe.access.proxies import Proxies
from coe.answer import together
from coe.core import Request
from coe.crowd import Crowd
from coe.engine import AnyReply
from coe.environment import admin_token
from coe.errors import CoeError
from coe.errors.callers import RequestError, UnknownExpertError
from coe.personal import as_wished
from coe.services.access.middleware import Access, caller_of
from coe.services.access.porter import Porter
from coe.services.access.wishes import confined, may_name, signed, tenant_of
from coe.services.admin import Admin
from coe.services.embeddings import embeddings
from coe.services.entrance.admission import Admission
from coe.services.entrance.door import Door
from coe.services.entrance.front import Front, Keys
from coe.services.entrance.straight import Straight
from coe.services.journal import DecisionJournal
from coe.services.models import model_rows
from coe.services.observing.exchange import Exchange, exchange_of
from coe.services.observing.follow import follow
from coe.services.observing.metrics import Metrics
from coe.services.observing.watch import Tell, Watch
from coe.services.readiness import readiness
from coe.services.runtime import Runtime
from coe.services.streamed import Streamed
from coe.services.streaming import EventStream, unless_gone
from coe.services.wire.answers import (
    as_answer,
    document_of,
    headers_of,
    kept_document,
)
from coe.services.wire.body import json_of
from coe.services.wire.chat import chat_request, decision_document
from coe.services.wire.completions import chat_of, completion_of
from coe.services.wire.head import field_of
from coe.services.wire.openapi import openapi_document
from coe.services.wire.refusals import (
    NO_RETRY,
    as_json,
    error_document,
    refused,
)
from coe.services.wire.strict_json import echoed

_CLIENT_CLOSED = 499


@dataclass(slots=True)
class Gateway:
    """Serves one runtime, to everybody or to whom its porter lets in.

    Parameters
    ----------
    tell : told of every request beside the metrics; see `Watch`.
    sample : share of traces that is recorded; ``None``: nobody traces.
    propagate : experts get to know whose part of a trace they are.
    porter : ``None``: everybody may come in.
    """

    runtime: Runtime
    metrics: Metrics = field(default_factory=Metrics)
    keys: Keys = field(default_factory=Keys)
    tell: Sequence[Tell] = ()
    sample: float | None = None
    propagate: bool = False
    porter: Porter | None = None
    journal: DecisionJournal = field(init=False)
    door: Door = field(init=False)

    def __post_init__(self) -> None:
        section = self.runtime.config.gateway
        self.journal = DecisionJournal(section.kept_decisions, section.kept_for_s)
        most, own = section.max_in_flight, section.max_in_flight_per_caller
        self.door = Door(Crowd(most, own, np.random.default_rng()), section.answer_timeout_s)
        follow(self.metrics, lambda: self.runtime.engine, self.door.crowd)

    def app(self) -> Starlette:
        """The ASGI application.

        Raises
        ------
        ConfigError
            The operator's token cannot be sent in a header.
        """
        section = self.runtime.config.gateway
        token = admin_token(section.admin_token_env)
        routes = [
            Route("/v1/chat/completions", self.chat, methods=["POST"]),
            Route("/v1/completions", self.completion, methods=["POST"]),
            Route("/v1/embeddings", self.embeddings, methods=["POST"]),
            Route("/v1/models", self.models),
            Route("/v1/models/{name:path}", self.model),
            Route("/v1/route", self.route, methods=["POST"]),
            Route("/v1/decisions/{decision_id}", self.decision),
            Route("/openapi.json", self.openapi),
            Route("/healthz", self.healthz),
            Route("/readyz", self.readyz),
            Route("/metrics", self.scrape),
            *Admin(self.runtime, token, self.journal).routes(),
        ]
        watch = Middleware(
            Watch,
            tell=[self.metrics.tell, *self.tell],
            routes={route.endpoint: route.path for route in routes},
            now=self.runtime.engine.now,
            sample=self.sample,
        )
        app = Starlette(
            routes=routes,
            exception_handlers={
                CoeError: self._refuse,
                ClientDisconnect: self._gone,
                HTTPException: self._no_route,
                Exception: self._crash,
            },
            middleware=[
                watch,
                Middleware(Front, hosts=[name.lower() for name in section.hosts]),
                Middleware(Access, porter=self.porter, proxies=Proxies(section.trusted_proxies)),
                Middleware(Admission, door=self.door),
                Middleware(
                    Straight,
                    path="/v1/chat/completions",
                    endpoint=self.chat,
                    refuse=self._refuse,
                    gone=self._gone,
                ),
            ],
        )
        # a redirect would lose the body of whoever follows it
        app.router.redirect_slashes = False
        return app

    async def chat(self, http: HttpRequest) -> Response:
        """Answer, streamed or whole."""
        return await self._answer(http, await self._document(http))

    async def completion(self, http: HttpRequest) -> Response:
        """Answer a prompt as one answered prompts before there were chats."""
        document = chat_of(await self._document(http), self.runtime.extras)
        return await self._answer(http, document, older=True)

    async def embeddings(self, http: HttpRequest) -> Response:
        """Vectors of texts."""
        return as_json(await embeddings(self.runtime, await self._document(http)))

    async def _answer(
        self, http: HttpRequest, document: dict[str, Any], older: bool = False
    ) -> Response:
        exchange = exchange_of(http.scope)
        request, explain = self._parsed(http, document)
        if request.stream:
            every_s = self.runtime.config.gateway.waiting_every_s
            return EventStream(Streamed(self, request, older, exchange), every_s)
        self.metrics.n_in_flight += 1
        try:
            reply, body = await unless_gone(http.receive, self._answered(request, exchange))
        finally:
            self.metrics.n_in_flight -= 1
        told = document_of(body, reply, explain)
        return as_answer(completion_of(told) if older else told, headers_of(reply, reply.receipt))

    async def _answered(self, request: Request, exchange: Exchange) -> tuple[AnyReply, bytes]:
        """A reply and the whole of its body."""
        asked: list[AnyReply] = []
        try:
            reply = exchange.reply = await self.begun(request, asked.append)
            async with aclosing(reply.pieces()) as pieces:
                return reply, together([piece async for piece in pieces])
        except CoeError:
            raise
        except BaseException:
            # it may have begun, whatever came after that
            exchange.reply = asked[-1] if asked else None
            raise
        finally:
            if exchange.reply is not None:
                await exchange.reply.close()
                self.settle(exchange.reply)

    async def begun(
        self, request: Request, told: Callable[[AnyReply], None] = lambda reply: None
    ) -> AnyReply:
        """As `Engine.answer`; the decision is kept, and compared where a second router decides."""
        engine, shadow = self.runtime.engine, self.runtime.shadow
        glimpse = None if shadow is None else shadow.glimpse(engine, request)
        reply = await engine.answer(request, told)
        self.journal.note(reply.decision, tenant=request.tenant)
        if shadow is not None and glimpse is not None:
            shadow.note(glimpse, reply.decision)
        return reply

    async def route(self, http: HttpRequest) -> Response:
        """Decide without answering."""
        request, _ = self._parsed(http, await self._document(http))
        request = replace(request, read=True)
        engine = self.runtime.engine
        decision = engine.decide(request, await engine.prepare(request))
        self.journal.note(decision, tenant=request.tenant)
        exchange_of(http.scope).decision = decision
        return as_json(decision_document(decision))

    async def decision(self, http: HttpRequest) -> Response:
        """A kept decision, with its receipt once there is one; a tenant's, to that tenant."""
        name, caller = http.path_params["decision_id"], caller_of(http.scope)
        tenant = caller.tenant if caller and caller.role == "user" else None
        document, siblings = self.kept(name, tenant), self.runtime.siblings
        if document is None and siblings is not None:
            document = await siblings.decision(name, tenant)
        if document is None:
            raise RequestError(
                "no such decision, or it is no longer kept", "decision_id", "decision_not_found"
            )
        return as_json(document)

    def kept(self, decision_id: str, tenant: str | None) -> dict[str, Any] | None:
        """A decision that this process has kept, as JSON; ``None``: it has not.

        Parameters
        ----------
        tenant : whose it must be; ``None``: anybody's.
        """
        kept, shadow = self.journal.find(decision_id), self.runtime.shadow
        if kept is None or tenant not in (None, self.journal.tenant(decision_id)):
            return None
        return kept_document(*kept, None if shadow is None else shadow.find(decision_id))

    async def models(self, http: HttpRequest) -> Response:
        """What ``model`` may be: auto, the policies, the experts."""
        return as_json({"object": "list", "data": model_rows(self.runtime, caller_of(http.scope))})

    async def model(self, http: HttpRequest) -> Response:
        """One of them."""
        name = http.path_params["name"]
        for row in model_rows(self.runtime, caller_of(http.scope)):
            if row["id"] == name:
                return as_json(row)
        raise UnknownExpertError(f"there is no model {name!r}")

    async def openapi(self, http: HttpRequest) -> Response:
        """The interface, for programs."""
        return as_json(openapi_document(self.runtime.extras, self.porter is not None))

    async def healthz(self, http: HttpRequest) -> Response:
        """The process is up."""
        return as_json({"status": "ok"})

    async def readyz(self, http: HttpRequest) -> Response:
        """At least one expert can answer, now or once it is loaded, and nobody ends the gateway."""
        ends, told = self.door.phase != "open", self.porter is None
        ready, status = readiness(self.runtime, ends, told)
        return as_json(status, 200 if ready else 503)

    async def scrape(self, http: HttpRequest) -> Response:
        """Prometheus metrics."""
        siblings = self.runtime.siblings
        page = self.page() if siblings is None else await siblings.page()
        return Response(page, media_type="text/plain; version=0.0.4")

    def page(self) -> bytes:
        """The metrics of this process."""
        if self.runtime.shadow is not None:
            self.metrics.shadowed(self.runtime.shadow.comparison)
        return self.metrics.page(self.runtime.machines)

    def _parsed(self, http: HttpRequest, document: dict[str, Any]) -> tuple[Request, bool]:
        runtime, exchange, caller = self.runtime, exchange_of(http.scope), caller_of(http.scope)
        exchange.model = str(document.get("model", ""))
        document = signed(document, caller)
        known = runtime.known_to(tenant_of(document))
        experts = may_name(document.get("model"), caller, known)
        trace = exchange.trace if self.propagate else None
        request, explain = chat_request(
            document,
            runtime.policies,
            experts,
            runtime.own,
            runtime.extras,
            exchange.steps,
            "" if trace is None else trace.traceparent,
        )
        if (key := field_of(http.scope, b"idempotency-key")) is not None:
            shown = field_of(http.scope, b"authorization") or ""
            self.keys.check(key, caller.key_id if caller else shown, document)
        exchange.request = as_wished(confined(request, caller, known), runtime.tenants)
        exchange.steps.note("parse", exchange.started_s, runtime.engine.now())
        return exchange.request, explain

    async def _document(self, http: HttpRequest) -> dict[str, Any]:
        section = self.runtime.config.gateway
        return await json_of(http, section.max_body_bytes, section.body_timeout_s)

    def settle(self, reply: AnyReply) -> None:
        """Keep and count what an answer took, if it has ended; once."""
        if reply.receipt is not None:
            self.journal.note(reply.decision, reply.receipt, reply.request.tenant)
            if self.porter is not None:
                self.porter.charge(reply.request.key, reply.receipt)

    async def _refuse(self, http: HttpRequest, error: Exception) -> Response:
        assert isinstance(error, CoeError)
        return refused(error)

    async def _gone(self, http: HttpRequest, error: Exception) -> Response:
        return Response(status_code=_CLIENT_CLOSED)

    async def _no_route(self, http: HttpRequest, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        path, allowed = echoed(http.scope["path"]), (error.headers or {}).get("Allow")
        message = f"there is nothing at {path}: GET /openapi.json has what there is for callers"
        if allowed is not None:
            message = f"{path} takes {allowed}, and no {http.method}"
        code = {404: "unknown_url", 405: "method_not_allowed"}.get(error.status_code)
        exchange_of(http.scope).code = code or ""
        document = error_document(message, "invalid_request_error", code)
        return as_json(document, error.status_code, dict(error.headers or {}))

    async def _crash(self, http: HttpRequest, error: Exception) -> Response:
        document = error_document("the gateway failed; it goes on serving", "server_error")
        return as_json(document, 500, NO_RETRY)

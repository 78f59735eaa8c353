"""The OpenAI-compatible HTTP face: parse, hand to the engine, render. Decides nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Coroutine, Mapping
from contextlib import aclosing
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from coe.answer import before_end
from coe.core import Request
from coe.decision import Citation, Receipt
from coe.engine import AnyReply
from coe.environment import admin_token
from coe.errors import (
    CoeError,
    ExpertError,
    ExpertRejectedError,
    ExpertTimeoutError,
    InfeasibleError,
    RequestError,
    UnknownExpertError,
)
from coe.personal import NOBODY, as_wished
from coe.services.admin import Admin
from coe.services.body import body_of
from coe.services.journal import DecisionJournal
from coe.services.metrics import Metrics
from coe.services.runtime import Runtime
from coe.services.wire import (
    AUTO,
    decision_document,
    error_document,
    parse_chat,
    receipt_document,
)
from coe.tenants import visible

_CLIENT_CLOSED = 499
# what an expert says of the request; anything else it says is the operator's business
_PASSED_ON = frozenset({400, 404, 413, 422, 429})
_T = TypeVar("_T")


@dataclass(slots=True)
class Gateway:
    """Serves one runtime."""

    runtime: Runtime
    metrics: Metrics = field(default_factory=Metrics)
    journal: DecisionJournal = field(init=False)

    def __post_init__(self) -> None:
        self.journal = DecisionJournal(self.runtime.config.gateway.kept_decisions)

    def app(self) -> Starlette:
        """The ASGI application.

        Raises
        ------
        ConfigError
            The operator's token cannot be sent in a header.
        """
        token = admin_token(self.runtime.config.gateway.admin_token_env)
        return Starlette(
            routes=[
                Route("/v1/chat/completions", self.chat, methods=["POST"]),
                Route("/v1/models", self.models),
                Route("/v1/models/{name:path}", self.model),
                Route("/v1/route", self.route, methods=["POST"]),
                Route("/v1/decisions/{decision_id}", self.decision),
                Route("/healthz", self.healthz),
                Route("/readyz", self.readyz),
                Route("/metrics", self.scrape),
                *Admin(self.runtime, token).routes(),
            ],
            exception_handlers={
                CoeError: self._refuse,
                ClientDisconnect: self._gone,
                HTTPException: self._no_route,
                Exception: self._crash,
            },
        )

    async def chat(self, http: HttpRequest) -> Response:
        """Answer, streamed or whole."""
        request, explain = await self._parse(http)
        with self.metrics.in_flight.track_inprogress():
            reply = await _unless_gone(http.receive, self.runtime.engine.answer(request))
        self.journal.note(reply.decision)
        try:
            return await self._respond(http, request, reply, explain)
        except BaseException:
            await reply.close()
            raise

    async def _respond(
        self, http: HttpRequest, request: Request, reply: AnyReply, explain: bool
    ) -> Response:
        if request.stream:
            return _Stream(self._events(reply), reply)
        body = await _unless_gone(http.receive, self._whole(reply))
        assert reply.receipt is not None
        return _json(_with_extras(body, reply, explain), headers=_headers(reply, reply.receipt))

    async def route(self, http: HttpRequest) -> Response:
        """Decide without answering."""
        request, _ = await self._parse(http)
        engine = self.runtime.engine
        decision = engine.decide(request, await engine.prepare(request))
        self.journal.note(decision)
        return _json(decision_document(decision))

    async def decision(self, http: HttpRequest) -> Response:
        """A kept decision, with its receipt once there is one."""
        kept = self.journal.find(http.path_params["decision_id"])
        if kept is None:
            raise RequestError(
                "no such decision, or it is no longer kept", "decision_id", "decision_not_found"
            )
        decision, receipt = kept
        document = decision_document(decision)
        document["receipt"] = None if receipt is None else receipt_document(receipt)
        return _json(document)

    async def models(self, http: HttpRequest) -> Response:
        """What ``model`` may be: auto, the policies, the experts."""
        return _json({"object": "list", "data": self._model_rows()})

    async def model(self, http: HttpRequest) -> Response:
        """One of them."""
        name = http.path_params["name"]
        for row in self._model_rows():
            if row["id"] == name:
                return _json(row)
        raise UnknownExpertError(f"there is no model {name!r}")

    async def healthz(self, http: HttpRequest) -> Response:
        """The process is up."""
        return _json({"status": "ok"})

    async def readyz(self, http: HttpRequest) -> Response:
        """At least one expert can answer, now or once it is loaded."""
        fleet = self.runtime.fleet
        ready = fleet.can_answer
        overall = "ready" if ready else "failed" if fleet.has_failed else "starting"
        status = {"status": overall, "experts": fleet.states()}
        return _json(status, 200 if ready else 503)

    async def scrape(self, http: HttpRequest) -> Response:
        """Prometheus metrics."""
        return Response(
            self.metrics.page(self.runtime.machines), media_type="text/plain; version=0.0.4"
        )

    async def _parse(self, http: HttpRequest) -> tuple[Request, bool]:
        runtime = self.runtime
        body = await body_of(http, runtime.config.gateway.max_body_bytes)
        experts = frozenset(runtime.fleet.experts)
        request, explain = parse_chat(body, runtime.policies, experts, self._own)
        return as_wished(request, runtime.tenants), explain

    async def _whole(self, reply: AnyReply) -> bytes:
        self.metrics.in_flight.inc()
        try:
            async with aclosing(reply.pieces()) as pieces:
                return b"".join([piece async for piece in pieces])
        finally:
            self.metrics.in_flight.dec()
            self._settle(reply)

    async def _events(self, reply: AnyReply) -> AsyncGenerator[bytes, None]:
        """The expert's bytes; an error after the first ends the stream with an error event.

        Where passages were retrieved, an event that cites them stands before the end mark.
        """
        self.metrics.in_flight.inc()
        cited = _cited(reply)
        try:
            async with aclosing(reply.pieces()) as pieces:
                async for piece in before_end(pieces, cited) if cited else pieces:
                    yield piece
        except ExpertError as error:
            _, document = _rendered(error)
            yield b"\n\ndata: " + json.dumps(document).encode() + b"\n\n"
        finally:
            self.metrics.in_flight.dec()
            self._settle(reply)

    def _settle(self, reply: AnyReply) -> None:
        if reply.receipt is not None:
            self.journal.note(reply.decision, reply.receipt)
            self.metrics.settle(reply.decision, reply.receipt)

    def _model_rows(self) -> list[dict[str, Any]]:
        runtime = self.runtime
        names = [AUTO, *(f"{AUTO}:{name}" for name in runtime.policies)]
        about = {f"{AUTO}:{p.name}": p.description for p in runtime.policies.values()}
        rows = [_model_row(name, "coe", about.get(name, "")) for name in names]
        for name in visible(runtime.fleet.specs, self._own, NOBODY):
            spec = runtime.fleet.specs[name]
            computes = spec.id not in runtime.fleet.stocks
            about_it = f"{spec.params_b:g} B parameters" if computes else "computes nothing"
            rows.append(_model_row(spec.id, spec.profile.name, about_it))
        return rows

    @property
    def _own(self) -> dict[str, str]:
        """By tenant, the expert that it keeps to itself."""
        return {name: tenant.expert_id for name, tenant in self.runtime.tenants.items()}

    async def _refuse(self, http: HttpRequest, error: Exception) -> Response:
        assert isinstance(error, CoeError)
        status, document = _rendered(error)
        self.metrics.refusals.labels(document["error"]["code"] or "none").inc()
        headers = {"retry-after": "1"} if status == 503 else {}
        return _json(document, status, headers)

    async def _gone(self, http: HttpRequest, error: Exception) -> Response:
        return Response(status_code=_CLIENT_CLOSED)

    async def _no_route(self, http: HttpRequest, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        message = f"{http.method} {http.url.path}: {error.detail}"
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code)
        document = error_document(message, "invalid_request_error", code)
        return _json(document, error.status_code, dict(error.headers or {}))

    async def _crash(self, http: HttpRequest, error: Exception) -> Response:
        document = error_document("the gateway failed; it goes on serving", "server_error")
        return _json(document, 500)


class _Stream(Response):
    """An event stream that gives the answer up when the client goes away."""

    def __init__(self, events: AsyncGenerator[bytes, None], reply: AnyReply) -> None:
        headers = _headers(reply, None) | {"cache-control": "no-cache"}
        super().__init__(media_type="text/event-stream", headers=headers)
        del self.headers["content-length"]
        self._events = events
        self._reply = reply

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await _unless_gone(receive, self._send_all(send))
        except ClientDisconnect:
            return
        finally:
            await self._events.aclose()
            await self._reply.close()

    async def _send_all(self, send: Send) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        async for piece in self._events:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


async def _unless_gone(receive: Receive, work: Coroutine[Any, Any, _T]) -> _T:
    """The result of ``work``, which is cancelled when the client goes away.

    The body must have been read.

    Raises
    ------
    ClientDisconnect
        The client went away first.
    """
    task, gone = asyncio.create_task(work), asyncio.create_task(_disconnected(receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        gone.cancel()
        task.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    """Returns when the client has gone away."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _rendered(error: CoeError) -> tuple[int, dict[str, Any]]:
    """HTTP status and body of an error."""
    if isinstance(error, RequestError):
        statuses = {
            "admin_disabled": 403,
            "invalid_token": 401,
            "model_not_found": 404,
            "decision_not_found": 404,
            "request_too_large": 413,
        }
        more = {"needed": error.needed} if isinstance(error, InfeasibleError) else {}
        document = error_document(
            str(error), "invalid_request_error", error.code, error.param, **more
        )
        return statuses.get(error.code, 400), document
    if isinstance(error, ExpertRejectedError) and error.status in _PASSED_ON:
        detail = error.body.decode(errors="replace")[:500]
        message = f"{error}: {detail}" if detail else str(error)
        return error.status, error_document(message, "invalid_request_error", "expert_rejected")
    if isinstance(error, ExpertTimeoutError):
        return 504, error_document(str(error), "timeout_error", "expert_timeout")
    if isinstance(error, ExpertRejectedError):
        return 502, error_document(str(error), "server_error", "expert_failed")
    return 503, error_document(str(error), "server_error", "expert_unavailable")


def _headers(reply: AnyReply, receipt: Receipt | None) -> dict[str, str]:
    """What every answer says of itself; a stream's head can only hold predictions."""
    predicted = reply.decision.predicted
    source = receipt or predicted
    return {
        "x-coe-decision-id": reply.decision.decision_id,
        "x-coe-experts": ",".join(_asked(reply, receipt)),
        # a header holds ASCII only; categories are named by the owner's outcome table
        "x-coe-category": quote(reply.decision.category.name, safe=" /+.:_-"),
        "x-coe-energy-j": f"{source.energy_j:.6g}",
        "x-coe-latency-ms": f"{source.latency_ms:.6g}",
        "x-coe-figures": "predicted" if receipt is None else receipt.energy_source,
        "x-coe-retrieved": str(len(_citations(reply))),
        "x-coe-declined": str(reply.decision.declined).lower(),
    }


def _asked(reply: AnyReply, receipt: Receipt | None) -> tuple[str, ...]:
    """Who was asked; as long as that is not known, who may be."""
    if receipt is None or not receipt.parts:
        return reply.decision.selection.expert_ids
    return tuple(part.expert_id for part in receipt.parts)


def _citations(reply: AnyReply) -> tuple[Citation, ...]:
    retrieval = reply.decision.retrieval
    return () if retrieval is None else retrieval.citations


def _cited(reply: AnyReply) -> bytes:
    """The event of a stream that says what its answer may cite; empty where nothing is."""
    citations = _citations(reply)
    if not citations:
        return b""
    decision_id, mode = reply.decision.decision_id, reply.decision.selection.mode
    document = {
        "id": decision_id,
        "object": "chat.completion.chunk",
        "created": 0,
        "model": mode.name if mode.kind == "mixture" else reply.decision.expert_id,
        "choices": [],
        "coe": {"decision_id": decision_id, "citations": [asdict(c) for c in citations]},
    }
    return b"data: " + json.dumps(document).encode() + b"\n\n"


def _with_extras(body: bytes, reply: AnyReply, explain: bool) -> dict[str, Any]:
    """The expert's document under the expert's public name, with the decision and the receipt."""
    document: dict[str, Any] = json.loads(body, parse_constant=lambda name: None)
    assert reply.receipt is not None
    extras = decision_document(reply.decision, explain)
    extras["receipt"] = receipt_document(reply.receipt)
    return document | {"model": reply.receipt.expert_id, "coe": extras}


def _model_row(name: str, owner: str, description: str) -> dict[str, Any]:
    row = {"id": name, "object": "model", "created": 0, "owned_by": owner}
    return row | {"description": description}


def _json(
    document: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    # ASCII, because an expert may cut an emoji in two and half of one has no UTF-8 form
    content = json.dumps(document, allow_nan=False).encode()
    return Response(content, status, dict(headers or {}), media_type="application/json")

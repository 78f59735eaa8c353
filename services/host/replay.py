"""The program of a process that repeats recorded answers over HTTP.

Prints one JSON line ``{"address": ...}`` when it serves. Ends when its standard input ends. Asks
for the bearer token in ``$COE_ENGINE_KEY``, if there is one.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path

import uvicorn
from pydantic import TypeAdapter
from starlette.applications import Starlette
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from coe.answer import AnswerMeter
from coe.core import ExpertSpec, Request, estimated_tokens
from coe.errors.callers import RequestError
from coe.errors.experts import ExpertRejectedError
from coe.experts.protocol import Expert
from coe.experts.replay import ReplayExpert
from coe.routers.passages import is_quoted
from coe.services.recording import read_recording
from coe.services.wire.chat import parse_chat
from coe.services.wire.refusals import error_document


def main() -> None:
    """Serve a recording on a free port until standard input ends."""
    parser = argparse.ArgumentParser(prog="python -m coe.services.host.replay")
    parser.add_argument("--bind", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--spec", required=True, help="the expert's specification as JSON")
    parser.add_argument("--recording", type=Path, required=True)
    parser.add_argument("--recorded-as", required=True, help="whose answers")
    parser.add_argument("--time-scale", type=float, default=1.0, help="0 answers at once")
    options = parser.parse_args()

    spec = TypeAdapter(ExpertSpec).validate_json(options.spec)
    answers = read_recording(options.recording, options.recorded_as)
    expert = ReplayExpert(spec=spec, answers=answers, time_scale=options.time_scale)
    served = Served(expert, spec.id, os.environ.get("COE_ENGINE_KEY") or None, spec.extras)
    config = uvicorn.Config(served.app(), log_level="warning", lifespan="off", ws="none")
    with _listen(options.bind) as listener:
        host = f"[{options.bind}]" if ":" in options.bind else options.bind
        sys.stdout.write(json.dumps({"address": f"http://{host}:{_port(listener)}"}) + "\n")
        sys.stdout.flush()
        threading.Thread(target=_end_with_input, daemon=True).start()
        uvicorn.Server(config).run(sockets=[listener])


@dataclass(slots=True)
class Served:
    """A replay expert with the HTTP face of llama.cpp's server, as far as hosts and experts use it.

    Parameters
    ----------
    expert_id : the ``model`` that requests name.
    key : bearer token to ask for; ``None``: none.
    extras : fields beyond OpenAI's interface that it takes.
    """

    expert: Expert
    expert_id: str
    key: str | None = None
    extras: frozenset[str] = frozenset()
    _n_running: int = 0
    _output_tokens: int = 0
    _decode_s: float = 0.0

    def app(self) -> Starlette:
        """The application that serves it."""
        return Starlette(
            routes=[
                Route("/health", self.health),
                Route("/metrics", self.metrics),
                Route("/v1/models", self.models),
                Route("/v1/chat/completions", self.chat, methods=["POST"]),
            ]
        )

    async def health(self, http: HttpRequest) -> Response:
        """It is up."""
        return JSONResponse({"status": "ok"})

    async def models(self, http: HttpRequest) -> Response:
        """The one expert."""
        row = {"id": self.expert_id, "object": "model", "owned_by": "coe"}
        return self._refusal(http) or JSONResponse({"object": "list", "data": [row]})

    async def metrics(self, http: HttpRequest) -> Response:
        """What there is to do, in llama.cpp's words; decoding is timed where it is streamed."""
        page = (
            f"llamacpp:requests_processing {self._n_running}\n"
            "llamacpp:requests_deferred 0\n"
            f"llamacpp:tokens_predicted_total {self._output_tokens}\n"
            f"llamacpp:tokens_predicted_seconds_total {self._decode_s:.6f}\n"
        )
        return self._refusal(http) or PlainTextResponse(page)

    async def chat(self, http: HttpRequest) -> Response:
        """The recorded answer, byte for byte what the expert yields."""
        if refusal := self._refusal(http):
            return refusal
        try:
            known = frozenset({self.expert_id})
            request, _ = parse_chat(await http.body(), {}, known, extras=self.extras)
        except RequestError as error:
            return _error(400, error.message, error.code)
        pieces = self._counted(as_asked(request))
        try:
            first = await anext(pieces)
        except ExpertRejectedError as error:
            return _error(error.status, error.reason, "not_recorded")
        media_type = "text/event-stream" if request.stream else "application/json"
        return StreamingResponse(_chained(first, pieces), media_type=media_type)

    async def _counted(self, request: Request) -> AsyncGenerator[bytes, None]:
        """The pieces of the answer, which counts as running until the last of them."""
        meter, began = AnswerMeter(request.stream), None
        self._n_running += 1
        try:
            async for piece in self.expert.stream(request, request.max_tokens):
                began = began or time.monotonic()
                meter.feed(piece)
                yield piece
        finally:
            self._n_running -= 1
            if began and request.stream:
                self._output_tokens += meter.reading().output_tokens
                self._decode_s += time.monotonic() - began

    def _refusal(self, http: HttpRequest) -> Response | None:
        given = http.headers.get("authorization", "").encode()
        if self.key is None or secrets.compare_digest(given, f"Bearer {self.key}".encode()):
            return None
        return _error(401, "a bearer token is needed", "invalid_api_key")


def as_asked(request: Request) -> Request:
    """The request as it was before passages joined its messages: recordings go by the prompt."""
    quoted = [m for m in request.messages if m.role == "user" and is_quoted(m.text)]
    own = tuple(message for message in request.messages if message not in quoted)
    n_tokens = sum(estimated_tokens(message.text) for message in quoted)
    return replace(request, messages=own, passages_tokens=n_tokens)


async def _chained(first: bytes, rest: AsyncGenerator[bytes, None]) -> AsyncIterator[bytes]:
    async with aclosing(rest):
        yield first
        async for piece in rest:
            yield piece


def _error(status: int, message: str, code: str) -> Response:
    return JSONResponse(error_document(message, "invalid_request_error", code), status)


def _listen(bind: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in bind else socket.AF_INET
    return socket.create_server((bind, 0), family=family, backlog=2048)


def _port(listener: socket.socket) -> int:
    return int(listener.getsockname()[1])


def _end_with_input() -> None:
    sys.stdin.buffer.read()
    # answers that are still paced must not hold it up
    os._exit(0)


if __name__ == "__main__":
    main()

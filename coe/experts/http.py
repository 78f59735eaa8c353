"""Experts behind an OpenAI-compatible server, remote or on this machine."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import orjson

from coe.access.secrets import HIDDEN
from coe.answer import object_in
from coe.core import Request
from coe.errors.experts import (
    ExpertError,
    ExpertLostError,
    ExpertRejectedError,
    ExpertUnavailableError,
    ExpertUntrustedError,
)
from coe.experts.clamp import Clamp
from coe.experts.events import Events
from coe.experts.failures import FAILURES, as_its_own
from coe.experts.patience import Patience
from coe.experts.whole import MOST_BYTES, answer_in, whole_of
from coe.http.errors import HttpError
from coe.http.pool import Pool
from coe.http.response import Response
from coe.within import Within

_KEPT_ERROR_BYTES = 4096
_OK = 200
# for the end of a body whose stream has ended
_AFTER_END_S = 0.25
# for the words of a refusal, which its status says without them
_WORDS_S = 1.0


@dataclass(frozen=True, slots=True)
class HttpExpert:
    """An expert at a fixed address.

    Parameters
    ----------
    expert_id : for errors.
    client : the connections.
    base_url : address up to and including ``/v1``.
    upstream_model : the ``model`` that the server expects; the expert's id by default.
    api_key : sent as bearer token.
    connect_timeout_s : longest wait for a connection.
    first_token_timeout_s, idle_timeout_s : longest silence of a stream before its first piece
        and after it.
    answer_timeout_s : longest time for an answer, streamed or whole.
    keep_alive : reuse the connection; off for servers that drop it after a stream.
    max_answer_bytes : longest whole answer.
    """

    expert_id: str
    client: Pool
    base_url: str
    upstream_model: str | None = None
    api_key: str | None = None
    connect_timeout_s: float = 1.0
    first_token_timeout_s: float = 30.0
    idle_timeout_s: float = 30.0
    answer_timeout_s: float = 600.0
    keep_alive: bool = True
    max_answer_bytes: int = MOST_BYTES

    def stream(self, request: Request, max_tokens: int | None) -> AsyncGenerator[bytes, None]:
        """The answer's body, which has been looked at: as the server sends it, where that is sound.

        A stream ends with its end mark or with an error, and passes in whole events
        (`coe.experts.events`); a whole answer in one piece.

        Raises
        ------
        ExpertError
            As `Expert.stream`.
        ExpertUntrustedError
            What the server sent is no answer, or it is not the server that it should be.
        """
        return (
            self._streamed(request, max_tokens)
            if request.stream
            else self._whole(request, max_tokens)
        )

    async def _whole(self, request: Request, max_tokens: int | None) -> AsyncGenerator[bytes, None]:
        try:
            with Within(self.answer_timeout_s):
                with closing(await self._answering(request, max_tokens)) as response:
                    body = await whole_of(self.expert_id, response, self.max_answer_bytes)
        except FAILURES as failure:
            raise as_its_own(self.expert_id, failure) from failure
        yield answer_in(self.expert_id, body)

    async def _streamed(
        self, request: Request, max_tokens: int | None
    ) -> AsyncGenerator[bytes, None]:
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + self.answer_timeout_s
        events = Events(self.expert_id)
        clamp = Clamp(max_tokens, request.n_answers, bool(request.payload.get("tools")))
        try:
            with Within(self.first_token_timeout_s):
                response = await self._answering(request, max_tokens)
                try:
                    self._check_stream(response)
                    passing = await _next(response, events)
                except BaseException:
                    response.close()
                    raise
            with self._reading(response, ends_at) as patience:
                while passing := clamp.feed(passing):
                    yield passing
                    if events.ended or clamp.ended:
                        break
                    patience.since = loop.time()
                    passing = await _next(response, events)
                    patience.since = None
                if events.ended:
                    patience.stop()
                    await _to_the_end(response)
        except FAILURES as failure:
            raise as_its_own(self.expert_id, failure) from failure

    def _check_stream(self, response: Response) -> None:
        kind = response.first(b"content-type").partition(";")[0].strip().lower()
        if kind in ("text/html", "application/json"):
            raise ExpertUntrustedError(self.expert_id, f"answered with {kind}, not with a stream")

    async def document(
        self, path: str, body: Mapping[str, Any] | None, silence_s: float
    ) -> dict[str, Any]:
        """The JSON object at a path of the server's root.

        Parameters
        ----------
        body : what is sent there; ``None``: nothing, it is only read.
        silence_s : longest wait for it.

        Raises
        ------
        ExpertError
            As `Expert.stream`; `ExpertUnavailableError` also where it is something else.
        """
        content = None if body is None else _written(body)
        try:
            async with asyncio.timeout(silence_s):
                with closing(await self._asked(self._root + path, content)) as response:
                    text = await whole_of(self.expert_id, response, self.max_answer_bytes)
        except FAILURES as failure:
            raise as_its_own(self.expert_id, failure) from failure
        found = object_in(text)
        if found is None:
            raise ExpertUnavailableError(self.expert_id, f"has no JSON object at {path}")
        return found

    @property
    def _root(self) -> str:
        return self.base_url.rstrip("/").removesuffix("/v1")

    async def _answering(self, request: Request, max_tokens: int | None) -> Response:
        url = f"{self.base_url.rstrip('/')}/chat/completions"
        return await self._asked(
            url, _written(self._body(request, max_tokens)), request.traceparent
        )

    async def _asked(self, url: str, content: bytes | None, traceparent: str = "") -> Response:
        """What the server answers at an address, the body still to come."""
        headers = self._headers()
        if traceparent:
            headers["traceparent"] = traceparent
        response = await self.client.request(
            url, content, headers, self.connect_timeout_s, self.keep_alive
        )
        if response.status != _OK:
            with closing(response):
                raise await self._rejection(response)
        if response.first(b"content-encoding", "identity") != "identity":
            response.close()
            raise ExpertUntrustedError(self.expert_id, "compressed its answer, unasked")
        return response

    @contextmanager
    def _reading(self, response: Response, ends_at: float) -> Iterator[Patience]:
        """Patience with the body; a connection whose body was not read to its end is closed."""
        patience = Patience(self.expert_id, response, self.idle_timeout_s, ends_at)
        patience.start()
        try:
            with closing(response):
                yield patience
        finally:
            patience.stop()

    def _body(self, request: Request, max_tokens: int | None) -> dict[str, Any]:
        body = {**request.payload, "model": self.upstream_model or self.expert_id}
        if max_tokens is not None:
            newer = "max_completion_tokens" in body
            body.pop("max_tokens", None)
            body["max_completion_tokens" if newer else "max_tokens"] = max_tokens
        return body

    def _headers(self) -> dict[str, str]:
        headers = {"content-type": "application/json", "accept-encoding": "identity"}
        if self.api_key:
            headers["authorization"] = f"Bearer {self.api_key}"
        return headers

    async def _rejection(self, response: Response) -> ExpertError:
        if 300 <= response.status < 400:
            reason = f"points elsewhere (HTTP {response.status}), where nobody goes"
            return ExpertUntrustedError(self.expert_id, reason, "upstream_redirect")
        body = b""
        with suppress(TimeoutError, HttpError):
            async with asyncio.timeout(_WORDS_S):
                while len(body) < _KEPT_ERROR_BYTES and (piece := await response.read()):
                    body += piece
        body = body[:_KEPT_ERROR_BYTES]
        if self.api_key:
            # some servers repeat the key that they do not like
            body = body.replace(self.api_key.encode(), HIDDEN.encode())
        later = response.every(b"retry-after")
        return ExpertRejectedError(
            self.expert_id,
            f"answered HTTP {response.status}",
            response.status,
            body,
            later[0] if len(later) == 1 else None,
        )


async def _next(response: Response, events: Events) -> bytes:
    """The next events of a stream, as many as are there.

    Raises
    ------
    ExpertLostError, ExpertUntrustedError
        The stream has ended without its mark; or as `Events.feed`.
    """
    while piece := await response.read():
        if passing := events.feed(piece):
            return passing
    passing = events.end()
    if not passing:
        raise ExpertLostError(events.expert_id, "the answer broke off")
    return passing


async def _to_the_end(response: Response) -> None:
    """Read what follows the end mark, so that the connection can be used again."""
    with suppress(TimeoutError, HttpError):
        async with asyncio.timeout(_AFTER_END_S):
            while await response.read():
                pass


def _written(document: Mapping[str, Any]) -> bytes:
    """A body as JSON."""
    try:
        return orjson.dumps(document)
    except TypeError:  # an integer beyond 64 bits, which JSON allows
        return json.dumps(document, allow_nan=False).encode()

"""Experts behind an OpenAI-compatible server, remote or on this machine."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

import aiohttp
import httpx

from coe.assembly import Assembly
from coe.core import Request
from coe.errors import ExpertRejectedError, ExpertTimeoutError, ExpertUnavailableError

_KEPT_ERROR_BYTES = 4096
# llama.cpp's own names for length and number of answers would win over those that are capped
_UNBOUNDED = frozenset({"n_predict", "n_cmpl", "max_completion_tokens"})


@dataclass(frozen=True, slots=True)
class HttpExpert:
    """An expert at a fixed address.

    Parameters
    ----------
    expert_id : for errors.
    client : shared connection pool; its transport decides the speed.
    base_url : address up to and including ``/v1``.
    upstream_model : the ``model`` that the server expects; the expert's id by default.
    api_key : sent as bearer token.
    first_token_timeout_s, idle_timeout_s : longest silence of a stream before its first piece
        and after it.
    answer_timeout_s : longest silence before a whole answer.
    keep_alive : reuse the connection; off for servers that drop it after a stream.
    """

    expert_id: str
    client: httpx.AsyncClient
    base_url: str
    upstream_model: str | None = None
    api_key: str | None = None
    connect_timeout_s: float = 3.0
    first_token_timeout_s: float = 60.0
    idle_timeout_s: float = 30.0
    answer_timeout_s: float = 600.0
    keep_alive: bool = True

    async def stream(self, request: Request, max_tokens: int | None) -> AsyncGenerator[bytes, None]:
        """The answer's body as the server sends it, byte for byte."""
        limit_s = self.first_token_timeout_s if request.stream else self.answer_timeout_s
        timeout = httpx.Timeout(max(limit_s, self.idle_timeout_s), connect=self.connect_timeout_s)
        url = f"{self.base_url.rstrip('/')}/chat/completions"
        try:
            async with self.client.stream(
                "POST",
                url,
                content=json.dumps(self._body(request, max_tokens)),
                headers=self._headers(),
                timeout=timeout,
            ) as response:
                if response.status_code != httpx.codes.OK:
                    raise await self._rejection(response)
                pieces = response.aiter_raw()
                while piece := await self._next(pieces, limit_s):
                    limit_s = self.idle_timeout_s
                    yield piece
        except httpx.ConnectTimeout as error:
            raise ExpertUnavailableError(self.expert_id, "no connection in time") from error
        except httpx.TimeoutException as error:
            raise ExpertTimeoutError(self.expert_id, "no answer in time") from error
        except httpx.HTTPError as error:
            reason = f"connection failed ({type(error).__name__})"
            raise ExpertUnavailableError(self.expert_id, reason) from error
        except aiohttp.ClientError as error:
            # the transport lets some of its own errors through
            reason = f"answered something else than HTTP ({type(error).__name__})"
            raise ExpertUnavailableError(self.expert_id, reason) from error

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
        if not self.keep_alive:
            headers["connection"] = "close"
        return headers

    async def _next(self, pieces: AsyncIterator[bytes], silence_s: float) -> bytes:
        """The next piece; empty at the end."""
        try:
            async with asyncio.timeout(silence_s):
                async for piece in pieces:
                    if piece:
                        return piece
        except TimeoutError as error:
            raise ExpertTimeoutError(self.expert_id, f"silent for {silence_s:g} s") from error
        return b""

    async def _rejection(self, response: httpx.Response) -> ExpertRejectedError:
        body = (await response.aread())[:_KEPT_ERROR_BYTES]
        return ExpertRejectedError(
            self.expert_id, f"answered HTTP {response.status_code}", response.status_code, body
        )


@dataclass(frozen=True, slots=True)
class HostedExpert:
    """An expert in an engine process, whose address changes with restarts.

    Parameters
    ----------
    address : the engine's present address, or ``None`` while it is not ready.
    first_token_timeout_s, idle_timeout_s, answer_timeout_s, api_key : as in `HttpExpert`.
    """

    expert_id: str
    client: httpx.AsyncClient
    address: Callable[[], str | None]
    first_token_timeout_s: float = 60.0
    idle_timeout_s: float = 30.0
    answer_timeout_s: float = 600.0
    api_key: str | None = None

    def stream(self, request: Request, max_tokens: int | None) -> AsyncIterator[bytes]:
        """As `HttpExpert.stream`, from the engine's present address."""
        address = self.address()
        if address is None:
            raise ExpertUnavailableError(self.expert_id, "its engine is not running")
        expert = HttpExpert(
            expert_id=self.expert_id,
            client=self.client,
            base_url=f"{address}/v1",
            api_key=self.api_key,
            first_token_timeout_s=self.first_token_timeout_s,
            idle_timeout_s=self.idle_timeout_s,
            answer_timeout_s=self.answer_timeout_s,
        )
        return expert.stream(request, max_tokens)


@dataclass(frozen=True, slots=True)
class EmbeddedExpert:
    """An expert in a llama.cpp process, whose address changes with restarts.

    Parameters
    ----------
    address : the engine's present address, or ``None`` while it is not ready.
    api_key : sent as bearer token.
    """

    expert_id: str
    client: httpx.AsyncClient
    address: Callable[[], str | None]
    first_token_timeout_s: float = 60.0
    idle_timeout_s: float = 30.0
    api_key: str | None = None

    def stream(self, request: Request, max_tokens: int | None) -> AsyncIterator[bytes]:
        """As `HttpExpert.stream`, from the engine's present address.

        A whole answer is streamed inside, an empty piece for each event, because llama.cpp goes
        on with a whole answer whose client has left, and ends a stream.
        """
        address = self.address()
        if address is None:
            raise ExpertUnavailableError(self.expert_id, "its engine is not running")
        expert = HttpExpert(
            expert_id=self.expert_id,
            client=self.client,
            base_url=f"{address}/v1",
            api_key=self.api_key,
            first_token_timeout_s=self.first_token_timeout_s,
            idle_timeout_s=self.idle_timeout_s,
            # llama.cpp's server drops a connection after a stream now and then
            keep_alive=False,
        )
        payload = {k: v for k, v in request.payload.items() if k not in _UNBOUNDED}
        bounded = replace(request, payload=payload)
        if request.stream:
            return expert.stream(bounded, max_tokens)
        return self._whole(expert, bounded, max_tokens)

    async def _whole(
        self, expert: HttpExpert, request: Request, max_tokens: int | None
    ) -> AsyncIterator[bytes]:
        streamed = {"stream": True, "stream_options": {"include_usage": True}}
        inner = replace(request, stream=True, payload={**request.payload, **streamed})
        assembly = Assembly()
        async with aclosing(expert.stream(inner, max_tokens)) as pieces:
            async for piece in pieces:
                for _ in range(assembly.feed(piece)):
                    yield b""
        if not assembly.ended:
            raise ExpertUnavailableError(self.expert_id, "the answer broke off")
        yield assembly.document()

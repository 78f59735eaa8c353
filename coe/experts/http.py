"""Experts behind an OpenAI-compatible server, remote or on this machine."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import httpx

from coe.core import Request
from coe.errors import ExpertRejectedError, ExpertTimeoutError, ExpertUnavailableError

_KEPT_ERROR_BYTES = 4096


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
        with _as_its_own(self.expert_id):
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
        url = self.base_url.rstrip("/").removesuffix("/v1") + path
        with _as_its_own(self.expert_id):
            response = await self.client.request(
                "GET" if body is None else "POST",
                url,
                content=None if body is None else json.dumps(body),
                headers=self._headers(),
                timeout=httpx.Timeout(silence_s, connect=self.connect_timeout_s),
            )
            if response.status_code != httpx.codes.OK:
                raise await self._rejection(response)
        try:
            found = response.json()
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise ExpertUnavailableError(self.expert_id, f"has no JSON object at {path}")
        return found

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


@contextmanager
def _as_its_own(expert_id: str) -> Iterator[None]:
    """Failures of the connection as errors of the expert."""
    try:
        yield
    except httpx.ConnectTimeout as error:
        raise ExpertUnavailableError(expert_id, "no connection in time") from error
    except httpx.TimeoutException as error:
        raise ExpertTimeoutError(expert_id, "no answer in time") from error
    except httpx.HTTPError as error:
        reason = f"connection failed ({type(error).__name__})"
        raise ExpertUnavailableError(expert_id, reason) from error
    except aiohttp.ClientError as error:
        # the transport lets some of its own errors through
        reason = f"answered something else than HTTP ({type(error).__name__})"
        raise ExpertUnavailableError(expert_id, reason) from error

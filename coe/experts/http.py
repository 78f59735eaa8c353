"""Experts behind an OpenAI-compatible server, remote or on this machine."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson

from coe.core import Request
from coe.errors import ExpertRejectedError, ExpertUnavailableError
from coe.experts.failures import as_its_own
from coe.experts.patience import Patience

_KEPT_ERROR_BYTES = 4096
_OK = 200


@dataclass(frozen=True, slots=True)
class HttpExpert:
    """An expert at a fixed address.

    Parameters
    ----------
    expert_id : for errors.
    client : the connections, as of `coe.experts.dialling.session`.
    base_url : address up to and including ``/v1``.
    upstream_model : the ``model`` that the server expects; the expert's id by default.
    api_key : sent as bearer token.
    connect_timeout_s : longest wait for a connection.
    first_token_timeout_s, idle_timeout_s : longest silence of a stream before its first piece
        and after it.
    answer_timeout_s : longest time for an answer, streamed or whole.
    keep_alive : reuse the connection; off for servers that drop it after a stream.
    """

    expert_id: str
    client: aiohttp.ClientSession
    base_url: str
    upstream_model: str | None = None
    api_key: str | None = None
    connect_timeout_s: float = 1.0
    first_token_timeout_s: float = 30.0
    idle_timeout_s: float = 30.0
    answer_timeout_s: float = 600.0
    keep_alive: bool = True

    async def stream(self, request: Request, max_tokens: int | None) -> AsyncGenerator[bytes, None]:
        """The answer's body as the server sends it, byte for byte."""
        ends_at = asyncio.get_running_loop().time() + self.answer_timeout_s
        limit_s = self.first_token_timeout_s if request.stream else self.answer_timeout_s
        url = f"{self.base_url.rstrip('/')}/chat/completions"
        with as_its_own(self.expert_id):
            async with asyncio.timeout(limit_s):
                response = await self._asked("POST", url, _written(self._body(request, max_tokens)))
                try:
                    piece = await response.content.readany()
                except BaseException:
                    response.close()
                    raise
            async with self._reading(response, ends_at) as patience:
                now = asyncio.get_running_loop().time
                while piece:
                    yield piece
                    patience.since = now()
                    piece = await response.content.readany()
                    patience.since = None

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
        method, content = ("GET", None) if body is None else ("POST", _written(body))
        with as_its_own(self.expert_id):
            async with asyncio.timeout(silence_s):
                response = await self._asked(method, url, content)
                async with response:
                    text = await response.read()
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise ExpertUnavailableError(self.expert_id, f"has no JSON object at {path}")
        return found

    async def _asked(self, method: str, url: str, content: bytes | None) -> aiohttp.ClientResponse:
        """What the server answers, its body still to come."""
        response = await self.client.request(
            method,
            url,
            data=content,
            headers=self._headers(),
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=None, connect=self.connect_timeout_s),
        )
        if response.status != _OK:
            async with response:
                raise await self._rejection(response)
        return response

    @asynccontextmanager
    async def _reading(
        self, response: aiohttp.ClientResponse, ends_at: float
    ) -> AsyncIterator[Patience]:
        """Patience with the body; a connection whose body was not read to its end is closed."""
        patience = Patience(self.expert_id, response.content, self.idle_timeout_s, ends_at)
        patience.start()
        try:
            async with response:
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
        if not self.keep_alive:
            headers["connection"] = "close"
        return headers

    async def _rejection(self, response: aiohttp.ClientResponse) -> ExpertRejectedError:
        body = await response.content.read(_KEPT_ERROR_BYTES)
        return ExpertRejectedError(
            self.expert_id, f"answered HTTP {response.status}", response.status, body
        )


def _written(document: Mapping[str, Any]) -> bytes:
    """A body as JSON."""
    try:
        return orjson.dumps(document)
    except TypeError:  # an integer beyond 64 bits, which JSON allows
        return json.dumps(document, allow_nan=False).encode()

"""Connections to servers, kept for a while for who asks next."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Final

from coe.addresses import Reach
from coe.http.address import Address, Origin, address_of
from coe.http.connection import Connection
from coe.http.dialling import Resolve, dialled, looked_up
from coe.http.response import Response

KEPT_S: Final = 4.0
"""Shorter than the 5 s after which uvicorn, and so vLLM, drops a connection that nobody uses."""

_CLOSES_WITHIN_S: Final = 1.0


class Pool:
    """Connections without cookies, proxies, redirects or decompression, closed with the context.

    No limit on their number: a slow server that holds many must not keep others waiting for one.

    Parameters
    ----------
    reach, tls, resolve : as in `coe.http.dialling.dialled`.
    kept_s : how long a connection is kept that nobody uses.
    """

    def __init__(
        self,
        reach: Reach | None = None,
        tls: ssl.SSLContext | None = None,
        resolve: Resolve = looked_up,
        kept_s: float = KEPT_S,
    ) -> None:
        self._kept_s = kept_s
        self._reach = reach
        self._tls = tls
        self._resolve = resolve
        # the one used last is the last, and the next to be used
        self._idle: defaultdict[Origin, list[tuple[Connection, float]]] = defaultdict(list)
        self._open: set[Connection] = set()
        self._sweep: asyncio.TimerHandle | None = None
        self._closed = False
        self._empty = asyncio.Event()

    async def request(
        self,
        url: str,
        content: bytes | None,
        fields: Mapping[str, str],
        connect_within_s: float,
        keep: bool = True,
    ) -> Response:
        """The answer to a POST, or to a GET where there is no content; its body still comes.

        To be closed by whoever asked. Cancelled, nothing is left behind.

        Parameters
        ----------
        fields : of the head, besides those that HTTP itself asks for.
        keep : use the connection again.

        Raises
        ------
        HttpError
            There is no connection, or no answer.
        ValueError
            The URL is none, or a field cannot be sent.
        """
        address = address_of(url)
        head = _head(address, content, fields, keep)
        connection = self._kept(address.origin) or await self._new(address.origin, connect_within_s)
        response = connection.ask([head] if content is None else [head, content], keep)
        try:
            await response.head()
        except BaseException:
            response.close()
            raise
        return response

    async def close(self) -> None:
        """Close them all."""
        self._closed = True
        if self._sweep is not None:
            self._sweep.cancel()
        self._idle.clear()
        for connection in self._open:
            connection.drop()
        if self._open:
            with suppress(TimeoutError):
                async with asyncio.timeout(_CLOSES_WITHIN_S):
                    await self._empty.wait()

    async def __aenter__(self) -> Pool:
        """Itself."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        await self.close()

    def _kept(self, origin: Origin) -> Connection | None:
        """One that is open and not in use."""
        kept, now_s = self._idle.get(origin), time.monotonic()
        while kept:
            connection, since_s = kept.pop()
            if now_s - since_s < self._kept_s and connection.stands:
                return connection
            connection.drop()
        return None

    async def _new(self, origin: Origin, within_s: float) -> Connection:
        def made() -> Connection:
            def free(one: Connection) -> None:
                self._keep(origin, one)

            def lost(one: Connection) -> None:
                self._lose(origin, one)

            return Connection(free, lost)

        connection = await dialled(origin, made, within_s, self._reach, self._tls, self._resolve)
        self._open.add(connection)
        if self._closed:
            connection.drop()
        return connection

    def _keep(self, origin: Origin, connection: Connection) -> None:
        if self._closed:
            connection.drop()
            return
        self._idle[origin].append((connection, time.monotonic()))
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(self._kept_s, self._swept)

    def _lose(self, origin: Origin, connection: Connection) -> None:
        self._open.discard(connection)
        if self._closed and not self._open:
            self._empty.set()
        kept = self._idle.get(origin)
        if kept:
            self._idle[origin] = [one for one in kept if one[0] is not connection]

    def _swept(self) -> None:
        """Close those that nobody has used for a while."""
        # whatever fails, the next one that is kept has them looked at again
        self._sweep, now_s, left = None, time.monotonic(), False
        for origin, kept in list(self._idle.items()):
            young = [one for one in kept if now_s - one[1] < self._kept_s]
            for connection, _ in kept[: len(kept) - len(young)]:
                connection.drop()
            self._idle[origin] = young
            left = left or bool(young)
            if not young:
                del self._idle[origin]
        loop = asyncio.get_running_loop()
        self._sweep = loop.call_later(self._kept_s, self._swept) if left else None


def _head(address: Address, content: bytes | None, fields: Mapping[str, str], keep: bool) -> bytes:
    lines = [
        f"{'GET' if content is None else 'POST'} {address.path} HTTP/1.1",
        f"host: {address.named}",
        "accept: */*",
        "user-agent: coe",
        *(f"{name}: {value}" for name, value in fields.items()),
    ]
    if content is not None:
        lines.append(f"content-length: {len(content)}")
    if not keep:
        lines.append("connection: close")
    head = "\r\n".join([*lines, "", ""])
    if head.count("\n") + head.count("\r") + head.count("\0") != 2 * (len(lines) + 1):
        raise ValueError("a field of a request must be one line")
    try:
        return head.encode("latin-1")
    except UnicodeEncodeError:  # which shows the whole of it, the key with it
        raise ValueError("a field of a request must be of ISO 8859-1") from None

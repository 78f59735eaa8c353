"""Connections to experts: where they may lead, who keeps them, and how long."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver

from coe.addresses import Reach

# shorter than the 5 s after which uvicorn, and so vLLM, drops a connection that nobody uses
_KEPT_S = 4.0
_READ_BYTES = 64 * 1024


class BlockedError(OSError):
    """An address that must not be connected to."""


def session(
    reach: Reach | None = None,
    tls: ssl.SSLContext | None = None,
    resolver: AbstractResolver | None = None,
) -> aiohttp.ClientSession:
    """A pool of connections without cookies, proxies or decompression, to be closed by its owner.

    No limit on their number: a slow expert that holds many must not keep others waiting for one.
    A body is read ahead by twice 64 KiB at most. To be called with a running loop.

    Parameters
    ----------
    reach : what may be connected to. Every address is looked at when its socket is made, after
        its name was looked up, so a name that leads elsewhere later is noticed. ``None``:
        anything.
    tls : whom to believe; ``None``: whom this machine believes. There is no way not to look.
    resolver : looks names up; the system's by default.
    """
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            limit=0,
            keepalive_timeout=_KEPT_S,
            ssl=True if tls is None else tls,
            socket_factory=None if reach is None else _sockets(reach),
            resolver=resolver,
        ),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
        read_bufsize=_READ_BYTES,
        timeout=aiohttp.ClientTimeout(total=None),
    )


def _sockets(reach: Reach) -> Callable[[Any], socket.socket]:
    """A socket for an address that was looked up, unless it must not be connected to."""

    def made(info: tuple[Any, ...]) -> socket.socket:
        family, kind, protocol, _, address = info
        if (refusal := reach.refusal(str(address[0]))) is not None:
            raise BlockedError(refusal)
        return socket.socket(family, kind, protocol)

    return made


@dataclass(slots=True)
class Lines:
    """Pools of connections, as many as there are ways to connect.

    Parameters
    ----------
    own : to engines of this installation, on this machine and on others, whose addresses a
        supervisor of ours has told.
    """

    own: aiohttp.ClientSession
    _others: dict[tuple[str, Reach, Path | None], aiohttp.ClientSession] = field(
        default_factory=dict
    )

    def to(self, expert_id: str, reach: Reach, ca: Path | None = None) -> aiohttp.ClientSession:
        """The pool of an expert.

        Parameters
        ----------
        ca : certificates (PEM) of those who may say who the expert is; ``None``: whom this
            machine believes.

        Raises
        ------
        OSError, ssl.SSLError
            The certificates cannot be read.
        """
        key = (expert_id, reach, ca)
        if key not in self._others:
            tls = None if ca is None else ssl.create_default_context(cafile=ca)
            self._others[key] = session(reach, tls)
        return self._others[key]

    async def close(self) -> None:
        """Close them all."""
        pools = [self.own, *self._others.values()]
        await asyncio.gather(*(pool.close() for pool in pools))


@asynccontextmanager
async def lines() -> AsyncIterator[Lines]:
    """Connections, closed with the context."""
    opened = Lines(session(Reach(loopback=True, private=True)))
    try:
        yield opened
    finally:
        await opened.close()

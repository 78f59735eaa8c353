"""Sockets to servers: where they may lead, and who has to be there."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Final

from aiohappyeyeballs import start_connection

from coe.addresses import Reach
from coe.http.address import Origin
from coe.http.connection import Connection
from coe.http.errors import BlockedError, LateError, UnprovenError, UnreachedError

Info = tuple[Any, Any, int, str, tuple[Any, ...]]
"""An address of a server, as `socket.getaddrinfo` tells it."""

Resolve = Callable[[str, int], Awaitable[Sequence[Info]]]
"""Looks a host up; raises `OSError` where it has no address."""

# as RFC 8305 has it: the next address is tried beside one that is slow
_NEXT_AFTER_S: Final = 0.25


async def looked_up(host: str, port: int) -> Sequence[Info]:
    """The addresses of a host, as this machine knows them."""
    loop = asyncio.get_running_loop()
    return await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)


async def dialled(
    origin: Origin,
    made: Callable[[], Connection],
    within_s: float,
    reach: Reach | None,
    tls: ssl.SSLContext | None,
    resolve: Resolve,
) -> Connection:
    """A connection that stands, and is secured where it is to be.

    Every address is looked at after its name was looked up, so a name that leads elsewhere later
    is noticed.

    Parameters
    ----------
    reach : what may be connected to; ``None``: anything.
    tls : whom to believe; ``None``: whom this machine believes. There is no way not to look.

    Raises
    ------
    UnreachedError
        There is none: `LateError`, `BlockedError` or `UnprovenError` where that is why.
    """
    try:
        async with asyncio.timeout(within_s):
            infos = _allowed(await resolve(origin.host, origin.port), reach)
            opened = await start_connection(infos, happy_eyeballs_delay=_NEXT_AFTER_S, interleave=1)
            return await _standing(origin, made, opened, tls)
    except TimeoutError as error:
        raise LateError(f"none within {within_s:g} s") from error
    except ssl.SSLError as error:
        raise UnprovenError(type(error).__name__) from error
    # RuntimeError: of uvloop, for an address that the system does not take
    # UnicodeError: for a name that is none, as with nothing between two dots
    except (OSError, RuntimeError, UnicodeError) as error:
        raise UnreachedError(type(error).__name__) from error


async def _standing(
    origin: Origin,
    made: Callable[[], Connection],
    opened: socket.socket,
    tls: ssl.SSLContext | None,
) -> Connection:
    """The connection on a socket that is connected, and closed where that fails."""
    held = False

    def holding() -> Connection:
        nonlocal held
        held = True
        return made()

    try:
        context = (tls or await asyncio.to_thread(_usual)) if origin.tls else None
        loop = asyncio.get_running_loop()
        below, connection = await loop.create_connection(holding, sock=opened)
        if context is not None:
            above = await loop.start_tls(below, connection, context, server_hostname=origin.host)
            if above is None:
                raise ConnectionResetError("it closed as soon as it had proved who it is")
            connection.secured(above)
        return connection
    except BaseException:
        if held:  # by a transport, which the loop asks for it by its number until it is at its end
            with suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)
        else:
            opened.close()
        raise


def _allowed(infos: Sequence[Info], reach: Reach | None) -> Sequence[Info]:
    refusals = [None if reach is None else reach.refusal(str(info[4][0])) for info in infos]
    allowed = [info for info, refusal in zip(infos, refusals, strict=True) if refusal is None]
    if not allowed:
        raise BlockedError(refusals[0] if refusals else "its name has no address")
    return allowed


@cache
def _usual() -> ssl.SSLContext:
    """Whom this machine believes; read once, which takes its time."""
    return trusting(None)


def trusting(ca: Path | None) -> ssl.SSLContext:
    """Whom to believe: the authorities in a file of certificates (PEM); ``None``: this machine's.

    Raises
    ------
    OSError, ssl.SSLError
        The certificates cannot be read.
    """
    context = ssl.create_default_context(cafile=ca)
    context.set_alpn_protocols(["http/1.1"])
    return context

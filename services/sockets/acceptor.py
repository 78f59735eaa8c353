"""Connections, accepted as fast as they come, and no more than there are descriptors for."""

from __future__ import annotations

import asyncio
import errno
import resource
import socket
import ssl
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Final

from coe.services.enduring import Enduring

_AT_ONCE: Final = 64
_PAUSE_S: Final = 0.5
_KEPT_BACK: Final = 64
_MOST: Final = 65_536
_OUT_OF: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Acceptor:
    """Accepts the connections of a listening socket, with the face of asyncio's servers.

    libuv accepts one connection in a turn of its loop, so that under load they would come in as
    slowly as the loop turns.

    Parameters
    ----------
    protocol : makes one for every connection.
    connections : that are open.
    most : of them; who comes when there are as many is sent a ``refusal``, and hears no more.
    """

    def __init__(
        self,
        listener: socket.socket,
        protocol: Callable[[], asyncio.Protocol],
        connections: Collection[object],
        most: int,
        refusal: Callable[[], bytes],
        tls: ssl.SSLContext | None = None,
    ) -> None:
        listener.setblocking(False)
        self._listener = listener
        self._protocol = protocol
        self._connections = connections
        self._most = most
        self._refusal = refusal
        self._tls = tls
        self._loop = asyncio.get_running_loop()
        self._opening: dict[asyncio.Task[None], asyncio.Protocol] = {}
        self._paused: asyncio.TimerHandle | None = None
        self._accepting = Enduring("opening connections")
        self._listen()

    def close(self) -> None:
        """Accept no more."""
        self._loop.remove_reader(self._listener)
        if self._paused is not None:
            self._paused.cancel()

    async def wait_closed(self) -> None:
        """Wait for connections that are just being opened."""
        await asyncio.gather(*self._opening, return_exceptions=True)

    def _listen(self) -> None:
        self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        """Accept those that wait, but let others have their turn."""
        for _ in range(_AT_ONCE):
            try:
                connection, _address = self._listener.accept()
            except OSError as error:
                if error.errno in _OUT_OF:
                    # asked again at once, the loop would do nothing else
                    self._loop.remove_reader(self._listener)
                    self._paused = self._loop.call_later(_PAUSE_S, self._listen)
                return
            connection.setblocking(False)
            if self._is_full():
                self._refuse(connection)
            else:
                protocol = self._protocol()
                opening = self._loop.create_task(self._open(connection, protocol))
                self._opening[opening] = protocol
                opening.add_done_callback(self._opening.pop)

    def _is_full(self) -> bool:
        most = self._most - len(self._connections)
        if len(self._opening) < most:
            return False
        # one that has just opened is among the connections before its task has ended
        return sum(one not in self._connections for one in self._opening.values()) >= most

    async def _open(self, connection: socket.socket, protocol: asyncio.Protocol) -> None:
        # OSError: it went away, or its TLS is none
        with self._accepting, suppress(OSError):
            await self._loop.connect_accepted_socket(lambda: protocol, connection, ssl=self._tls)
            return
        connection.close()

    def _refuse(self, connection: socket.socket) -> None:
        with connection:
            if self._tls is None:
                try:
                    connection.send(self._refusal())
                    connection.shutdown(socket.SHUT_WR)
                except OSError:
                    return


def most_connections() -> int:
    """How many connections of clients there are descriptors for: half, for experts need as many.

    The limit of this process is raised as far as it may be first.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST if hard == resource.RLIM_INFINITY else min(hard, _MOST)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    limit = _MOST if soft == resource.RLIM_INFINITY else min(soft, _MOST)
    return max(1, (limit - _KEPT_BACK) // 2)

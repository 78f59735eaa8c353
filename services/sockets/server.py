"""HTTP servers inside a process that has other things to end, too."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import uvicorn
from starlette.applications import Starlette

from coe.services.sockets.acceptor import Acceptor, most_connections
from coe.services.sockets.peer import cut_stalled
from coe.services.sockets.protocol import BoundedHttp, last_answer
from coe.services.wire.refusals import error_document


class Server(uvicorn.Server):
    """A server that leaves signals to its owner.

    uvicorn's own ends the process by the signal once it has drained, before the engines behind
    the gateway could be ended.

    Parameters
    ----------
    stall_timeout_s : as in `coe.services.sockets.peer.cut_stalled`.
    """

    def __init__(self, config: uvicorn.Config, stall_timeout_s: float) -> None:
        super().__init__(config)
        self._stall_timeout_s = stall_timeout_s

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn, but that connections are accepted by `Acceptor`."""
        await super().startup(sockets=[])
        config, state = self.config, self.server_state
        make: Any = config.http_protocol_class
        protocol = partial(make, config=config, server_state=state, app_state=self.lifespan.state)
        most, tls = most_connections(), config.ssl
        for listener in sockets or []:
            cut_stalled(listener, self._stall_timeout_s)
        self.servers = [
            Acceptor(listener, protocol, state.connections, most, _full, tls)  # type: ignore[misc]
            for listener in sockets or []
        ]


def _full() -> bytes:
    """What whoever connects is told where there are no descriptors left."""
    reason = "there are as many connections as may be: connect again later"
    return last_answer(
        503, error_document(reason, "server_error", "overloaded"), "retry-after: 2\r\n"
    )


def server(
    app: Starlette,
    head_timeout_s: float = 10.0,
    stall_timeout_s: float = 120.0,
    unread: Callable[[int, str], None] = lambda status, code: None,
    **options: Any,
) -> Server:
    """A quiet server of ``app``, with uvicorn's options.

    Parameters
    ----------
    head_timeout_s, unread : as in `BoundedHttp`.
    stall_timeout_s : as in `Server`.
    """
    # uvicorn calls what it is given as a class, and types it as one
    protocol: Any = partial(BoundedHttp, head_timeout_s=head_timeout_s, unread=unread)
    return Server(
        uvicorn.Config(
            app,
            http=protocol,
            ws="none",
            log_level="warning",
            access_log=False,
            # longer than clients keep an idle connection (httpx: 5 s): one that is closed here just
            # as it is used again costs the caller an error
            timeout_keep_alive=75,
            server_header=False,
            # who asks is said by the connection, not by what anybody may write into a header
            proxy_headers=False,
            lifespan="off",
            **options,
        ),
        stall_timeout_s,
    )


def listening(host: str, port: int) -> socket.socket:
    """A listening socket whose connections send small pieces at once; port 0 takes a free one.

    Without the option, which they inherit, the body of an answer waits for the receipt of its head:
    40 ms, where the event loop is asyncio's own.

    Raises
    ------
    OSError
        The address is taken or not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=2048)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def reserved(host: str, port: int) -> socket.socket:
    """A socket that keeps an address for processes that will listen there; it does not itself.

    Raises
    ------
    OSError
        As `listening`: also where others would share the address.
    """
    with listening(host, port) as alone:
        family, address = alone.family, alone.getsockname()
    return _sharing(family, address)


def beside(other: socket.socket) -> socket.socket:
    """One more socket at the address of a `reserved` one.

    The kernel spreads connections evenly over those that listen, whoever is busy.
    """
    found = _sharing(other.family, other.getsockname())
    found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return found


def _sharing(family: int, address: Any) -> socket.socket:
    found = socket.socket(family, socket.SOCK_STREAM)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        found.bind(address)
    except OSError:
        found.close()
        raise
    return found

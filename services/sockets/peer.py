"""Whether anybody is at the other end of a connection, as far as the system knows."""

from __future__ import annotations

import select
import socket
import sys
from typing import Final

# where there is none, nothing but a broken connection tells
_SAYS_NO_MORE: Final = getattr(select, "POLLRDHUP", 0)
_MOST_S: Final = 32_767


def has_left(fileno: int) -> bool:
    """Whether the peer of a socket says no more, or the connection is broken."""
    poll = select.poll()
    poll.register(fileno, _SAYS_NO_MORE)
    return bool(poll.poll(0))


def cut_stalled(listener: socket.socket, after_s: float) -> None:
    """Have Linux break connections of which the peer takes nothing, or is not there, for so long.

    Holds for the connections that the listener accepts from now on. Where nothing is to be sent,
    the peer is asked after half of the time, and then at every quarter, whether it is there. Other
    systems break connections when they do.
    """
    if sys.platform != "linux":
        return
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(after_s * 1000.0))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, share in ((socket.TCP_KEEPIDLE, 0.5), (socket.TCP_KEEPINTVL, 0.25)):
        seconds = min(_MOST_S, max(1, round(after_s * share)))
        listener.setsockopt(socket.IPPROTO_TCP, option, seconds)

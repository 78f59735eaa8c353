"""Requests that would rather speak another protocol, read on as what they are."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Final

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_OF_A_HEAD: Final = ("on_message_begin", "on_url", "on_header", "on_headers_complete")
_FRAMING: Final = frozenset({b"content-length", b"transfer-encoding"})


def read_on(http: HttpToolsProtocol) -> None:
    """Have what comes next read as the body of the request whose head has just ended.

    llhttp takes what is behind such a head for another protocol. Where nobody changes to it, it is
    a body still (RFC 9110, 7.8): Java's own client asks for HTTP/2 with the first request of every
    connection.
    """
    known = True

    def unless_known(tell: Callable[..., None]) -> Callable[..., None]:
        def told(*said: Any) -> None:
            if not known:
                tell(*said)

        return told

    of_a_head = {name: unless_known(getattr(http, name)) for name in _OF_A_HEAD}
    http.parser = httptools.HttpRequestParser(
        SimpleNamespace(
            on_body=http.on_body, on_message_complete=http.on_message_complete, **of_a_head
        )
    )
    http.parser.set_dangerous_leniencies(lenient_data_after_close=True)
    framing = [b"%b: %b" % field for field in http.headers if field[0] in _FRAMING]
    http.parser.feed_data(b"\r\n".join([b"POST / HTTP/1.1", *framing, b"", b""]))
    known = False

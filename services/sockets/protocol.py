"""HTTP/1.1 as uvicorn reads it, with bounds on the head of a request and on the wait for it."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, Final

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from coe.http.joined import Joined
from coe.naming import new_name
from coe.services.sockets.peer import has_left
from coe.services.sockets.upgrade import read_on
from coe.services.wire.refusals import error_document

MOST_HEAD_BYTES: Final = 16 * 1024
MOST_URL_BYTES: Final = 8 * 1024
MOST_FIELDS: Final = 100
MOST_UNSENT_BYTES: Final = 64 * 1024

_LOOKS_EVERY_S: Final = 1.0

_METHOD = re.compile(rb"[A-Z]+ /")


def last_answer(status: int, document: Mapping[str, Any], more: str = "") -> bytes:
    """The bytes of an answer that is the last of its connection.

    Parameters
    ----------
    more : fields of its head, each with its end of line.
    """
    body = json.dumps(document).encode()
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
        f"x-request-id: {new_name('req')}\r\n{more}connection: close\r\n\r\n"
    )
    return head.encode() + body


class BoundedHttp(HttpToolsProtocol):
    """A connection whose requests have small heads that come soon; others are refused in JSON.

    Parameters
    ----------
    head_timeout_s : how long the head of a request may take to come, from the connection or from
        its first byte on.
    unread : told of the status and the code of a request that no application gets to see.
    """

    def __init__(
        self, *given: Any, head_timeout_s: float, unread: Callable[[int, str], None], **more: Any
    ) -> None:
        super().__init__(*given, **more)
        self._head_timeout_s = head_timeout_s
        self._unread = unread
        # of the fields that have come, and of what came while the head did not end
        self._head_bytes = self._n_held = 0
        self._n_fields = 0
        self._waiting: asyncio.TimerHandle | None = None
        self._refusal: tuple[int, str, str] | None = None
        self._line = b""
        # the request that is answered, or was last; whether nothing more is read
        self._turn: RequestResponseCycle | None = None
        self._over = False
        self._looking: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """As asyncio says; the head of a request is due from now on."""
        # as without TLS, for which uvloop has eight times as much wait
        transport.set_write_buffer_limits(MOST_UNSENT_BYTES)
        self._joined = Joined(transport, self.loop)
        super().connection_made(self._joined)  # type: ignore[arg-type]
        self._wait()

    def eof_received(self) -> None:
        """As asyncio says, which closes the connection; what has been written goes before.

        Whoever says no more before it has its answer has left, and takes nothing any more.
        """
        self._joined.flush()
        if self._unanswered is not None:
            self._abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """As asyncio says."""
        self._wait_no_more()
        if self._looking is not None:
            self._looking.cancel()
        super().connection_lost(exc)
        if (turn := self._unanswered) is not None:
            # uvicorn tells the request that came last
            turn.disconnected = True
            turn.message_event.set()

    def data_received(self, data: bytes) -> None:
        """As asyncio says."""
        if self._over:
            return
        self._line, begun = data[:32], self.scope
        try:
            self._read(data)
        except httptools.HttpParserError:
            self._end()
        if self._waiting is None or self.transport.is_closing():
            return
        if self.scope is begun or self.cycle is None or self.cycle.response_complete:
            # none of it is of a request before this one
            self._n_held += len(data)
        if self._n_held > MOST_URL_BYTES + MOST_HEAD_BYTES:
            self._refusal = (431, "head_too_large", f"the head has over {MOST_HEAD_BYTES} bytes")
            self._end()

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        # nothing else does: empty lines, or a body that nobody reads, would keep a connection
        self._unset_keepalive_if_required()
        self._head_bytes = self._n_held = self._n_fields = 0
        # beyond ASGI: what the request is called here, and how to break its connection off
        own: dict[str, Any] = {"coe.request_id": new_name("req"), "coe.abort": self._abort}
        self.scope.update(own)  # type: ignore[typeddict-item]
        if self._waiting is None:
            self._wait()

    def on_url(self, url: bytes) -> None:
        """More of its target has come."""
        super().on_url(url)
        if len(self.url) > MOST_URL_BYTES:
            self._refuse(414, "url_too_long", f"the target has over {MOST_URL_BYTES} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field of its head has come; or one after its body, which nobody looks for there."""
        if self._waiting is not None:
            super().on_header(name, value)
        self._n_fields += 1
        self._head_bytes += len(name) + len(value) + 4
        if self._n_fields > MOST_FIELDS or self._head_bytes > MOST_HEAD_BYTES:
            limits = f"{MOST_FIELDS} fields and {MOST_HEAD_BYTES} bytes"
            self._refuse(431, "head_too_large", f"the head must have at most {limits}")

    def on_headers_complete(self) -> None:
        """Its head has come: a path on this machine, and not an address elsewhere."""
        self._wait_no_more()
        self._head_bytes = 0
        if self.parser.get_method() == b"CONNECT":
            self._refuse(405, "method_not_allowed", "there is no way through here")
        if not self.url.startswith(b"/"):
            self._refuse(400, "invalid_request_target", "the target must be a path")
        super().on_headers_complete()
        if self.cycle is not None and self.cycle.scope is self.scope:
            self.cycle.default_headers = [*self.cycle.default_headers, self._named()]

    def on_message_complete(self) -> None:
        """It has come whole; but one that asks for another protocol may have a body still."""
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def _end(self) -> None:
        """Refuse what is no request, or none that is served, and close; but amid no answer."""
        turn = self._unanswered
        if turn is not None and (
            turn is not self.cycle or not turn.more_body or turn.response_started
        ):
            self._read_no_more()
        elif turn is not None:
            self._say_why()  # whoever reads its body tells of it
        elif self._turn is not None and self._turn.scope is self.scope:
            self.transport.close()  # it is the body of a request that was answered without it
        else:
            self._unread(*self._say_why())

    def _say_why(self) -> tuple[int, str]:
        """Refuse, and close; the status and the code that are said."""
        unknown = isinstance(sys.exception(), httptools.HttpParserInvalidMethodError)
        unknown = unknown and _METHOD.match(self._line) is not None
        other = (501, "method_not_allowed", "there is no such method")
        broken = (400, "invalid_http", "this is not HTTP/1.1")
        status, code, reason = self._refusal or (other if unknown else broken)
        kind = "timeout_error" if status == HTTPStatus.REQUEST_TIMEOUT else "invalid_request_error"
        self.transport.write(last_answer(status, error_document(reason, kind, code)))
        self.transport.close()
        return status, code

    def _read_no_more(self) -> None:
        """Close once every request that has come whole is answered."""
        self._over = True
        self._wait_no_more()
        if self.pipeline and self.cycle.more_body:
            self.pipeline.popleft()
        last = self.pipeline[0][0] if self.pipeline else self._turn
        assert last is not None
        last.keep_alive = False

    def _read(self, data: bytes) -> None:
        """Have the parser read on."""
        left = memoryview(data)
        while left:
            try:
                self.parser.feed_data(left)
            except httptools.HttpParserUpgrade as end:
                left = left[end.args[0] :]
                read_on(self)
            else:
                return

    @property
    def _unanswered(self) -> RequestResponseCycle | None:
        """The request that is being answered; ``None``: none is."""
        turn = self._turn
        return None if turn is None or turn.response_complete else turn

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._turn = cycle
        self._unset_keepalive_if_required()
        super()._start_asgi_task(cycle, app)
        if self._looking is None:
            self._looking = self.loop.call_later(_LOOKS_EVERY_S, self._look)

    def _look(self) -> None:
        """Give up a request whose caller has left.

        Nobody else may say so: TLS keeps the end of what a caller says to itself until all was sent
        to it, which takes minutes where it did not read, for its window stays shut when it is gone;
        and while another of its requests waits, nothing is read.
        """
        self._looking = None
        if self._unanswered is None:
            return
        if has_left(self.transport.get_extra_info("socket").fileno()):
            self._abort()
        else:
            self._looking = self.loop.call_later(_LOOKS_EVERY_S, self._look)

    def _named(self) -> tuple[bytes, bytes]:
        return b"x-request-id", self.scope["coe.request_id"].encode()  # type: ignore[typeddict-item]

    def _abort(self) -> None:
        """Close the connection at once, whatever still waits to be sent."""
        self.transport.abort()

    def _refuse(self, status: int, code: str, reason: str) -> None:
        """Have the parser give up, and the caller of it refuse."""
        self._refusal = (status, code, reason)
        raise httptools.HttpParserError(reason)

    def _wait(self) -> None:
        self._waiting = self.loop.call_later(self._head_timeout_s, self._late)

    def _wait_no_more(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _late(self) -> None:
        """The head did not come in time."""
        self._waiting = None
        if self.transport.is_closing():
            return
        if self._unanswered is not None:
            # the answer before it is still under way
            self._wait()
        elif self.scope is None:
            self.transport.close()
        else:
            reason = f"the head did not come within {self._head_timeout_s:g} s"
            self._refusal = (408, "request_timeout", reason)
            self._end()

"""One connection to a server, which answers one request after the other."""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable
from typing import Final

import httptools

from coe.http.errors import BrokenOffError, GoneError, NoHttpError, UnreachedError
from coe.http.joined import Joined
from coe.http.response import Field, Response

# of a head, of the fields after a body, and of what surrounds its pieces
_MOST_BARE_BYTES: Final = 64 * 1024
_BODILESS: Final = frozenset({204, 304})
_SWITCHES: Final = 101
_FIRST_STATUS: Final = 100


class Connection(asyncio.Protocol):
    """A connection; httptools reads what comes.

    Parameters
    ----------
    free : told when another request may be sent.
    lost : told when it is closed.
    """

    def __init__(
        self, free: Callable[[Connection], None], lost: Callable[[Connection], None]
    ) -> None:
        self._free = free
        self._lost = lost
        self._response: Response | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._fields: list[Field] = []
        self._n_bare_bytes = 0
        self._keeps = self._interim = self._bounded = self._complete = self._surplus = False
        self._paused = False
        self._poll: select.poll | None = None

    def ask(self, request: list[bytes], keep: bool) -> Response:
        """The answer to a request, of which nothing has come yet.

        Parameters
        ----------
        request : its parts, sent as one.
        keep : send another request when this one is answered.
        """
        response = self._response = Response(self)
        self._parser = httptools.HttpResponseParser(self)
        self._keeps, self._fields, self._n_bare_bytes = keep, [], 0
        self._interim = self._bounded = self._complete = self._surplus = False
        if self._transport.is_closing():
            self._break(UnreachedError("closed before it was asked"))
        else:
            for part in request:
                self._transport.write(part)
        return response

    @property
    def stands(self) -> bool:
        """Whether it is open, and nothing has come that nobody asked for, such as its end."""
        if self._transport.is_closing():
            return False
        if self._poll is None:
            self._poll = select.poll()
            self._poll.register(self._transport.get_extra_info("socket").fileno(), select.POLLIN)
        return not self._poll.poll(0)

    # ---- as asyncio calls a protocol

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """It is open."""
        self._below = transport
        self._transport = Joined(transport, asyncio.get_running_loop())

    def secured(self, above: asyncio.Transport) -> None:
        """TLS stands: what is written goes to ``above``, and by way of it to where it went."""
        self._transport = Joined(above, asyncio.get_running_loop())

    def data_received(self, data: bytes) -> None:
        """Something has come."""
        if self._parser is None:
            self._transport.abort()  # nobody asked
            return
        self._n_bare_bytes += len(data)
        error: Exception | None = None
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            error = NoHttpError("it changed to another protocol")
        except httptools.HttpParserError as raised:
            error = NoHttpError(type(raised).__name__)
        if self._complete:
            self._finish(again=error is None and not self._surplus)
            return
        if error is None and self._n_bare_bytes > _MOST_BARE_BYTES:
            error = NoHttpError("it has too many fields, or too long ones")
        if error is not None:
            self._break(error)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is closed."""
        self._lost(self)
        response = self._response
        if response is None:
            return
        if not response.status:
            self._break(GoneError("closed without an answer" if exc is None else str(exc)))
        elif self._bounded or exc is not None:
            self._break(BrokenOffError("the body broke off"))
        else:
            self._finish(again=False)

    # ---- as a response uses it

    def pause(self) -> None:
        """Let nothing come for now."""
        self._paused = True
        self._transport.pause_reading()

    def resume(self) -> None:
        """Let it come again."""
        if self._paused:
            self._paused = False
            self._transport.resume_reading()

    def drop(self) -> None:
        """Close it; an answer that was still to come will not."""
        self._break(BrokenOffError("the answer was given up"))

    # ---- as httptools calls whom it reads for

    def on_message_begin(self) -> None:
        """A head begins."""
        self._surplus = self._complete

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field has come, of the head or after the body."""
        assert self._response is not None
        if not self._response.status:
            self._fields.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """A head is complete."""
        assert self._parser is not None
        assert self._response is not None
        if self._complete:
            return
        status, fields = self._parser.get_status_code(), self._fields
        if status < _FIRST_STATUS:
            raise NoHttpError("its status is none")
        self._interim = status < 200 and status != _SWITCHES
        if self._interim:
            self._fields = []
            return
        self._bounded = status in _BODILESS or any(
            name in (b"content-length", b"transfer-encoding") for name, _ in fields
        )
        self._response.begin(status, fields)

    def on_body(self, piece: bytes) -> None:
        """A piece of the body has come."""
        if not self._complete:
            assert self._response is not None
            self._n_bare_bytes = 0
            self._response.feed(piece)

    def on_message_complete(self) -> None:
        """A body is complete, or a head that says that the answer comes later."""
        assert self._parser is not None
        if not self._interim:
            self._complete = True
            self._keeps = self._keeps and self._parser.should_keep_alive()

    def _finish(self, again: bool) -> None:
        """The answer is whole."""
        response = self._answered()
        assert response is not None
        response.end()
        if again and self._keeps and not self._transport.is_closing() and self._sent():
            self.resume()  # its last reader may have been slow
            self._free(self)
        else:
            self._transport.abort()

    def _sent(self) -> bool:
        """Whether the whole request was; who answers before may not read on after its end."""
        # of what waits below it, for a socket that takes no more, TLS does not tell
        waiting = self._transport.get_write_buffer_size() or self._below.get_write_buffer_size()
        return not waiting

    def _break(self, error: Exception) -> None:
        """Close it; an answer that was still to come fails."""
        response = self._answered()
        if response is not None:
            response.fail(error)
        self._transport.abort()

    def _answered(self) -> Response | None:
        """The answer that was being read, which is no more."""
        response, self._response, self._parser = self._response, None, None
        return response

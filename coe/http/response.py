"""An answer as it comes: its head, and its body piece by piece."""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from coe.http.errors import BrokenOffError

_AHEAD_BYTES: Final = 128 * 1024

Field = tuple[bytes, bytes]
"""A name in lower case, and its value."""


class Tap(Protocol):
    """The connection that an answer comes from."""

    def pause(self) -> None:
        """Let nothing come for now."""

    def resume(self) -> None:
        """Let it come again."""

    def drop(self) -> None:
        """Close it: the answer is given up."""


class Response:
    """An answer, to be read by one task and closed.

    What has come is read before it is said that no more will; no more than 128 KiB and one read of
    the socket are kept for who does not read.

    Parameters
    ----------
    tap : is paused, and dropped where the answer is not read to its end.
    """

    __slots__ = (
        "_ended",
        "_error",
        "_n_bytes",
        "_parts",
        "_paused",
        "_tap",
        "_waiter",
        "fields",
        "status",
    )

    def __init__(self, tap: Tap) -> None:
        self.status = 0
        self.fields: list[Field] = []
        self._tap: Tap | None = tap
        self._parts: list[bytes] = []
        self._n_bytes = 0
        self._paused = self._ended = False
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None

    def every(self, name: bytes) -> list[str]:
        """The values of all fields of that name, which is in lower case."""
        return [value.decode("latin-1") for field, value in self.fields if field == name]

    def first(self, name: bytes, otherwise: str = "") -> str:
        """The value of the first field of that name."""
        for field, value in self.fields:
            if field == name:
                return value.decode("latin-1")
        return otherwise

    async def head(self) -> None:
        """Wait for status and fields.

        Raises
        ------
        HttpError
            They will not come; or what `fail` was told.
        """
        while not self.status:
            if self._error is not None:
                raise self._told()
            await self._more()

    async def read(self) -> bytes:
        """What has come of the body since the last time, and is not empty; empty at its end.

        Raises
        ------
        HttpError
            It broke off; or what `fail` was told.
        """
        while not self._parts:
            if self._error is not None:
                raise self._told()
            if self._ended:
                return b""
            await self._more()
        parts, self._parts, self._n_bytes = self._parts, [], 0
        if self._paused and self._tap is not None:
            self._paused = False
            self._tap.resume()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def close(self) -> None:
        """Give up what is still to come; harmless where nothing is."""
        if self._tap is not None:
            self._tap.drop()
            self._tap = None

    def begin(self, status: int, fields: list[Field]) -> None:
        """The head has come."""
        self.status, self.fields = status, fields
        self._wake()

    def feed(self, piece: bytes) -> None:
        """More of the body has come; nothing counts after `fail`."""
        if self._error is not None:
            return
        self._parts.append(piece)
        self._n_bytes += len(piece)
        if self._n_bytes > _AHEAD_BYTES and not self._paused and self._tap is not None:
            self._paused = True
            self._tap.pause()
        self._wake()

    def end(self) -> None:
        """All of it has come; the connection is another's from now on."""
        self._ended, self._tap = True, None
        self._wake()

    def fail(self, error: Exception) -> None:
        """No more will come; who waits, or reads on, is told why."""
        if not self._ended and self._error is None:
            self._error = error
            self._wake()

    def _told(self) -> Exception:
        """The error, once: its traceback will hold this answer, and neither must hold the other."""
        error, self._error = self._error, BrokenOffError("the answer has failed before")
        assert error is not None
        return error

    async def _more(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

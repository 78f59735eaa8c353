"""What is written to a connection within one turn of the loop, sent at once."""

from __future__ import annotations

import asyncio
from typing import Any


class Joined:
    """A transport that sends all that a turn of the loop writes with one call of the system.

    The head and the body of a message are written one after the other, and uvloop sends each by
    itself: that would be two packets, and twice the cost. And whoever is written to wakes up once
    for all that a turn has for him, not in the midst of it for each. Whatever else is asked of it,
    the transport itself answers.

    Parameters
    ----------
    inner : is written to.
    """

    __slots__ = ("_held", "_inner", "_loop")

    def __init__(self, inner: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._inner = inner
        self._loop = loop
        self._held: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Send it at the end of this turn, after what was written before."""
        if not self._held:
            self._loop.call_soon(self.flush)
        self._held.append(data)

    def get_write_buffer_size(self) -> int:
        """The bytes that wait to be sent, here and in the transport."""
        return sum(map(len, self._held)) + self._inner.get_write_buffer_size()

    def close(self) -> None:
        """Send what is held, and close."""
        self.flush()
        self._inner.close()

    def flush(self) -> None:
        """Send what is held, unless the connection is being closed."""
        held, self._held = self._held, []
        if held and not self._inner.is_closing():
            self._inner.writelines(held)

    def abort(self) -> None:
        """Close at once, and send nothing more."""
        self._held.clear()
        self._inner.abort()

    def __getattr__(self, name: str) -> Any:
        """What the transport has under this name."""
        return getattr(self._inner, name)

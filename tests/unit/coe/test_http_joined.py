"""Writes of one turn go out together, in their order, before a close and never after an abort."""

import asyncio

from coe.http.joined import Joined


class Recorder(asyncio.Transport):
    """A transport that keeps what is written to it."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1)})
        self.written: list[bytes] = []
        self.ended = ""

    def write(self, data: object) -> None:
        """Keep it."""
        assert isinstance(data, bytes)
        self.written.append(data)

    def is_closing(self) -> bool:
        """Whether it was closed."""
        return bool(self.ended)

    def close(self) -> None:
        """Take note."""
        self.ended = "closed"

    def abort(self) -> None:
        """Take note."""
        self.ended = "aborted"


async def test_the_writes_of_a_turn_are_one() -> None:
    inner = Recorder()
    joined = Joined(inner, asyncio.get_running_loop())
    joined.write(b"head ")
    joined.write(b"body")
    assert inner.written == []
    await asyncio.sleep(0)
    joined.write(b"next")
    await asyncio.sleep(0)
    assert inner.written == [b"head body", b"next"]


async def test_a_close_sends_what_is_held_first() -> None:
    inner = Recorder()
    joined = Joined(inner, asyncio.get_running_loop())
    joined.write(b"last")
    joined.close()
    assert (inner.written, inner.ended) == ([b"last"], "closed")
    await asyncio.sleep(0)
    assert inner.written == [b"last"]


async def test_nothing_follows_an_abort_or_the_end_of_a_connection() -> None:
    for end in ("abort", "lost"):
        inner = Recorder()
        joined = Joined(inner, asyncio.get_running_loop())
        joined.write(b"late")
        joined.abort() if end == "abort" else inner.close()
        await asyncio.sleep(0)
        assert inner.written == []


async def test_all_else_is_the_transports() -> None:
    joined = Joined(Recorder(), asyncio.get_running_loop())
    assert joined.get_extra_info("peername") == ("127.0.0.1", 1)
    assert not joined.is_closing()

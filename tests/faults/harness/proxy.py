"""A TCP proxy that spoils what passes through it, byte by byte."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field

from harness.expert import reset

_BLOCK = 16_384


@dataclass(slots=True)
class ByteProxy:
    """In front of a server on loopback; its fields may be changed at any time.

    Parameters
    ----------
    target : port of the server.
    delay_s : of every block, in both directions.
    bytes_per_s : of what comes from the server; 0: as fast as it can.
    passing : cleared, nothing is passed on any more, and nobody is told.
    cut_after, reset_after : connections end, or are reset, after so many bytes from the server.
    flip_at : the lowest bit of this byte from the server is wrong.
    twice_at : the block with this byte from the server comes twice.
    """

    target: int
    delay_s: float = 0.0
    bytes_per_s: float = 0.0
    cut_after: int | None = None
    reset_after: int | None = None
    flip_at: int | None = None
    twice_at: int | None = None
    port: int = 0
    passing: asyncio.Event = field(default_factory=asyncio.Event)
    _server: asyncio.Server | None = None
    _open: set[asyncio.StreamWriter] = field(default_factory=set)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def start(self) -> None:
        """Listen, where it did before."""
        self.passing.set()
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Let nobody in, and reset who is."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Reset every connection."""
        for writer in tuple(self._open):
            reset(writer)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            reset(writer)
            return
        both = {writer, back}
        self._open |= both
        up = asyncio.create_task(self._up(reader, back))
        down = asyncio.create_task(self._down(there, writer))
        try:
            await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (up, down):
                task.cancel()
            await asyncio.gather(up, down, return_exceptions=True)
            self._open -= both
            for end in both:
                end.close()

    async def _up(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while block := await reader.read(_BLOCK):
                await self._wait(0)
                writer.write(block)
                await writer.drain()

    async def _down(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        n_passed = 0
        with suppress(ConnectionError):
            while block := await reader.read(_BLOCK):
                await self._wait(len(block))
                end = n_passed + len(block)
                for limit, abrupt in ((self.cut_after, False), (self.reset_after, True)):
                    if limit is not None and limit < end:
                        writer.write(block[: max(0, limit - n_passed)])
                        await writer.drain()
                        if abrupt:
                            await asyncio.sleep(0.02)
                            reset(writer)
                        return
                spoilt = bytearray(block)
                if self.flip_at is not None and n_passed <= self.flip_at < end:
                    spoilt[self.flip_at - n_passed] ^= 1
                n_times = 1 + (self.twice_at is not None and n_passed <= self.twice_at < end)
                writer.write(bytes(spoilt) * n_times)
                await writer.drain()
                n_passed = end

    async def _wait(self, n_bytes: int) -> None:
        await self.passing.wait()
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        if self.bytes_per_s and n_bytes:
            await asyncio.sleep(n_bytes / self.bytes_per_s)

"""An engine's process: its pipes are read along, and it ends by its id."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections import deque
from collections.abc import Mapping, Sequence

_LINE_BYTES = 65536


class Child:
    """A running process that says its address in one JSON line, and ends when its input ends.

    Made by `spawn`.
    """

    def __init__(self, process: asyncio.subprocess.Process, exited: asyncio.Event) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        self._process = process
        self._exited = exited
        self._last_words: deque[str] = deque(maxlen=3)
        self._announced: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        # both pipes are read to their end: a full one would block the engine
        self._readers = {
            asyncio.create_task(_drain(process.stderr, self._last_words)),
            asyncio.create_task(_listen(process.stdout, self._announced)),
        }

    @classmethod
    async def spawn(cls, command: Sequence[str], environment: Mapping[str, str]) -> Child:
        """A new process, in a group of its own.

        Raises
        ------
        OSError
            It cannot be started.
        """
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.subprocess_exec(
            lambda: _Streams(_LINE_BYTES, loop),
            *command,
            env=environment,
            start_new_session=True,
        )
        return cls(asyncio.subprocess.Process(transport, protocol, loop), protocol.exited)

    @property
    def id(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def last_words(self) -> str:
        """The last lines of its standard error; complete once it has ended."""
        return " | ".join(self._last_words) or "no message"

    async def announced(self) -> str | None:
        """The address that it says; ``None`` when it ends, or says something else, before."""
        return await asyncio.shield(self._announced)

    async def ended(self) -> int:
        """Its exit code, once it has ended; others may still hold its pipes."""
        await self._exited.wait()
        assert self._process.returncode is not None
        return self._process.returncode

    async def end(self) -> None:
        """Close its standard input, which asks it to end; insist; end what it has left behind.

        Who is cancelled meanwhile is so afterwards: nobody else would end the process.
        """
        ending = asyncio.create_task(self._end())
        cancelled = False
        while not ending.done():
            try:
                await asyncio.shield(ending)
            except asyncio.CancelledError:
                cancelled = True
        if cancelled:
            raise asyncio.CancelledError

    async def _end(self) -> None:
        process = self._process
        if process.stdin is not None:
            process.stdin.close()
        for wait_s, insist in ((2.0, signal.SIGTERM), (2.0, signal.SIGKILL)):
            try:
                async with asyncio.timeout(wait_s):
                    await self.ended()
                    break
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(insist)
        await self.ended()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        _, unfinished = await asyncio.wait(self._readers, timeout=1.0)
        for reader in unfinished:
            reader.cancel()


class _Streams(asyncio.subprocess.SubprocessStreamProtocol):
    """Says when the process has exited: asyncio waits until nobody holds its pipes."""

    def __init__(self, limit: int, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(limit, loop)
        self.exited = asyncio.Event()

    def process_exited(self) -> None:
        super().process_exited()
        self.exited.set()


async def _listen(stream: asyncio.StreamReader, announced: asyncio.Future[str | None]) -> None:
    """Read to the end; the address in the first JSON line, or ``None``, becomes ``announced``."""
    while True:
        try:
            line = await stream.readline()
        except ValueError:  # a line longer than the buffer, which is dropped
            continue
        if not line:
            break
        if line.startswith(b"{") and not announced.done():
            announced.set_result(_address_in(line))
    if not announced.done():
        announced.set_result(None)


def _address_in(line: bytes) -> str | None:
    try:
        return str(json.loads(line)["address"])
    except (ValueError, KeyError, RecursionError):
        return None


async def _drain(stream: asyncio.StreamReader, last_words: deque[str]) -> None:
    """Read to the end, so that the pipe never fills; keep the last lines for an error message."""
    while chunk := await stream.read(65536):
        lines = chunk.decode(errors="replace").splitlines()
        last_words.extend(line.strip()[:200] for line in lines if line.strip())

"""An engine's process: its pipes are read along, and it ends by its id."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections import deque
from collections.abc import Mapping, Sequence


class Child:
    """A running process that says its address in one JSON line, and ends when its input ends.

    Made by `spawn`.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        self._process = process
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
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
        return cls(process)

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
        """Its exit code, once it has ended."""
        return await self._process.wait()

    async def end(self) -> None:
        """Close its standard input, which asks it to end; insist; end what it has left behind."""
        process = self._process
        if process.stdin is not None:
            process.stdin.close()
        for wait_s, insist in ((2.0, signal.SIGTERM), (2.0, signal.SIGKILL)):
            try:
                async with asyncio.timeout(wait_s):
                    await process.wait()
                    break
            except TimeoutError:
                process.send_signal(insist)
        await process.wait()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        _, unfinished = await asyncio.wait(self._readers, timeout=1.0)
        for reader in unfinished:
            reader.cancel()


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
    except (ValueError, KeyError):
        return None


async def _drain(stream: asyncio.StreamReader, last_words: deque[str]) -> None:
    """Read to the end, so that the pipe never fills; keep the last lines for an error message."""
    while chunk := await stream.read(65536):
        lines = chunk.decode(errors="replace").splitlines()
        last_words.extend(line.strip()[:200] for line in lines if line.strip())

"""What two processes say to each other over a socket: calls in JSON, one a line."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from coe.errors import CoeError, callers, experts, files, gateway
from coe.errors.gateway import GatewayError
from coe.services.enduring import Enduring

# pages of metrics and the state of a pacer go on one line
_LONGEST = 64 * 1024 * 1024
_KINDS = {
    kind.__name__: kind
    for room in (callers, experts, files, gateway)
    for kind in vars(room).values()
    if isinstance(kind, type) and issubclass(kind, CoeError)
}

Verb = Callable[..., Any]
"""What is called by its name; where it returns an awaitable, others are not kept waiting."""


@dataclass(slots=True)
class Line:
    """One end of a line. `run` listens; what the other end asks is answered by ``verbs``."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    verbs: Mapping[str, Verb]
    open: bool = True
    _names: itertools.count[int] = field(default_factory=itertools.count)
    _waiting: dict[int, asyncio.Future[Any]] = field(default_factory=dict)
    _answering: set[asyncio.Task[None]] = field(default_factory=set)
    _hearing: Enduring = field(default_factory=lambda: Enduring("hearing another process"))

    @classmethod
    async def on(cls, end: socket.socket, verbs: Mapping[str, Verb]) -> Line:
        """The line whose end this socket is."""
        reader, writer = await asyncio.open_unix_connection(sock=end, limit=_LONGEST)
        return cls(reader, writer, verbs)

    def tell(self, verb: str, *words: Any) -> None:
        """Have the other end do something; whether it did nobody hears."""
        self._say([verb, None, *words])

    async def ask(self, verb: str, *words: Any) -> Any:
        """What the other end answers.

        Raises
        ------
        CoeError
            What it raised; `GatewayError` where the line broke before.
        """
        if not self.open:
            raise GatewayError("the other process has ended")
        name = next(self._names)
        answer = self._waiting[name] = asyncio.get_running_loop().create_future()
        try:
            self._say([verb, name, *words])
            return await answer
        finally:
            self._waiting.pop(name, None)

    async def run(self) -> None:
        """Listen until the other end is gone, whatever fails of a call.

        One that is longer than any may be ends the line: nobody knows where the next begins.
        """
        try:
            with self._hearing, suppress(OSError):
                # who is killed leaves half a line
                while (line := await self.reader.readline()).endswith(b"\n"):
                    with self._hearing:
                        self._hear(json.loads(line))
        finally:
            self.open = False
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(GatewayError("the other process has ended"))
            self.writer.close()

    def _say(self, said: list[Any]) -> None:
        if self.open:
            self.writer.write(json.dumps(said).encode() + b"\n")

    def _hear(self, said: list[Any]) -> None:
        verb, name, *words = said
        if verb == "answer":
            self._answered(name, *words)
            return
        found = None
        with self._told(name):
            found = self.verbs[verb](*words)
            if not asyncio.iscoroutine(found):
                self._answer(name, "said", found)
        if asyncio.iscoroutine(found):
            task = asyncio.create_task(self._answer_later(name, found))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)

    async def _answer_later(self, name: int | None, finding: Coroutine[Any, Any, Any]) -> None:
        with self._told(name):
            self._answer(name, "said", await finding)

    @contextmanager
    def _told(self, name: int | None) -> Iterator[None]:
        """Whoever asked is told of an error in the context, also of what nobody foresaw.

        Where nobody did, it is logged, whether it was foreseen or not.
        """
        with self._hearing:
            try:
                yield
            except CoeError as error:
                if name is None:
                    raise
                self._answer(name, "raised", type(error).__name__, list(error.args))
            return
        words = f"the other process has failed: {self._hearing.latest}"
        self._answer(name, "raised", "GatewayError", [words])

    def _answer(self, name: int | None, *words: Any) -> None:
        if name is not None:
            self._say(["answer", name, *words])

    def _answered(self, name: int, how: str, *words: Any) -> None:
        answer = self._waiting.get(name)
        if answer is None or answer.done():
            return
        if how == "said":
            answer.set_result(words[0])
            return
        error: CoeError = GatewayError("the other process raises what nobody knows")
        with self._hearing:
            kind, args = words
            error = _KINDS[kind](*args)
        answer.set_exception(error)

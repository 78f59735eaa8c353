"""What two processes say to each other over a socket: calls in JSON, one a line."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from coe.errors import CoeError, callers, experts, files, gateway
from coe.errors.gateway import GatewayError

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
        """Listen until the other end is gone."""
        try:
            while line := await self.reader.readline():
                self._hear(json.loads(line))
        except (OSError, ValueError):
            pass
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
        found = self.verbs[verb](*words)
        if asyncio.iscoroutine(found):
            task = asyncio.create_task(self._answer(name, found))
            self._answering.add(task)
            task.add_done_callback(lambda done: self._done(name, done))
        elif name is not None:
            self._say(["answer", name, "said", found])

    async def _answer(self, name: int | None, finding: Any) -> None:
        try:
            found = ["said", await finding]
        except CoeError as error:
            found = ["raised", type(error).__name__, list(error.args)]
        if name is not None:
            self._say(["answer", name, *found])

    def _done(self, name: int | None, task: asyncio.Task[None]) -> None:
        """Whoever asked hears of what nobody foresaw, too."""
        self._answering.discard(task)
        if name is not None and not task.cancelled() and (error := task.exception()) is not None:
            self._say(["answer", name, "raised", "GatewayError", [f"the other process: {error!r}"]])

    def _answered(self, name: int, how: str, *words: Any) -> None:
        answer = self._waiting.get(name)
        if answer is None or answer.done():
            return
        if how == "said":
            answer.set_result(words[0])
        else:
            kind, args = words
            answer.set_exception(_KINDS[kind](*args))

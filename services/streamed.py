"""An answer as a stream: asked for, told event by event, settled however it ends."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Protocol

from coe.answer import before_end
from coe.core import Request
from coe.engine import AnyReply
from coe.errors import CoeError
from coe.errors.experts import UNANSWERED
from coe.services.observing.exchange import Exchange
from coe.services.observing.metrics import Metrics
from coe.services.wire.answers import event_of_citations, headers_of
from coe.services.wire.completions import retold
from coe.services.wire.refusals import code_of, error_event


class Answering(Protocol):
    """What a stream asks of its gateway."""

    metrics: Metrics

    async def begun(self, request: Request, told: Callable[[AnyReply], None]) -> AnyReply:
        """As `coe.engine.Engine.answer`."""

    def settle(self, reply: AnyReply) -> None:
        """Keep and count what an answer took."""


@dataclass(slots=True)
class Streamed:
    """The stream of the answer to one request: a `coe.services.streaming.Source`."""

    gateway: Answering
    request: Request
    older: bool
    exchange: Exchange
    _asked: list[AnyReply] = field(default_factory=list)
    _settled: bool = False

    @property
    def headers(self) -> dict[str, str] | None:
        """Of who is asked; ``None`` as long as nobody is."""
        return headers_of(self._asked[-1], None) if self._asked else None

    async def open(self) -> None:
        """Ask, and wait for the first piece.

        Raises
        ------
        CoeError
            None came.
        """
        gateway = self.gateway
        gateway.metrics.n_in_flight += 1
        try:
            self.exchange.reply = await gateway.begun(self.request, self._asked.append)
        except CoeError as error:
            self._asked.clear()
            self.exchange.end(error, code_of(error))
            raise
        finally:
            gateway.metrics.n_in_flight -= 1

    def events(self) -> AsyncGenerator[bytes, None]:
        """What the expert says, in the events of the interface that was asked."""
        events = self._events(self._asked[-1])
        return retold(events) if self.older else events

    async def close(self) -> None:
        """Give up an answer whose events nobody has seen; harmless otherwise."""
        if self._asked:
            reply = self.exchange.reply = self._asked[-1]
            await reply.close()
            self._settle(reply)

    async def _events(self, reply: AnyReply) -> AsyncGenerator[bytes, None]:
        """The expert's bytes; an error after the first ends the stream with an error event.

        Where passages were retrieved, an event that cites them stands before the end mark.
        """
        gateway = self.gateway
        gateway.metrics.n_in_flight += 1
        try:
            cited = event_of_citations(reply)
            async with aclosing(reply.pieces()) as pieces:
                async for piece in before_end(pieces, cited) if cited else pieces:
                    yield piece
        except UNANSWERED as error:
            self.exchange.end(error, code_of(error))
            yield error_event(error)
        finally:
            gateway.metrics.n_in_flight -= 1
            self._settle(reply)

    def _settle(self, reply: AnyReply) -> None:
        if reply.receipt is not None and not self._settled:
            self._settled = True
            self.gateway.settle(reply)

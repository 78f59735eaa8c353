"""Experts in engine processes of ours, whose addresses change with restarts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace

from coe.assembly import Assembly
from coe.core import Request
from coe.errors.experts import ExpertLostError, ExpertUnaskedError
from coe.experts.http import HttpExpert
from coe.experts.llama import LlamaContinuation
from coe.http.pool import Pool

# llama.cpp's own names for length and number of answers would win over those that are capped
_UNBOUNDED = frozenset({"n_predict", "n_cmpl", "max_completion_tokens"})


@dataclass(frozen=True, slots=True)
class HostedExpert:
    """An expert in an engine process.

    Parameters
    ----------
    address : the engine's present address, or ``None`` while it is not ready.
    first_token_timeout_s, idle_timeout_s, answer_timeout_s, api_key, keep_alive : as in
        `HttpExpert`.
    """

    expert_id: str
    client: Pool
    address: Callable[[], str | None]
    first_token_timeout_s: float = 60.0
    idle_timeout_s: float = 30.0
    answer_timeout_s: float = 600.0
    api_key: str | None = None
    keep_alive: bool = True

    def stream(self, request: Request, max_tokens: int | None) -> AsyncIterator[bytes]:
        """As `HttpExpert.stream`, from the engine's present address."""
        return self.now().stream(request, max_tokens)

    def now(self) -> HttpExpert:
        """The expert at the engine's present address.

        Raises
        ------
        ExpertUnaskedError
            It has none.
        """
        address = self.address()
        if address is None:
            raise ExpertUnaskedError(self.expert_id, "its engine is not running")
        return HttpExpert(
            expert_id=self.expert_id,
            client=self.client,
            base_url=f"{address}/v1",
            api_key=self.api_key,
            first_token_timeout_s=self.first_token_timeout_s,
            idle_timeout_s=self.idle_timeout_s,
            answer_timeout_s=self.answer_timeout_s,
            keep_alive=self.keep_alive,
        )


@dataclass(frozen=True, slots=True)
class EmbeddedExpert:
    """An expert in a llama.cpp process, with its ways.

    Parameters
    ----------
    engine : the process; without ``keep_alive``, for llama.cpp's server drops a connection after a
        stream now and then.
    """

    engine: HostedExpert

    def stream(self, request: Request, max_tokens: int | None) -> AsyncIterator[bytes]:
        """As `HttpExpert.stream`, from the engine's present address.

        A whole answer is streamed inside, an empty piece for each event, because llama.cpp goes
        on with a whole answer whose client has left, and ends a stream.
        """
        expert = self.engine.now()
        payload = {k: v for k, v in request.payload.items() if k not in _UNBOUNDED}
        bounded = replace(request, payload=payload)
        if request.stream:
            return expert.stream(bounded, max_tokens)
        return _whole(expert, bounded, max_tokens)

    async def continuation(self, request: Request) -> LlamaContinuation:
        """As `LlamaContinuation.of`, at the engine's present address."""
        return await LlamaContinuation.of(self.engine.now(), request)


async def _whole(
    expert: HttpExpert, request: Request, max_tokens: int | None
) -> AsyncIterator[bytes]:
    streamed = {"stream": True, "stream_options": {"include_usage": True}}
    inner = replace(request, stream=True, payload={**request.payload, **streamed})
    assembly = Assembly()
    async with aclosing(expert.stream(inner, max_tokens)) as pieces:
        async for piece in pieces:
            for _ in range(assembly.feed(piece)):
                yield b""
    if not assembly.ended:
        raise ExpertLostError(expert.expert_id, "the answer broke off")
    yield assembly.document()

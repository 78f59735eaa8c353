"""Experts for tests: they say what they are told, and fail where they are told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from coe.answer import completion, pieces_of
from coe.core import Request
from coe.errors import CoeError
from coe.experts.continuation import Token, Vocabulary


@dataclass(slots=True)
class StubExpert:
    """Answers every request with the same tokens.

    Parameters
    ----------
    tokens : said one event each.
    token_s : pause before each piece.
    error : raised after ``error_after`` pieces; 0 means before the first.
    requests : what it was asked, for assertions.
    n_closed : how many answers were closed before their end.
    """

    expert_id: str
    tokens: list[str] = field(default_factory=lambda: ["Hello", " there", "."])
    token_s: float = 0.0
    error: CoeError | None = None
    error_after: int = 0
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    requests: list[Request] = field(default_factory=list)
    caps: list[int | None] = field(default_factory=list)
    n_closed: int = 0

    async def stream(self, request: Request, max_tokens: int | None) -> AsyncIterator[bytes]:
        """The configured tokens as a stream, or as one document."""
        self.requests.append(request)
        self.caps.append(max_tokens)
        tokens = self.tokens if max_tokens is None else self.tokens[:max_tokens]
        answer_id = f"chatcmpl-stub-{len(self.requests)}"
        body = (
            list(pieces_of(answer_id, self.expert_id, tokens))
            if request.stream
            else [completion(answer_id, self.expert_id, "".join(tokens), 5, len(tokens), "stop")]
        )
        finished = False
        try:
            for n, piece in enumerate(body):
                if self.error is not None and n >= self.error_after:
                    finished = True
                    raise self.error
                if self.token_s:
                    await self.sleep(self.token_s)
                yield piece
            finished = True
        finally:
            self.n_closed += not finished


STUB_VOCABULARY = Vocabulary(3, (0, 1))


@dataclass(slots=True)
class StubContinuation:
    """Expects what it is told after so many tokens, whatever they are; it is its own expert.

    Parameters
    ----------
    expecting : logarithms by token, of each place in the answer; the last holds ever after.
    error : raised when ``error_after`` tokens have been said.
    n_asked : how often it was asked, for assertions.
    """

    expecting: Sequence[Mapping[Token, float]]
    vocabulary: Vocabulary = STUB_VOCABULARY
    prompt_tokens: int = 5
    room_tokens: int = 100
    error: CoeError | None = None
    error_after: int = 0
    n_asked: int = 0

    async def continuation(self, request: Request) -> StubContinuation:
        """Itself, whatever is asked."""
        return self

    async def expected(self, said: Sequence[Token]) -> Mapping[Token, float]:
        """What was told of this place."""
        self.n_asked += 1
        await asyncio.sleep(0)
        if self.error is not None and len(said) >= self.error_after:
            raise self.error
        return self.expecting[min(len(said), len(self.expecting) - 1)]

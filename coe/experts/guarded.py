"""An expert at one address, guarded: its failures are noted, and it gets no more than it takes."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial

from coe.core import Request
from coe.errors.experts import ExpertError, ExpertRejectedError, ExpertTimeoutError
from coe.experts.continuation import Continuation, Continuing, Token, Vocabulary
from coe.experts.protocol import Expert, close
from coe.guard.group import Group
from coe.guard.line import Waiting
from coe.guard.member import Seat
from coe.guard.retry_after import retry_after_s
from coe.guard.verdict import Verdict, verdict_on


@dataclass(slots=True, eq=False)
class GuardedAnswer:
    """The pieces of an answer; iterating takes them from where they are made, at no cost each.

    Parameters
    ----------
    sent : whether the request has gone out, or waits for room.
    due_s : when whoever asked gives up, should the first piece not be there.
    """

    sent: bool = False
    due_s: float = math.inf
    pieces: AsyncGenerator[bytes, None] = field(init=False)

    def __aiter__(self) -> AsyncGenerator[bytes, None]:
        """The pieces."""
        return self.pieces

    def __anext__(self) -> Awaitable[bytes]:
        """The next piece; raises as `GuardedExpert.stream`."""
        return self.pieces.__anext__()

    async def aclose(self) -> None:
        """Stop the generation."""
        await self.pieces.aclose()


@dataclass(frozen=True, slots=True)
class GuardedExpert:
    """An expert that is asked only when it has room, and of which every failure is noted.

    Parameters
    ----------
    group : of one replica, which bears the expert's name.
    usual_s : how long the first token usually takes when the expert is idle, positive.
    now : monotonic seconds.
    """

    inner: Expert
    group: Group
    usual_s: Callable[[Request], float] = lambda request: 1.0
    now: Callable[[], float] = time.monotonic

    def stream(self, request: Request, max_tokens: int | None) -> GuardedAnswer:
        """As the expert itself, once it has room.

        Raises
        ------
        ExpertOverloadedError
            It takes no more, or is not to be asked: it was not.
        ExpertError
            As the expert.
        """
        answer = GuardedAnswer()
        answer.pieces = self._pieces(request, max_tokens, answer)
        return answer

    async def _pieces(
        self, request: Request, max_tokens: int | None, answer: GuardedAnswer
    ) -> AsyncGenerator[bytes, None]:
        group = self.group
        now_s = self.now()
        name = group.choose(now_s, group.members, request.insists)
        if name is None:
            seat = await seated(group, request, group.members, min, self.now)
        else:
            seat = group.sit(name, now_s)
        answer.sent = True
        watch = Watch(group, seat, self.usual_s(request), self.now, answer.due_s)
        pieces: AsyncIterator[bytes] | None = None
        try:
            pieces = self.inner.stream(request, max_tokens)
            async for piece in pieces:
                if not watch.begun:
                    watch.begin(request, piece)
                yield piece
            watch.complete = True
        except ExpertError as error:
            watch.error = error
            raise
        finally:
            try:
                watch.end()
            finally:
                if pieces is not None:
                    await close(pieces)


@dataclass(frozen=True, slots=True)
class GuardedContinuing(GuardedExpert):
    """One that can also write with others, of which failures are noted and first tokens.

    No token of that waits for room.
    """

    async def continuation(self, request: Request) -> GuardedContinuation:
        """As the expert itself."""
        assert isinstance(self.inner, Continuing)
        with _noted(self, answers=False):
            return GuardedContinuation(await self.inner.continuation(request), self)


@dataclass(frozen=True, slots=True)
class GuardedContinuation:
    """A guarded expert's view of one answer that is being written."""

    inner: Continuation
    expert: GuardedExpert

    @property
    def vocabulary(self) -> Vocabulary:
        """As of the expert itself."""
        return self.inner.vocabulary

    @property
    def prompt_tokens(self) -> int:
        """As of the expert itself."""
        return self.inner.prompt_tokens

    @property
    def room_tokens(self) -> int:
        """As of the expert itself."""
        return self.inner.room_tokens

    async def expected(self, said: Sequence[Token]) -> Mapping[Token, float]:
        """As of the expert itself."""
        with _noted(self.expert, answers=not said):
            return await self.inner.expected(said)


@contextmanager
def _noted(expert: GuardedExpert, answers: bool) -> Iterator[None]:
    """One call of an expert that writes with others: its failure counts, its end if it answers."""
    group = expert.group
    watch = Watch(group, group.sit(group.expert_id, expert.now()), 1.0, expert.now)
    try:
        yield
        watch.complete = answers
    except ExpertError as error:
        watch.error = error
        raise
    finally:
        watch.end()


def guarded(
    inner: Expert, group: Group, usual_s: Callable[[Request], float], now: Callable[[], float]
) -> GuardedExpert:
    """The expert, guarded, with the verbs that it had."""
    group.know((group.expert_id,))
    kind = GuardedContinuing if isinstance(inner, Continuing) else GuardedExpert
    return kind(inner, group, usual_s, now)


@dataclass(slots=True)
class Watch:
    """One request at one replica, from the moment that it is sent to its end.

    Parameters
    ----------
    due_s : when whoever asked gives up, should the first piece not be there.
    complete, error : how it ended; neither: who asked has left.
    """

    group: Group
    seat: Seat
    usual_s: float
    now: Callable[[], float]
    due_s: float = math.inf
    begun: bool = False
    complete: bool = False
    error: ExpertError | None = None
    _told: bool = False

    def begin(self, request: Request, piece: bytes) -> None:
        """The first piece is there.

        That of a whole answer that is not streamed inside comes with the last token.
        """
        self.begun = True
        # where we are late ourselves, a first token that comes late says nothing
        late = self.group.lag.since(self.seat.sent_s)
        self._told = (request.stream or not piece) and not late
        self.group.began(self.seat, self.now(), self.usual_s if self._told else None)

    def end(self) -> None:
        """The request has ended; to be called once."""
        now_s, held_s = self.now(), None
        verdict: Verdict = "nothing"
        try:
            if now_s >= self.due_s and not (self.error or self.begun or self.complete):
                # it was waited for as long as could be: that is no caller's whim
                self.error = ExpertTimeoutError(self.group.expert_id, "silent for too long")
            if isinstance(self.error, ExpertRejectedError) and self.error.retry_after is not None:
                held_s = retry_after_s(self.error.retry_after, datetime.now(UTC))
            verdict = self._verdict(now_s)
        finally:
            self.group.leave(self.seat, verdict, now_s, self._told, held_s)

    def _verdict(self, now_s: float) -> Verdict:
        if self.error is None:
            return "good" if self.complete else "nothing"
        sent_s = self.seat.sent_s
        if isinstance(self.error, ExpertTimeoutError) and self.group.lag.since(sent_s):
            return "nothing"
        return verdict_on(self.error, now_s - sent_s, self.group.patience_s)


async def seated(
    group: Group,
    request: Request,
    among: Collection[str],
    choose: Callable[[list[str]], str],
    now: Callable[[], float],
) -> Seat:
    """A seat at one of the replicas, waited for as long as the group and the request allow.

    Raises
    ------
    ExpertOverloadedError
        The line is full, or the time is up.
    """
    got: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    one = Waiting(frozenset(among), choose, partial(_wake, got), now())
    left = (request.ceilings.ttft_ms, request.ceilings.latency_ms)
    most_s = min([group.wait_s, *(ms / 1000.0 for ms in left if ms is not None)])
    late = False
    try:
        group.wait(one.came_s, one)
        async with asyncio.timeout(most_s):
            await got
        assert one.seat is not None
        seat, one.seat = one.seat, None
        return seat
    except TimeoutError:
        late = True
        reason = f"had no room for another request for {most_s:g} s"
        raise group.overloaded(reason) from None
    finally:
        group.give_up(one, now(), late)


def _wake(got: asyncio.Future[None]) -> None:
    if not got.done():
        got.set_result(None)

"""Experts that are asked the same at once, each on a reply of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field, replace

from coe.assembly import Assembly
from coe.ballot import Ballot, Given
from coe.core import Request
from coe.decision import Receipt
from coe.errors import CoeError
from coe.errors.experts import UNANSWERED, ExpertError
from coe.logprobs import WithoutLogprobs
from coe.reply import Reply
from coe.usage import with_usage


@dataclass(slots=True, eq=False)
class Member:
    """One of those that are asked, and what has come of it.

    Parameters
    ----------
    given : its answer, once it is whole.
    error : why there is none.
    """

    reply: Reply
    given: Given | None = None
    error: CoeError | None = None
    recorded: list[bytes] = field(default_factory=list)
    assembly: Assembly = field(default_factory=Assembly)

    @property
    def expert_id(self) -> str:
        """Who is asked."""
        return self.reply.spec.id

    async def listen(self, ballot: Ballot) -> None:
        """Take the whole answer down, or why there is none.

        What it says of its tokens is for the ballot, and left out.
        """
        told = WithoutLogprobs()
        try:
            await self.reply.begin()
            async with aclosing(self.reply.pieces()) as pieces:
                async for piece in pieces:
                    self._take(told.feed(piece))
            self._take(told.end())
        except UNANSWERED as error:
            self.error = error
            return
        assert self.reply.receipt is not None
        n_tokens = self.reply.receipt.output_tokens
        self.given = ballot.read(self.expert_id, self.assembly.text, n_tokens, told.mean)

    def _take(self, piece: bytes) -> None:
        self.recorded.append(piece)
        self.assembly.feed(piece)


@dataclass(slots=True)
class Panel:
    """Everyone who was asked for one answer, in the order of asking.

    Parameters
    ----------
    open_reply : the reply of an expert to a request, not begun.
    """

    open_reply: Callable[[str, Request], Reply]
    ballot: Ballot
    members: list[Member] = field(default_factory=list)

    @property
    def hand(self) -> list[Given]:
        """The answers that are there."""
        return [member.given for member in self.members if member.given is not None]

    @property
    def errors(self) -> dict[str, CoeError]:
        """By expert that gave none, why."""
        return {one.expert_id: one.error for one in self.members if one.error is not None}

    @property
    def unbegun(self) -> tuple[str, ...]:
        """Experts that were asked and failed before the first piece; they have no receipt."""
        failed = [member for member in self.members if isinstance(member.error, ExpertError)]
        return tuple(member.expert_id for member in failed if member.reply.receipt is None)

    @property
    def cancelled(self) -> tuple[str, ...]:
        """Experts that were not waited for."""
        still = [member for member in self.members if member.given is None]
        return tuple(member.expert_id for member in still if member.error is None)

    @property
    def receipts(self) -> tuple[Receipt, ...]:
        """Of everyone who began."""
        replies = [member.reply for member in self.members]
        return tuple(reply.receipt for reply in replies if reply.receipt is not None)

    def add(self, expert_id: str, request: Request) -> Member:
        """One more who is to be asked."""
        member = Member(self.open_reply(expert_id, request))
        self.members.append(member)
        return member

    async def ask(
        self, expert_ids: Sequence[str], request: Request, enough: Callable[[Sequence[str]], bool]
    ) -> None:
        """Ask these at once, until all have answered or failed or what is there is ``enough``.

        Who is not done by then is cancelled, and so is everyone with this coroutine; either way
        all are settled when it is over.

        Parameters
        ----------
        enough : of the experts that are outstanding.
        """
        tasks: dict[asyncio.Task[None], str] = {}
        try:
            for expert_id in expert_ids:
                member = self.add(expert_id, request)
                tasks[asyncio.create_task(member.listen(self.ballot))] = expert_id
            pending = set(tasks)
            while pending:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()  # an expert's crash is not hidden
                if pending and self.hand and enough([tasks[task] for task in pending]):
                    break
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def close(self) -> None:
        """Give up every answer that is still open, even if this is cancelled."""
        async with AsyncExitStack() as closing:
            for member in reversed(self.members):
                closing.push_async_callback(member.reply.close)

    def member(self, given: Given) -> Member:
        """Whose answer that is."""
        return next(member for member in self.members if member.given is given)


def streamed(request: Request) -> Request:
    """The request as members get it: streamed, so that what is cancelled can be counted."""
    asking = with_usage(request)
    return replace(asking, stream=True, payload={**asking.payload, "stream": True})

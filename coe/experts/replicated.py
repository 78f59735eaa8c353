"""An expert of which several copies run, that come and go."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

from coe.core import Request
from coe.errors.experts import (
    ExpertError,
    ExpertOverloadedError,
    ExpertRejectedError,
    ExpertUnaskedError,
)
from coe.experts.guarded import GuardedAnswer, Watch, seated
from coe.experts.protocol import Expert, close
from coe.guard.group import Group
from coe.guard.member import Seat
from coe.guard.retries import MOST_ATTEMPTS, Retries
from coe.optimizer.balance import ReplicaState, Sent, pick
from coe.replica import Replica

# what a copy says of itself; the rest it says of the request
_OWN_STATUSES = frozenset({401, 403, 408, 429})


@dataclass(slots=True, eq=False)
class CopysAnswer(GuardedAnswer):
    """The pieces of an answer, and the copy that they come from.

    Parameters
    ----------
    sent : whether the request has gone to a copy, or waits for room.
    asked : the copies asked so far, in order.
    is_last : no other copy takes over from the one that is asked.
    """

    asked: list[Replica] = field(default_factory=list)
    is_last: bool = False

    @property
    def replica_id(self) -> str | None:
        """Id of the copy that is asked now; ``None`` where there was none."""
        return self.asked[-1].replica_id if self.asked else None


@dataclass(slots=True)
class ReplicatedExpert:
    """An expert by its copies of the moment.

    Parameters
    ----------
    group : guards the copies.
    copies : the copies that can be asked now.
    connect : the expert at a copy's address.
    usual_s : how long an answer of so many tokens usually takes, positive; of an unknown length
        (``None``), the longest. A copy is slow if it takes longer.
    usual_first_s : how long its first token usually takes when the copy is idle, positive.
    retries : what is left for second attempts.
    rng : draws the copies that are compared.
    """

    group: Group
    copies: Callable[[], Sequence[Replica]]
    connect: Callable[[Replica], Expert]
    usual_s: Callable[[Request, int | None], float] = lambda request, n_tokens: 1.0
    usual_first_s: Callable[[Request], float] = lambda request: 1.0
    retries: Retries = field(default_factory=Retries)
    rng: Random = field(default_factory=Random)
    now: Callable[[], float] = time.monotonic
    _here: Mapping[str, Replica] = field(default_factory=dict)
    _states: dict[str, ReplicaState] = field(default_factory=dict)

    def stream(self, request: Request, max_tokens: int | None) -> CopysAnswer:
        """The answer's body as one copy sends it, which is chosen now if one has room.

        The copy is the better of two (`coe.optimizer.balance`) among those that the group lets
        through and the request does not avoid. One that fails before its first piece is replaced by
        another, if the request has an attempt left and the budget pays for it; none is asked twice.
        A copy that rejects the request has not failed, unless the next may well accept it: too
        busy, in trouble, or not to be asked by us.

        Raises
        ------
        ExpertUnaskedError
            No copy is there, or none that may be asked has room.
        ExpertError
            Of the first copy that failed, where no other could answer; of the one that failed
            after its first piece.
        """
        self._look()
        answer = CopysAnswer()
        here = self._here.keys() - request.avoid if request.avoid else self._here.keys()
        if request.avoid and not here:
            raise ExpertUnaskedError(self.group.expert_id, "no other copy of it is running")
        if here:
            name = self.group.choose(self.now(), here, request.insists, self._better)
            if name is not None:
                answer.asked.append(self._here[name])
        answer.pieces = self._pieces(request, max_tokens, answer)
        return answer

    async def _pieces(
        self, request: Request, max_tokens: int | None, answer: CopysAnswer
    ) -> AsyncGenerator[bytes, None]:
        first_error: ExpertError | None = None
        usual_first_s, expected_s = self.usual_first_s(request), self.usual_s(request, max_tokens)
        seat = await self._seat(request, answer.asked)
        answer.sent = True
        while True:
            copy = answer.asked[-1]
            state = self._states.setdefault(copy.replica_id, ReplicaState(copy.replica_id))
            watch = Watch(self.group, seat, usual_first_s, self.now, answer.due_s)
            sent = Sent(self.now(), expected_s)
            state.begin(sent)
            pieces: AsyncIterator[bytes] | None = None
            n_pieces = 0
            try:
                pieces = self.connect(copy).stream(request, max_tokens)
                async for piece in pieces:
                    if not n_pieces:
                        watch.begin(request, piece)
                    n_pieces += 1
                    yield piece
                watch.complete = True
                return
            except ExpertError as error:
                watch.error = error
                if n_pieces or _any_would_say(error):
                    raise
                first_error = first_error or error
            finally:
                try:
                    self._end(state, sent, watch, n_pieces, request)
                finally:
                    if pieces is not None:
                        await close(pieces)
            if answer.is_last:
                raise first_error
            seat = self._again(request, answer.asked, first_error)

    async def _seat(self, request: Request, asked: list[Replica]) -> Seat:
        """A seat at the copy that was chosen, or at the first that has room; it joins ``asked``."""
        if asked:
            return self.group.sit(asked[-1].replica_id, self.now())
        here = {name: one for name, one in self._here.items() if name not in request.avoid}
        if not here:
            raise ExpertUnaskedError(self.group.expert_id, "no copy of it is running")
        seat = await seated(self.group, request, here, self._better, self.now)
        asked.append(here[seat.member.replica_id])
        return seat

    def _again(self, request: Request, asked: list[Replica], error: ExpertError) -> Seat:
        """A seat at a copy for a second attempt.

        Raises
        ------
        ExpertError
            ``error``, where none may be made.
        """
        self._look()
        others = self._here.keys() - {copy.replica_id for copy in asked}
        if len(asked) > 1:
            error.n_attempts = len(asked)
        if not others or request.n_attempts + len(asked) >= MOST_ATTEMPTS:
            raise error
        try:
            name = self.group.choose(self.now(), others, request.insists, self._better)
        except ExpertOverloadedError:
            raise error from None
        if name is None or not self.retries.take(self.now()):
            raise error
        asked.append(self._here[name])
        return self.group.sit(name, self.now())

    def _look(self) -> None:
        """See which copies are there; one that has left is forgotten with its last answer."""
        self._here = here = {copy.replica_id: copy for copy in self.copies()}
        self.group.know(here)
        if self._states.keys() != here.keys():
            known = self._states
            left = {name: s for name, s in known.items() if s.n_in_flight and name not in here}
            self._states = {name: known.get(name) or ReplicaState(name) for name in here} | left

    def _better(self, names: list[str]) -> str:
        """The better of two of these copies."""
        chosen = pick([self._states[name] for name in names], self.rng, self.now())
        assert chosen is not None, "none of them drains"
        return chosen.replica_id

    def _end(
        self, state: ReplicaState, sent: Sent, watch: Watch, n_pieces: int, request: Request
    ) -> None:
        try:
            watch.end()
        finally:
            self._learn(state, sent, watch, n_pieces, request)

    def _learn(
        self, state: ReplicaState, sent: Sent, watch: Watch, n_pieces: int, request: Request
    ) -> None:
        """What the end of a request tells of its copy's speed."""
        if watch.error is not None and not _any_would_say(watch.error):
            state.fail(sent, self.now())
            return
        # a piece is about a token, also of a whole answer that is streamed inside; where an answer
        # comes in one piece, nobody knows how long it is
        measured, usual_s = watch.complete and n_pieces > 1, sent.expected_s
        try:
            usual_s = self.usual_s(request, n_pieces)
        finally:
            state.end(sent, self.now(), measured, usual_s)


def _any_would_say(error: ExpertError) -> bool:
    """Whether the other copies would answer just so."""
    return (
        isinstance(error, ExpertRejectedError)
        and error.status < 500
        and error.status not in _OWN_STATUSES
    )

"""An expert of which several copies run, that come and go."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from random import Random

from coe.core import Request
from coe.errors import ExpertError, ExpertRejectedError, ExpertUnavailableError
from coe.experts.protocol import Expert, close
from coe.optimizer.balance import ReplicaState, Sent, pick
from coe.replica import Replica

# what a copy says of itself; the rest it says of the request
_OWN_STATUSES = frozenset({401, 403, 408, 429})


@dataclass(frozen=True, slots=True)
class CopysAnswer:
    """The pieces of an answer, and the copy that they come from.

    Parameters
    ----------
    asked : the copies asked so far, in order.
    """

    pieces: AsyncGenerator[bytes, None]
    asked: Sequence[Replica]

    @property
    def replica_id(self) -> str | None:
        """Id of the copy that is asked now; ``None`` where there was none."""
        return self.asked[-1].replica_id if self.asked else None

    def __aiter__(self) -> CopysAnswer:
        """Itself."""
        return self

    async def __anext__(self) -> bytes:
        """The next piece; raises as `ReplicatedExpert.stream`."""
        return await anext(self.pieces)

    async def aclose(self) -> None:
        """Stop the generation."""
        await self.pieces.aclose()


@dataclass(slots=True)
class ReplicatedExpert:
    """An expert by its copies of the moment.

    Parameters
    ----------
    copies : the copies that can be asked now.
    connect : the expert at a copy's address.
    usual_s : how long an answer of so many tokens usually takes, positive; of an unknown length
        (``None``), the longest. A copy is slow if it takes longer.
    rng : draws the copies that are compared.
    """

    expert_id: str
    copies: Callable[[], Sequence[Replica]]
    connect: Callable[[Replica], Expert]
    usual_s: Callable[[Request, int | None], float] = lambda request, n_tokens: 1.0
    rng: Random = field(default_factory=Random)
    now: Callable[[], float] = time.monotonic
    _states: dict[str, ReplicaState] = field(default_factory=dict)

    def stream(self, request: Request, max_tokens: int | None) -> CopysAnswer:
        """The answer's body as one copy sends it, which is chosen now.

        The copy is the better of two (`coe.optimizer.balance`). One that fails before its first
        piece is replaced by another; none is asked twice. A copy that rejects the request has not
        failed, unless the next may well accept it: too busy, in trouble, or not to be asked by us.

        Raises
        ------
        ExpertUnavailableError
            No copy is there.
        ExpertError
            Of the first copy that failed, where no other could answer; of the one that failed
            after its first piece.
        """
        asked: list[Replica] = []
        return CopysAnswer(self._pieces(request, max_tokens, asked, self._next(asked)), asked)

    async def _pieces(
        self,
        request: Request,
        max_tokens: int | None,
        asked: list[Replica],
        state: ReplicaState | None,
    ) -> AsyncGenerator[bytes, None]:
        first_error: ExpertError | None = None
        while state is not None:
            sent = Sent(self.now(), self.usual_s(request, max_tokens))
            state.begin(sent)
            complete = failed = False
            n_pieces = 0
            pieces = self.connect(asked[-1]).stream(request, max_tokens)
            try:
                async for piece in pieces:
                    n_pieces += 1
                    yield piece
                complete = True
                return
            except ExpertError as error:
                failed = not _any_would_say(error)
                if n_pieces or not failed:
                    raise
                first_error = first_error or error
            finally:
                if failed:
                    state.fail(sent, self.now())
                else:
                    # a piece is about a token, also of a whole answer that is streamed inside;
                    # where an answer comes in one piece, nobody knows how long it is
                    measured = complete and n_pieces > 1
                    usual_s = self.usual_s(request, n_pieces)
                    state.end(sent, self.now(), measured, usual_s)
                await close(pieces)
            state = self._next(asked)
        raise first_error or ExpertUnavailableError(self.expert_id, "no copy of it is running")

    def _next(self, asked: list[Replica]) -> ReplicaState | None:
        """What is known of the copy to ask next, which has joined those that were."""
        tried = {copy.replica_id for copy in asked}
        here = {copy.replica_id: copy for copy in self.copies()}
        states = {name: self._states.get(name) or ReplicaState(name) for name in here}
        # one that has left the fleet is forgotten once its last answer has ended
        left = {name: s for name, s in self._states.items() if s.n_in_flight and name not in here}
        self._states = states | left
        chosen = pick(
            [state for name, state in states.items() if name not in tried], self.rng, self.now()
        )
        if chosen is not None:
            asked.append(here[chosen.replica_id])
        return chosen


def _any_would_say(error: ExpertError) -> bool:
    """Whether the other copies would answer just so."""
    return (
        isinstance(error, ExpertRejectedError)
        and error.status < 500
        and error.status not in _OWN_STATUSES
    )

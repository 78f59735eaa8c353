"""An expert of which several copies run, that come and go."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from coe.core import Request
from coe.errors import ExpertError, ExpertTimeoutError, ExpertUnavailableError
from coe.experts.protocol import Expert, close
from coe.replica import Replica


class Balancer(Protocol):
    """Chooses among copies, and learns how they do."""

    def pick(self, names: Sequence[str]) -> str:
        """One of the names, at least one of which is given; a request goes there."""
        ...

    def ended(self, name: str, latency_s: float | None) -> None:
        """The request has had its first piece after so long, or (``None``) has failed."""
        ...

    def left(self, name: str) -> None:
        """The request is over."""


@dataclass(frozen=True, slots=True)
class ReplicatedExpert:
    """An expert by its copies of the moment.

    Parameters
    ----------
    copies : the copies that can be asked now.
    connect : the expert at a copy's address.
    """

    expert_id: str
    copies: Callable[[], Sequence[Replica]]
    connect: Callable[[Replica], Expert]
    balancer: Balancer
    now: Callable[[], float] = time.monotonic

    async def stream(self, request: Request, max_tokens: int | None) -> AsyncGenerator[bytes, None]:
        """The answer's body as one copy sends it.

        A copy that fails before its first piece is replaced by another; none is asked twice.

        Raises
        ------
        ExpertUnavailableError
            No copy is there.
        ExpertError
            Of the first copy that failed, where no other could answer; of the one that failed
            after its first piece.
        """
        tried: set[str] = set()
        first_error: ExpertError | None = None
        while True:
            here = {c.replica_id: c for c in self.copies() if c.replica_id not in tried}
            if not here:
                raise first_error or ExpertUnavailableError(
                    self.expert_id, "no copy of it is running"
                )
            name = self.balancer.pick(list(here))
            tried.add(name)
            started, began = self.now(), False
            pieces = self.connect(here[name]).stream(request, max_tokens)
            try:
                async for piece in pieces:
                    if not began:
                        began = True
                        self.balancer.ended(name, self.now() - started)
                    yield piece
                return
            except (ExpertUnavailableError, ExpertTimeoutError) as error:
                self.balancer.ended(name, None)
                if began:
                    raise
                first_error = first_error or error
            finally:
                self.balancer.left(name)
                await close(pieces)

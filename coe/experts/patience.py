"""How long a body may keep its reader waiting."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from coe.errors.experts import ExpertTimeoutError
from coe.http.response import Response


@dataclass(slots=True)
class Patience:
    """Ends the reading of a body that lets its reader wait for too long, or lasts for too long.

    One timer for the whole body, which looks again when it was too early: a piece that comes in
    time costs two assignments. Who does not read does not wait.

    Parameters
    ----------
    expert_id : for errors.
    response : fails with `ExpertTimeoutError` once patience has run out.
    idle_s : longest wait.
    ends_at : when the body must have ended, on the loop's clock.
    since : when the present wait began, on the loop's clock; ``None``: nobody waits.
    """

    expert_id: str
    response: Response
    idle_s: float
    ends_at: float
    since: float | None = None
    _timer: asyncio.TimerHandle | None = field(default=None, repr=False)

    def start(self) -> None:
        """Watch from now on; to be followed by `stop`."""
        loop = asyncio.get_running_loop()
        due = loop.time() + self.idle_s
        self._timer = loop.call_at(min(due, self.ends_at), self._look, loop)

    def stop(self) -> None:
        """Watch no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        if now >= self.ends_at:
            self._fail("the answer took too long")
        elif self.since is not None and now >= self.since + self.idle_s:
            self._fail(f"silent for {self.idle_s:g} s")
        else:
            due = (now if self.since is None else self.since) + self.idle_s
            self._timer = loop.call_at(min(due, self.ends_at), self._look, loop)

    def _fail(self, reason: str) -> None:
        self.response.fail(ExpertTimeoutError(self.expert_id, reason))

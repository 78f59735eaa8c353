"""A bound on how long a block may take, at less than half of what asyncio's own costs."""

from __future__ import annotations

import asyncio
from types import TracebackType


class Within:
    """A context that is cancelled once its time is over, and then raises `TimeoutError`.

    As `asyncio.timeout`, for a time that is known beforehand. To be entered once, in a task.

    Parameters
    ----------
    limit_s : how long it may take.
    """

    __slots__ = ("_limit_s", "_n_cancelled", "_task", "_timer", "expired")

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self.expired = False

    def __enter__(self) -> Within:
        """Begin."""
        # asked once: until Python 3.12 every time costs a call of the system
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        assert task is not None
        self._task, self._n_cancelled = task, task.cancelling()
        self._timer = loop.call_later(self._limit_s, self.expire)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End; a cancellation of somebody else goes on as one.

        Raises
        ------
        TimeoutError
            The time was over first.
        """
        self._timer.cancel()
        if not self.expired:
            return
        own = self._task.uncancel() <= self._n_cancelled
        if own and kind is not None and issubclass(kind, asyncio.CancelledError):
            raise TimeoutError from error

    def expire(self) -> None:
        """End its time now; to be called from outside of the context, while it lasts."""
        if not self.expired:
            self.expired = True
            self._task.cancel()

"""How many requests a replica gets at once: more while it is quick, fewer when it is not.

Additive increase, multiplicative decrease, as TCP does it and Netflix's concurrency limits do it
for servers; what is watched is the time to the first token, against the quickest of late.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

CUT = 0.9
TOLERANCE = 2.0
"""A first token that takes so many times as long as the quickest of late is a slow one."""

SLACK_S = 0.1
"""And by so much longer: below that, jitter rules."""

MEMORY_S = 30.0
"""The quickest of late is that of the last one to two of these."""


@dataclass(slots=True)
class Limit:
    """One replica's limit, which is between 1 and ``most``.

    Parameters
    ----------
    value : at the start what the replica is said to serve at once; its whole part is the limit.
    """

    value: float
    most: float
    _cut_s: float = -math.inf
    _epoch: int = 0
    _quickest: float = math.inf
    _before: float = math.inf

    @property
    def now(self) -> int:
        """Requests that it may have at once."""
        return int(self.value)

    def good(self, sent_s: float, first_s: float | None, usual_s: float, n_in_flight: int) -> None:
        """An answer has begun, or has come whole.

        Parameters
        ----------
        first_s : when its first token was there; ``None``: that is not known.
        usual_s : how long that takes an idle replica, positive; proportions of it are compared.
        n_in_flight : requests that the replica has, this one among them: a limit that is not used
            is not raised.
        """
        if first_s is not None and self._is_slow(first_s - sent_s, usual_s, first_s):
            self.bad(sent_s, first_s)
        elif 2 * n_in_flight >= self.value:
            self.value = min(self.most, self.value + 1.0 / self.value)

    def bad(self, sent_s: float, now_s: float) -> None:
        """A request has failed, or was slow.

        Those sent before the last cut say nothing of the limit that it left.
        """
        if sent_s >= self._cut_s:
            self.value = max(1.0, CUT * self.value)
            self._cut_s = now_s

    def _is_slow(self, took_s: float, usual_s: float, now_s: float) -> bool:
        ratio, epoch = took_s / usual_s, int(now_s / MEMORY_S)
        if epoch != self._epoch:
            self._before = self._quickest if epoch == self._epoch + 1 else math.inf
            self._epoch, self._quickest = epoch, math.inf
        self._quickest = min(self._quickest, ratio)
        quickest = min(self._quickest, self._before)
        return ratio > TOLERANCE * quickest and took_s - quickest * usual_s > SLACK_S

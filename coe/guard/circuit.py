"""Whether a replica is asked: not for a while after failures, then by one request at a time.

Ejection after failures in a row is Envoy's outlier detection, the success rate Finagle's failure
accrual; the numbers fit a few experts rather than hundreds of hosts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from random import Random
from typing import Final, Literal

from coe.guard.verdict import Verdict
from coe.guard.window import Window

_NEVER: Final = -math.inf

Phase = Literal["closed", "ejected", "half-open", "probing"]
"""``closed``: asked as usual. ``half-open``: one request may find out whether it is well again;
``probing``: one is about to."""


@dataclass(frozen=True, slots=True)
class Ejection:
    """When a replica is ejected, and for how long.

    Parameters
    ----------
    failures : so many in a row.
    success, window_s, requests : or fewer than this share of at least so many requests in that
        time were good.
    base_s, most_s : the n-th time in succession it lasts n times ``base_s``, up to ``most_s``.
    jitter : share by which that varies.
    """

    failures: int = 5
    success: float = 0.8
    window_s: float = 30.0
    requests: int = 20
    base_s: float = 30.0
    most_s: float = 300.0
    jitter: float = 0.2


@dataclass(slots=True)
class Circuit:
    """One replica's failures.

    Parameters
    ----------
    rng : draws the jitter.
    age : grows whenever it is ejected or is well again: what was sent in another age says nothing.
    n_ejections : since the start.
    until_s : end of the last ejection; ``-inf``: it is not ejected.
    """

    rules: Ejection
    rng: Random
    age: int = 0
    n_ejections: int = 0
    until_s: float = _NEVER
    _in_a_row: int = 0
    _times: int = 0
    _closed_s: float = 0.0
    _probes: int = 0
    _window: Window = field(init=False)

    def __post_init__(self) -> None:
        self._window = Window(self.rules.window_s)

    def phase(self, now_s: float) -> Phase:
        """How it is now."""
        if self.until_s == _NEVER:
            return "closed"
        if now_s < self.until_s:
            return "ejected"
        return "probing" if self._probes else "half-open"

    @property
    def tripped(self) -> bool:
        """Whether it has been ejected, and no request has found it well since."""
        return self.until_s != _NEVER

    def sent(self, now_s: float) -> bool:
        """A request goes to it, whatever the phase; whether that is a probe."""
        probe = self.tripped and now_s >= self.until_s
        self._probes += probe
        return probe

    def began(self, age: int, now_s: float) -> None:
        """The first piece of an answer is there: one that was ejected is well again."""
        if self.tripped and age == self.age:
            self._recover(now_s)

    def ended(self, age: int, probe: bool, verdict: Verdict, now_s: float) -> None:
        """A request has ended.

        Parameters
        ----------
        age, probe : of the circuit when it was sent, and what `sent` said.
        """
        if probe and age == self.age:
            self._probes -= 1
        if age != self.age or verdict == "nothing":
            return
        if self.tripped:
            if verdict == "good":
                self._recover(now_s)
            elif probe:
                self._eject(now_s)
            return
        self._window.add(now_s, 1, verdict == "good")
        if verdict == "good":
            self._in_a_row = 0
            return
        self._in_a_row += verdict == "bad"
        if self._in_a_row >= self.rules.failures or self._too_few_good:
            self._eject(now_s)

    @property
    def _too_few_good(self) -> bool:
        n, rules = self._window.n, self.rules
        return n >= rules.requests and self._window.n_good < rules.success * n

    def _eject(self, now_s: float) -> None:
        rules = self.rules
        if not self.tripped:
            # what it was good for since counts against earlier times
            self._times = max(0, self._times - int((now_s - self._closed_s) / rules.base_s))
        self._times += 1
        lasts_s = min(rules.base_s * self._times, rules.most_s)
        lasts_s *= 1.0 + rules.jitter * (2.0 * self.rng.random() - 1.0)
        self.until_s = now_s + min(lasts_s, rules.most_s)
        self.n_ejections += 1
        self._renew()

    def _recover(self, now_s: float) -> None:
        self.until_s = _NEVER
        self._closed_s = now_s
        self._renew()

    def _renew(self) -> None:
        self.age += 1
        self._in_a_row = self._probes = 0
        self._window.clear()

"""Counts of the last while."""

from __future__ import annotations

from dataclasses import dataclass, field

_PARTS = 10


@dataclass(slots=True)
class Window:
    """How many there were in the last ``span_s``, and how many of them were good.

    Kept in ten parts, so that what is forgotten goes a tenth at a time: a count is of between nine
    and ten tenths of the span. A clock that steps back loses nothing. Constant time.
    """

    span_s: float
    n: int = 0
    n_good: int = 0
    _at: int = 0
    _counts: list[int] = field(default_factory=lambda: [0] * _PARTS)
    _goods: list[int] = field(default_factory=lambda: [0] * _PARTS)

    def add(self, now_s: float, n: int, n_good: int = 0) -> None:
        """There were ``n`` more; negative ones take back."""
        self.forget(now_s)
        part = self._at % _PARTS
        self._counts[part] += n
        self._goods[part] += n_good
        self.n += n
        self.n_good += n_good

    def forget(self, now_s: float) -> None:
        """Drop what is older than the span."""
        at = int(now_s * _PARTS / self.span_s)
        passed = at - self._at
        if passed <= 0:
            return
        if passed >= _PARTS:
            self.clear()
        else:
            for k in range(self._at + 1, at + 1):
                part = k % _PARTS
                self.n -= self._counts[part]
                self.n_good -= self._goods[part]
                self._counts[part] = self._goods[part] = 0
        self._at = at

    def clear(self) -> None:
        """Forget everything."""
        self.n = self.n_good = 0
        self._counts = [0] * _PARTS
        self._goods = [0] * _PARTS

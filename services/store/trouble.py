"""What an operator gets to know of a ledger that cannot be kept: its beginning and its end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from coe.errors.gateway import LedgerError

Say = Callable[[str], None]
"""Told one remark for the operator, a line."""


@dataclass(slots=True)
class Trouble:
    """Says what is wrong when it begins, however often it is noticed, and when it is over.

    Parameters
    ----------
    meanwhile : what that means until then.
    over : what is said then.
    patience : so many times in a row it must be noticed before anything is said.
    """

    say: Say
    meanwhile: str
    over: str
    patience: int = 1
    _noticed: int = 0

    def note(self, error: LedgerError) -> None:
        """It is there."""
        self._noticed += 1
        if self._noticed == self.patience:
            self.say(f"ledger: {str(error).removesuffix('.')}: {self.meanwhile}")

    def end(self) -> None:
        """It is not there."""
        if self._noticed >= self.patience:
            self.say(f"ledger: {self.over}")
        self._noticed = 0

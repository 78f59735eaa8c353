"""What has been tried for one request, and whether another expert may be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from coe.core import Request
from coe.errors import CoeError
from coe.errors.callers import BudgetExhaustedError
from coe.errors.experts import ExpertError, ExpertOverloadedError, ExpertRejectedError
from coe.errors.gateway import LedgerUnavailableError
from coe.guard.retries import MOST_ATTEMPTS, Retries

# what any other expert would say too
_SHARED_STATUSES = frozenset({400, 413, 415, 422})


@dataclass(slots=True)
class Failover:
    """The experts that were tried for a request without an answer.

    Parameters
    ----------
    lost : why each of them gave none, in the order of asking.
    n_attempts : that reached something which could have answered.
    """

    request: Request
    retries: Retries
    lost: dict[str, CoeError] = field(default_factory=dict)
    n_attempts: int = 0
    _first: CoeError | None = None

    def note(self, error: CoeError, errors: Mapping[str, CoeError]) -> None:
        """An attempt has failed: ``error`` as it was raised, ``errors`` by expert."""
        self.n_attempts += error.n_attempts if isinstance(error, ExpertError) else 0
        self.lost |= errors
        self._first = self._first or error

    def others_may_answer(self, error: CoeError) -> bool:
        """Whether another expert could do better than this error."""
        if self.request.pinned or isinstance(error, LedgerUnavailableError):
            return False
        if isinstance(error, BudgetExhaustedError):
            # whoever answers, it is one request
            return not (error.param or "").endswith(".requests")
        if isinstance(error, ExpertRejectedError):
            return error.status not in _SHARED_STATUSES
        return True

    @property
    def is_spent(self) -> bool:
        """Whether the request has had all its attempts."""
        return self.n_attempts >= MOST_ATTEMPTS

    def pays(self, now_s: float) -> bool:
        """Whether the next attempt is the first that counts, or the budget has one left."""
        if self.n_attempts == 0 or self.retries.take(now_s):
            return True
        # to its caller this is as if the attempts had been made: asking again at once is no use
        self.n_attempts = MOST_ATTEMPTS
        return False

    def last_word(self, error: CoeError) -> CoeError:
        """The error as the caller is to have it, who is told how often it was tried."""
        if isinstance(error, ExpertError):
            error.n_tried = self.n_attempts
        return error

    @property
    def first(self) -> CoeError:
        """What is said where nobody could take over: the first error."""
        assert self._first is not None
        return self.last_word(self._first)

    @property
    def failed(self) -> tuple[str, ...]:
        """Those of the experts that were asked."""
        return tuple([name for name, error in self.lost.items() if _was_asked(error)])

    @property
    def why(self) -> str:
        """Why others than these answer."""
        full = [n for n, error in self.lost.items() if isinstance(error, ExpertOverloadedError)]
        dear = [name for name in self.lost if name not in (*self.failed, *full)]
        parts = [f"{', '.join(self.failed)} did not answer"] if self.failed else []
        parts += [f"{', '.join(full)}: no room"] if full else []
        parts += [f"{', '.join(dear)}: beyond what hard limits leave"] if dear else []
        return "; ".join(parts)


def _was_asked(error: CoeError) -> bool:
    return isinstance(error, ExpertError) and not isinstance(error, ExpertOverloadedError)

"""Why experts gave no answer."""

from __future__ import annotations

from typing import Final

from coe.errors import CoeError
from coe.errors.callers import BudgetExhaustedError
from coe.errors.gateway import LedgerUnavailableError


class ExpertError(CoeError):
    """An expert did not answer.

    Parameters
    ----------
    expert_id : which one.
    reason : why, in a few words, free of addresses and secrets.
    n_attempts : requests that reached something of the expert's which could have answered.
    n_tried : the same of all experts that were tried, where this is the last word to a caller.
    """

    n_attempts = 1
    n_tried = 0

    def __init__(self, expert_id: str, reason: str) -> None:
        super().__init__(expert_id, reason)
        self.expert_id = expert_id
        self.reason = reason

    def __str__(self) -> str:
        return f"expert {self.expert_id!r}: {self.reason}"


class ExpertUnavailableError(ExpertError):
    """The expert is not there: not started, crashed, or it refused the connection."""


class ExpertLostError(ExpertUnavailableError):
    """The expert was asked, and broke off before its answer began: nobody knows what it took."""


class ExpertUnaskedError(ExpertUnavailableError):
    """The expert was not asked: nothing is there that could be, so nothing was taken either."""

    n_attempts = 0


class ExpertOverloadedError(ExpertUnaskedError):
    """The expert was not asked: what is there takes no request more, or none for a while.

    Parameters
    ----------
    expert_id, reason : as in `ExpertError`.
    retry_after_s : when it may be worth to ask again, positive.
    """

    code = "overloaded"

    def __init__(self, expert_id: str, reason: str, retry_after_s: float = 1.0) -> None:
        super().__init__(expert_id, reason)
        self.args = (expert_id, reason, retry_after_s)
        self.retry_after_s = retry_after_s


class ExpertTimeoutError(ExpertError):
    """The expert is there but stayed silent for longer than allowed."""


class ExpertRejectedError(ExpertError):
    """The expert answered with an HTTP error of its own.

    Parameters
    ----------
    expert_id, reason : as in `ExpertError`.
    status : the HTTP status of the expert's answer, anything but 200.
    body : the expert's answer, at most a few kilobytes.
    retry_after : its ``Retry-After``, as it was sent; ``None``: it sent none, or several.
    """

    def __init__(
        self,
        expert_id: str,
        reason: str,
        status: int,
        body: bytes = b"",
        retry_after: str | None = None,
    ) -> None:
        super().__init__(expert_id, reason)
        self.args = (expert_id, reason, status, body, retry_after)
        self.status = status
        self.body = body
        self.retry_after = retry_after


class ExpertUntrustedError(ExpertError):
    """What came from the expert's side is not passed on: no answer, or not from whom it should be.

    Parameters
    ----------
    expert_id, reason : as in `ExpertError`.
    code : ``"upstream_invalid"``: what was sent is no answer; ``"upstream_redirect"``: it points
        elsewhere; ``"upstream_blocked"``: its address is none to connect to; ``"upstream_tls"``:
        it does not prove who it is.
    """

    def __init__(self, expert_id: str, reason: str, code: str = "upstream_invalid") -> None:
        super().__init__(expert_id, reason)
        self.args = (expert_id, reason, code)
        self.code = code


UNANSWERED: Final = (ExpertError, BudgetExhaustedError, LedgerUnavailableError)
"""Why an expert gave no answer while others may: it failed, or what it may take was not granted."""

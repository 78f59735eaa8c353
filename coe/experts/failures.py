"""What goes wrong on the way to an expert and back, as errors of the expert."""

from __future__ import annotations

from typing import Final

from coe.errors.experts import (
    ExpertError,
    ExpertLostError,
    ExpertTimeoutError,
    ExpertUnavailableError,
    ExpertUntrustedError,
)
from coe.http.errors import (
    BlockedError,
    BrokenOffError,
    HttpError,
    LateError,
    NoHttpError,
    UnprovenError,
    UnreachedError,
)

FAILURES: Final = (HttpError, OSError)
"""What is raised where a connection fails, or the time for it is over."""


def as_its_own(expert_id: str, failure: Exception) -> ExpertError:
    """One of the `FAILURES` as an error of the expert, which is to be raised from it."""
    match failure:
        case LateError():
            return ExpertUnavailableError(expert_id, "no connection in time")
        case TimeoutError():
            return ExpertTimeoutError(expert_id, "no answer in time")
        case UnprovenError():
            reason = f"does not prove who it is ({failure})"
            return ExpertUntrustedError(expert_id, reason, "upstream_tls")
        case BlockedError():
            reason = f"is not connected to: {failure}"
            return ExpertUntrustedError(expert_id, reason, "upstream_blocked")
        case UnreachedError():
            return ExpertUnavailableError(expert_id, _failed(failure))
        case NoHttpError():
            reason = f"answered something else than HTTP ({failure})"
            return ExpertUntrustedError(expert_id, reason)
        case BrokenOffError():
            return ExpertLostError(expert_id, "the answer broke off")
    # the connection stood, so the request may have come to whom it was for
    return ExpertLostError(expert_id, _failed(failure))


def _failed(error: Exception) -> str:
    return f"connection failed ({str(error) or type(error).__name__})"

"""What the end of a request says of the replica that it was sent to."""

from __future__ import annotations

from typing import Literal

from coe.errors.experts import (
    ExpertError,
    ExpertRejectedError,
    ExpertTimeoutError,
    ExpertUnaskedError,
)

Verdict = Literal["good", "busy", "bad", "nothing"]
"""``busy``: it is there and takes no more (HTTP 429). ``nothing``: who asked is the reason."""

BRIEF_S = 1.0
"""A deadline that leaves less says more of who set it than of who missed it."""

# what a replica says of itself rather than of the request
_OWN_TROUBLE = frozenset({401, 403, 408})


def verdict_on(error: ExpertError, waited_s: float, patience_s: float) -> Verdict:
    """What is to be made of a request that failed so.

    Parameters
    ----------
    waited_s : how long it was out.
    patience_s : the shortest silence that its section allows.
    """
    if isinstance(error, ExpertUnaskedError):
        return "nothing"
    if isinstance(error, ExpertTimeoutError):
        return "bad" if waited_s >= min(BRIEF_S, patience_s) else "nothing"
    if isinstance(error, ExpertRejectedError) and error.status < 500:
        if error.status == 429:
            return "busy"
        # redirections that nobody follows are a misconfiguration there
        return "bad" if error.status < 400 or error.status in _OWN_TROUBLE else "nothing"
    return "bad"

"""What a server says of when to ask again: ``Retry-After``, read strictly (RFC 9110, 10.2.3)."""

from __future__ import annotations

import re
from datetime import datetime
from email.utils import parsedate_to_datetime

CAP_S = 300.0
"""Nobody is left alone for longer on his own word."""

_SECONDS = re.compile(r"[0-9]{1,12}")
_DATE = re.compile(
    r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), [0-9]{2} "
    r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT"
)


def retry_after_s(header: str | None, now: datetime) -> float | None:
    """Seconds to wait, above 0 and at most `CAP_S`; ``None``: nothing that has to be kept to.

    Whole seconds or a date, as the standard has them; what is past, not a number or anything else
    says nothing.

    Parameters
    ----------
    now : the time of day, with its zone.
    """
    text = (header or "").strip(" \t")
    if _SECONDS.fullmatch(text):
        return min(float(text), CAP_S) or None
    if not _DATE.fullmatch(text):
        return None
    try:
        left_s = (parsedate_to_datetime(text) - now).total_seconds()
    except ValueError:
        return None
    return min(left_s, CAP_S) if left_s > 0 else None

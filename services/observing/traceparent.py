"""W3C Trace Context: whose part a request is, read from a header and written into another."""

from __future__ import annotations

import re
from dataclasses import dataclass
from random import Random

_HEADER = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_LONGEST = 128
_SAMPLED = 1


@dataclass(frozen=True, slots=True)
class Trace:
    """A span to be: the ids of trace and span, and of the span that it is part of.

    ``parent_id`` is 0 where the trace begins here.
    """

    trace_id: int
    span_id: int
    parent_id: int
    sampled: bool

    @property
    def traceparent(self) -> str:
        """The header by which others join the trace under this span."""
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-{int(self.sampled):02x}"


def begun(header: str, sample: float, random: Random) -> Trace:
    """A new span: under the one that the header names, else of a new trace.

    Parameters
    ----------
    header : a ``traceparent``; one that is malformed counts as none.
    sample : share of the traces that begin here which are recorded, in [0, 1]; of the others the
        header says whether they are.
    """
    span_id = random.randrange(1, 1 << 64)
    found = parsed(header)
    if found is not None:
        trace_id, parent_id, sampled = found
        return Trace(trace_id, span_id, parent_id, sampled)
    return Trace(random.randrange(1, 1 << 128), span_id, 0, random.random() < sample)


def parsed(header: str) -> tuple[int, int, bool] | None:
    """Trace id, span id and whether they are recorded; ``None`` where the header is malformed.

    https://www.w3.org/TR/trace-context/#traceparent-header: versions above 00 may say more, ff is
    none, and ids are not zero.
    """
    match = _HEADER.fullmatch(header) if len(header) <= _LONGEST else None
    if match is None:
        return None
    version, trace_id, span_id, flags, more = match.groups()
    if (
        version == "ff"
        or (version == "00" and more)
        or not (int(trace_id, 16) and int(span_id, 16))
    ):
        return None
    return int(trace_id, 16), int(span_id, 16), bool(int(flags, 16) & _SAMPLED)

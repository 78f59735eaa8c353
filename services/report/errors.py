"""What can keep a report from being written."""

from __future__ import annotations

from coe.errors import CoeError


class ReportError(CoeError):
    """A report cannot be drawn or written; the message says what to do."""

"""The report of an evaluation: one HTML page, and its pictures beside it."""

from __future__ import annotations

from coe.services.report.curve import GateCurve
from coe.services.report.errors import ReportError
from coe.services.report.files import write_report

__all__ = ["GateCurve", "ReportError", "write_report"]

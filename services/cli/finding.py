"""What ``coe doctor`` says of one thing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from coe.errors import CoeError


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    subject: str
    status: Literal["ok", "warning", "failed"]
    detail: str
    remedy: str = ""


def attempt(subject: str, check: Callable[[], str], remedy: str) -> Finding:
    """What a check says, or why it fails and what would mend that."""
    try:
        return Finding(subject, "ok", check())
    except CoeError as error:
        return Finding(subject, "failed", str(error), remedy)

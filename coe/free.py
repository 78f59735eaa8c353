"""Experts that compute nothing, in ``coe.yaml``: what each can say, and that it takes nothing."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from coe.cache import AnswerCache
from coe.core import ExpertSpec
from coe.device import DeviceProfile
from coe.pattern import Pattern
from coe.stock import Canned, Constants, Declination, Stock
from coe.yamlfile import Name, Positive, Section, wrong_field

_Quality = Annotated[float, Field(ge=0, le=1)]


class CannedSection(Section):
    """One answer that the operator wrote, and the prompts that it is an answer to."""

    text: Annotated[str, Field(min_length=1)]
    categories: list[str] = Field(default=[])
    patterns: list[str] = Field(default=[])
    quality: _Quality = 0.9

    @model_validator(mode="after")
    def _fits_something(self) -> CannedSection:
        if not (self.categories or self.patterns):
            raise ValueError("this answer fits no prompt: give it categories, patterns or both")
        for n, source in enumerate(self.patterns):
            try:
                Pattern(source)
            except ValueError as error:
                raise wrong_field(f"{source!r}: {error}", ("patterns", n)) from error
        return self

    def canned(self) -> Canned:
        """The noun that a router asks."""
        patterns = tuple(Pattern(source) for source in self.patterns)
        return Canned(self.text, self.quality, frozenset(self.categories), patterns)


class ConstantSection(Section):
    """An expert that says what the operator wrote."""

    id: Name
    kind: Literal["constant"]
    answers: Annotated[list[CannedSection], Field(min_length=1)]


class NullSection(Section):
    """An expert that says that nobody answers."""

    id: Name
    kind: Literal["null"]
    text: Annotated[str, Field(min_length=1)] = "No expert answers this within what it may take."
    quality: _Quality = 0.0


class CopySection(Section):
    """An expert that repeats what was answered to the very same request."""

    id: Name
    kind: Literal["copy"]
    ttl_s: Positive = 3600.0
    max_entries: Annotated[int, Field(gt=0)] = 10_000
    max_bytes: Annotated[int, Field(gt=0)] = 64 * 1024 * 1024


FreeSection = ConstantSection | NullSection | CopySection
"""An expert whose answers stand ready: it runs nowhere."""


def null_is_a_word(section: Any) -> Any:
    """The section with its ``kind: null``, which is nothing to YAML, as the word."""
    if isinstance(section, dict) and section.get("kind", "") is None:
        return {**section, "kind": "null"}
    return section


def stock_of(section: FreeSection, now: Callable[[], float] = time.monotonic) -> Stock:
    """What the expert of a section can say.

    Parameters
    ----------
    now : monotonic seconds, by which copies grow old.
    """
    if isinstance(section, ConstantSection):
        return Constants(tuple(answer.canned() for answer in section.answers))
    if isinstance(section, NullSection):
        return Declination(section.text, section.quality)
    return AnswerCache(section.max_entries, section.max_bytes, section.ttl_s, now)


def free_spec(section: FreeSection) -> ExpertSpec:
    """The expert of a section: it takes no time, no joules and no money, for any prompt."""
    profile = DeviceProfile(section.kind, 0.0, 0.0, 0.0, math.inf, 0.0, 0.0, source="no computing")
    return ExpertSpec(section.id, profile, context_tokens=sys.maxsize, local=True)

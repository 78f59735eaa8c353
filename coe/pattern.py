"""A regular expression that is matched in time linear in the text."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

from pydantic_core import SchemaError, SchemaValidator, core_schema

MAX_CHARS = 500
"""Longest pattern."""

MAX_REPEATS = 100
"""What the counts of ``{m,n}`` in a pattern may multiply out to."""

_COUNTED = re.compile(r"\{\d+(?:,\d*)?\}")


@dataclass(frozen=True, slots=True)
class Pattern:
    """A regular expression of Rust's ``regex``, searched for by finite automata.

    They try nothing twice, so that no text makes them slow: nested ``*`` and ``+`` are harmless,
    look-around and back-references do not exist. What is left to be large is a count such as
    ``{1,1000}``, for which states are multiplied out; hence `MAX_REPEATS`.

    Raises
    ------
    ValueError
        The expression is malformed, uses what there is not, or is too large.
    """

    source: str
    _found: SchemaValidator = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(self.source) > MAX_CHARS:
            raise ValueError(f"a pattern has at most {MAX_CHARS} characters")
        counts = (max(_numbers(c)) for c in _COUNTED.findall(self.source))
        if math.prod(max(1, n) for n in counts) > MAX_REPEATS:
            raise ValueError(
                f"counted repetitions multiply out to more than {MAX_REPEATS}: use * or +"
            )
        try:
            found = SchemaValidator(core_schema.str_schema(pattern=self.source))
        except SchemaError as error:
            raise ValueError(f"not a pattern: {str(error).rpartition('error: ')[2]}") from error
        object.__setattr__(self, "_found", found)

    def found_in(self, text: str) -> bool:
        """Whether the expression matches somewhere in the text; O(states * len(text)) at worst."""
        return self._found.isinstance_python(text)


def _numbers(count: str) -> list[int]:
    return [int(n) for n in re.findall(r"\d+", count)]

"""JSON schemas that people send with tools and formats, checked before an engine compiles them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

MOST_DEPTH: Final = 16
"""Schemas inside each other."""

MOST_BYTES: Final = 64 * 1024
"""Of one schema."""

# what these hold by name are schemas, and the map itself is none
_MAPS = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
# ECMA's own signs, which Python reads otherwise or not at all
_ECMA = re.compile(r"\\[pP]\{[^}]*\}|\\u\{[0-9a-fA-F]+\}|\\c[A-Za-z]")
_NAMED_GROUP = re.compile(r"\(\?<(?=[A-Za-z_$])")


def wrong_schema(schema: Any) -> str:
    """Why an engine should not be given a schema; "": it may.

    A schema is an object of at most `MOST_BYTES` and `MOST_DEPTH`, whose patterns are regular
    expressions and whose references stay inside it.
    """
    if not isinstance(schema, Mapping):
        return "a schema must be an object"
    if len(json.dumps(schema)) > MOST_BYTES:
        return f"a schema must have at most {MOST_BYTES} bytes"
    for part, depth in _parts(schema, 1):
        if depth > MOST_DEPTH:
            return f"a schema must have at most {MOST_DEPTH} levels"
        reference, pattern = part.get("$ref"), part.get("pattern")
        if isinstance(reference, str) and not reference.startswith("#"):
            return "a reference must point into the schema itself: begin it with #"
        if isinstance(pattern, str) and not _compiles(pattern):
            return "a pattern is not a regular expression"
    return ""


def wrong_parameters(schema: Any) -> str:
    """As `wrong_schema`, of the parameters of a function: an object of type object, or empty."""
    if isinstance(schema, Mapping) and schema and schema.get("type") != "object":
        return "the parameters of a function must be of type object"
    return wrong_schema(schema)


def _parts(value: Any, depth: int) -> Iterator[tuple[Mapping[str, Any], int]]:
    """Every schema in a schema, with how deep it lies."""
    if isinstance(value, list):
        for inner in value:
            yield from _parts(inner, depth)
    elif isinstance(value, Mapping):
        yield value, depth
        for name, inner in value.items():
            within = inner.values() if name in _MAPS and isinstance(inner, Mapping) else [inner]
            for one in within:
                yield from _parts(one, depth + 1)


def _compiles(pattern: str) -> bool:
    try:
        re.compile(_NAMED_GROUP.sub("(?P<", _ECMA.sub("x", pattern)))
    except (re.error, RecursionError, OverflowError):
        return False
    return True

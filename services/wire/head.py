"""The head of a request: its fields, looked through once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from starlette.types import Scope

_KEY: Final = "coe.fields"


def fields_of(scope: Scope) -> Mapping[bytes, bytes]:
    """The fields of the head by their names in small letters; the first of each name.

    Fewer than the scope has headers: some are there several times.
    """
    found: Any = scope.get(_KEY)
    if found is None:
        found = scope[_KEY] = dict(reversed(scope["headers"]))
    fields: Mapping[bytes, bytes] = found
    return fields


def field_of(scope: Scope, name: bytes) -> str | None:
    """The value of the first field of that name; ``None``: there is none."""
    value = fields_of(scope).get(name)
    return None if value is None else value.decode("latin-1")

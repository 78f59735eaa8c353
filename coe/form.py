"""Whether an answer has the form that the caller asked for. Nothing is run to find out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_OBJECT = {"type": "object"}
_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "number": (int, float),
    "integer": (int, float),
    "boolean": bool,
    "null": type(None),
}


def keeps_form(text: str, form: Mapping[str, Any]) -> bool:
    """Whether an answer has the form that the caller asked for.

    ``json_object``: it is a JSON object. ``json_schema``: it is JSON that `fits` the schema, and an
    object where the schema names no type. Any other form is kept by every answer.

    Parameters
    ----------
    form : the ``response_format`` of a request.
    """
    if form.get("type") not in ("json_object", "json_schema"):
        return True
    wanted = form.get("json_schema") if form["type"] == "json_schema" else None
    schema = wanted.get("schema") if isinstance(wanted, Mapping) else None
    schema = {**_OBJECT, **schema} if isinstance(schema, Mapping) else _OBJECT
    try:
        return fits(json.loads(text), schema)
    except (ValueError, RecursionError):
        return False


def fits(document: object, schema: object) -> bool:
    """Whether a JSON document is what a JSON schema says of types and required keys, at any depth.

    Read are ``type``, ``required``, ``properties`` and ``items``; a document is not held to other
    words, nor to those that are malformed. Linear in the document.

    Raises
    ------
    RecursionError
        The document is nested too deeply.
    """
    if not isinstance(schema, Mapping):
        return True
    if not _is_of_type(document, schema.get("type")):
        return False
    if isinstance(document, list):
        return all(fits(item, schema.get("items")) for item in document)
    if not isinstance(document, dict):
        return True
    required, properties = schema.get("required"), schema.get("properties")
    if isinstance(required, list) and not document.keys() >= set(filter(_is_name, required)):
        return False
    known = properties if isinstance(properties, Mapping) else {}
    return all(fits(value, known.get(name)) for name, value in document.items())


def _is_name(value: object) -> bool:
    return isinstance(value, str)


def _is_of_type(document: object, wanted: object) -> bool:
    """Whether a value is of a type, or of one of several, that JSON schemas know by these names."""
    names = wanted if isinstance(wanted, list) else [wanted]
    kinds = [name for name in names if isinstance(name, str) and name in _TYPES]
    return not kinds or any(_is(document, name) for name in kinds)


def _is(document: object, name: str) -> bool:
    if isinstance(document, bool):
        return name == "boolean"
    whole = not isinstance(document, float) or document.is_integer()
    return isinstance(document, _TYPES[name]) and (name != "integer" or whole)

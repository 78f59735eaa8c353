"""JSON that people sent, read strictly: what two readers would take differently is none.

The size of what is built is bounded before anything is built: the standard library recurses as
deeply as a text tells it to.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any, Final

from coe.errors.callers import RequestError

MOST_DEPTH: Final = 64
"""Objects and lists inside each other."""

MOST_VALUES: Final = 400_000
"""Values of one document, however deep."""

MOST_KEYS: Final = 1024
"""Keys of one object."""

_ECHOED_CHARS = 64
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_NO_STRUCTURE = bytes(set(range(256)) - set(b"[]{},"))
# how NUL and half of a surrogate pair are written; the second may also be a whole pair
_SUSPECT = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])")
_ODD = re.compile("[\x00\ud800-\udfff]")


def document_of(body: bytes) -> dict[str, Any]:
    """The object that a body holds, its numbers finite and below 2**64, its keys all different.

    O(len(body)).

    Raises
    ------
    RequestError
        ``invalid_json``: no JSON in UTF-8, or a number that not everybody can hold.
        ``json_too_deep``, ``json_too_complex``: deeper or larger than the limits of this module.
        ``duplicate_key``: ``param`` names it. ``invalid_type``: it is no object.
        ``invalid_unicode``: a text holds NUL or half a character; ``param`` says where.
    """
    _check_structure(body)
    try:
        document = _STRICT.decode(body.decode())
    except (ValueError, RecursionError) as error:
        raise RequestError(
            f"the body is not JSON: {_reason(error)}", None, "invalid_json"
        ) from error
    if not isinstance(document, dict):
        raise RequestError("the body must be a JSON object", None, "invalid_type")
    suspect = b"\\u" in body and _SUSPECT.search(body) is not None
    if suspect and (path := next(_odd_texts(document), None)) is not None:
        raise RequestError(
            "a text holds NUL or half of a surrogate pair", path or None, "invalid_unicode"
        )
    return document


def path_of(steps: Iterator[str | int] | tuple[str | int, ...]) -> str:
    """``messages[0].content`` of its steps, a long name cut."""
    text = ""
    for step in steps:
        text += f"[{step}]" if isinstance(step, int) else f".{echoed(step)}"
    return text.removeprefix(".")


def echoed(text: str) -> str:
    """What an error may repeat of somebody's text: printable, and not much of it."""
    cut = text[:_ECHOED_CHARS] + ("..." if len(text) > _ECHOED_CHARS else "")
    return "".join(c if c.isprintable() else "?" for c in cut)


def _check_structure(body: bytes) -> None:
    """Refuse what is too deep or too much, before it is parsed."""
    n_opened = _up_to(MOST_DEPTH + 1, b"[", body) + _up_to(MOST_DEPTH + 1, b"{", body)
    n_commas = body.count(b",") if len(body) >= MOST_VALUES - MOST_DEPTH else 0
    if n_opened <= MOST_DEPTH and n_commas < MOST_VALUES - MOST_DEPTH:
        return
    structure = _STRING.sub(b"", body).translate(None, _NO_STRUCTURE)
    depth = 0
    # the values of a document are its commas and its containers at most
    if len(structure) - structure.count(b"]") - structure.count(b"}") > MOST_VALUES:
        raise RequestError(f"the body has more than {MOST_VALUES} values", None, "json_too_complex")
    for sign in structure:
        depth += (sign in b"[{") - (sign in b"]}")
        if depth > MOST_DEPTH:
            raise RequestError(
                f"the body is nested more than {MOST_DEPTH} deep", None, "json_too_deep"
            )


def _up_to(most: int, sign: bytes, body: bytes) -> int:
    """How often a rare sign is there, or the most; long texts are searched faster than counted."""
    n, at = 0, body.find(sign)
    while at >= 0 and n < most:
        n, at = n + 1, body.find(sign, at + 1)
    return n


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(pairs) > MOST_KEYS:
        raise RequestError(f"an object has more than {MOST_KEYS} keys", None, "json_too_complex")
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = echoed(next(name for n, name in enumerate(names) if name in names[:n]))
        raise RequestError(f"key {twice!r} appears twice in an object", twice, "duplicate_key")
    return found


def _integer(text: str) -> int:
    # beyond 64 bits some read a rounded number, others none
    if len(text) > 21 or abs(number := int(text)) >= 2**64:
        raise ValueError("a number needs more than 64 bits")
    return number


def _number(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError("a number is larger than any")
    return number


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _reason(error: Exception) -> str:
    """What is wrong, without any of the body: a decoding error would repeat it."""
    return "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)


def _odd_texts(value: Any, *steps: str | int) -> Iterator[str]:
    """Where texts and keys are that hold what no text may hold."""
    if isinstance(value, str):
        if _ODD.search(value):
            yield path_of(steps)
    elif isinstance(value, list):
        for n, inner in enumerate(value):
            yield from _odd_texts(inner, *steps, n)
    elif isinstance(value, dict):
        for name, inner in value.items():
            if _ODD.search(name):
                yield path_of(steps)
            yield from _odd_texts(inner, *steps, name)


_STRICT = json.JSONDecoder(
    object_pairs_hook=_object,
    parse_int=_integer,
    parse_float=_number,
    parse_constant=_refuse,
)

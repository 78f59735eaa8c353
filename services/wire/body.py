"""Bodies of HTTP requests, read up to a limit, and not for ever."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from starlette.requests import ClientDisconnect, Request

from coe.errors.callers import RequestError
from coe.services.wire.head import field_of
from coe.services.wire.strict_json import document_of
from coe.within import Within

_JSON: Final = "application/json"
_LONG_BYTES: Final = 64 * 1024
# one at a time: of several that hold the interpreter the loop would wait for each in turn
_BESIDE: Final = ThreadPoolExecutor(1, thread_name_prefix="bodies")


async def json_of(http: Request, limit_bytes: int, within_s: float) -> dict[str, Any]:
    """The object that the body holds.

    Raises
    ------
    RequestError
        ``unsupported_media_type``, ``unsupported_content_encoding``: it says that it is something
        else than plain JSON in UTF-8, and nothing of it is read. Or as `body_of` and
        `coe.services.wire.strict_json.document_of`.
    """
    kind = field_of(http.scope, b"content-type")
    if kind != _JSON and not _is_json(kind or ""):
        raise RequestError(
            "the body must be JSON in UTF-8: send content-type: application/json",
            None,
            "unsupported_media_type",
        )
    coding = field_of(http.scope, b"content-encoding")
    if coding is not None and coding.lower() != "identity":
        raise RequestError("the body must not be compressed", None, "unsupported_content_encoding")
    body = await body_of(http, limit_bytes, within_s)
    if len(body) > _LONG_BYTES:
        # the parts of a long conversation take 160 ms, in which nobody else would be answered
        return await asyncio.get_running_loop().run_in_executor(_BESIDE, document_of, body)
    return document_of(body)


async def body_of(http: Request, limit_bytes: int, within_s: float = 30.0) -> bytes:
    """The whole body.

    Parameters
    ----------
    within_s : how long it may take to come.

    Raises
    ------
    RequestError
        ``request_too_large``: it is larger than the limit, or says so; no more than the limit and
        a piece is kept. ``request_timeout``: it did not come in time.
    """
    announced = field_of(http.scope, b"content-length") or ""
    if announced.isdecimal() and int(announced) > limit_bytes:
        raise _too_large(limit_bytes)
    body = bytearray()
    try:
        with Within(within_s):
            more = True
            while more:
                message = await http.receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                body += message.get("body", b"")
                if len(body) > limit_bytes:
                    raise _too_large(limit_bytes)
                more = message.get("more_body", False)
    except TimeoutError as error:
        raise RequestError(
            f"the body did not come within {within_s:g} s", None, "request_timeout"
        ) from error
    return bytes(body)


def _is_json(kind: str) -> bool:
    """Whether a media type is JSON in UTF-8."""
    name, *parameters = kind.lower().split(";")
    charsets = {p.strip().replace('"', "") for p in parameters if p.strip().startswith("charset")}
    return name.strip() == _JSON and not charsets - {"charset=utf-8"}


def _too_large(limit_bytes: int) -> RequestError:
    return RequestError(f"the body is larger than {limit_bytes} bytes", None, "request_too_large")

"""Bodies of HTTP requests, read up to a limit, and not for ever."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.requests import Request

from coe.errors import RequestError
from coe.services.strict_json import document_of


async def json_of(http: Request, limit_bytes: int, within_s: float) -> dict[str, Any]:
    """The object that the body holds.

    Raises
    ------
    RequestError
        ``unsupported_media_type``, ``unsupported_content_encoding``: it says that it is something
        else than plain JSON in UTF-8, and nothing of it is read. Or as `body_of` and
        `coe.services.strict_json.document_of`.
    """
    kind, *parameters = http.headers.get("content-type", "").lower().split(";")
    charsets = {p.strip().replace('"', "") for p in parameters if p.strip().startswith("charset")}
    if kind.strip() != "application/json" or charsets - {"charset=utf-8"}:
        raise RequestError(
            "the body must be JSON in UTF-8: send content-type: application/json",
            None,
            "unsupported_media_type",
        )
    if http.headers.get("content-encoding", "identity").lower() != "identity":
        raise RequestError("the body must not be compressed", None, "unsupported_content_encoding")
    return document_of(await body_of(http, limit_bytes, within_s))


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
    too_large = RequestError(
        f"the body is larger than {limit_bytes} bytes", None, "request_too_large"
    )
    announced = http.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limit_bytes:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(within_s):
            async for piece in http.stream():
                body += piece
                if len(body) > limit_bytes:
                    raise too_large
    except TimeoutError as error:
        raise RequestError(
            f"the body did not come within {within_s:g} s", None, "request_timeout"
        ) from error
    return bytes(body)

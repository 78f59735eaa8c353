"""Bodies of HTTP requests, read up to a limit."""

from __future__ import annotations

from starlette.requests import Request

from coe.errors import RequestError


async def body_of(http: Request, limit_bytes: int) -> bytes:
    """The whole body.

    Raises
    ------
    RequestError
        It is larger than the limit, or says so; no more than the limit and a piece is kept.
    """
    too_large = RequestError(
        f"the body is larger than {limit_bytes} bytes", None, "request_too_large"
    )
    announced = http.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limit_bytes:
        raise too_large
    body = bytearray()
    async for piece in http.stream():
        body += piece
        if len(body) > limit_bytes:
            raise too_large
    return bytes(body)

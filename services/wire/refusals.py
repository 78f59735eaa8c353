"""Errors as HTTP answers, in OpenAI's shape."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from coe.errors import CoeError
from coe.errors.callers import (
    BudgetExhaustedError,
    CredentialsError,
    ForbiddenError,
    InfeasibleError,
    RateLimitError,
    RequestError,
)
from coe.errors.experts import (
    ExpertError,
    ExpertOverloadedError,
    ExpertRejectedError,
    ExpertTimeoutError,
    ExpertUntrustedError,
)
from coe.errors.gateway import (
    EmbeddingError,
    EndingError,
    GatewayError,
    LedgerUnavailableError,
    OverdueError,
    OverloadedError,
)
from coe.guard.retry_after import retry_after_s
from coe.services.observing.exchange import exchange_of

_STATUS: Final = {
    "admin_disabled": 403,
    "ambiguous_credentials": 400,
    "decision_not_found": 404,
    "idempotency_conflict": 409,
    "invalid_token": 401,
    "method_not_allowed": 405,
    "model_not_found": 404,
    "request_timeout": 408,
    "request_too_large": 413,
    "unknown_url": 404,
    "unsupported_content_encoding": 415,
    "unsupported_media_type": 415,
}
# after these the rest of a body may still come, and nobody reads it
_LAST_OF_A_CONNECTION: Final = frozenset({408, 413, 415})
NO_RETRY: Final[Mapping[str, str]] = {"x-should-retry": "false"}
"""OpenAI's clients try again by themselves after 408, 409, 429 and 5xx, but not after this."""
# the same would come of the same request; or it was tried on every expert, and its time was spent
_SPENT: Final = frozenset({409, 500, 502, 504})
# what an expert says of the request; anything else it says is the operator's business
_PASSED_ON: Final = frozenset({400, 404, 413, 422, 429})
# a code or the name of a field, which cannot repeat a prompt
_WORD: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.\[\]-]{0,63}")


def error_document(
    message: str, kind: str, code: str | None = None, param: str | None = None, **more: Any
) -> dict[str, Any]:
    """An error in OpenAI's shape."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code, **more}}


def rendered(error: CoeError) -> tuple[int, dict[str, Any]]:
    """HTTP status and body of an error."""
    if isinstance(error, BudgetExhaustedError):
        return 429, error_document(str(error), "insufficient_quota", error.code, error.param)
    if isinstance(error, LedgerUnavailableError):
        return 503, error_document(str(error), "server_error", error.code)
    if isinstance(error, OverdueError):
        return 504, error_document(str(error), "timeout_error", error.code)
    if isinstance(error, GatewayError):
        return 503, error_document(str(error), "server_error", error.code)
    if isinstance(error, RateLimitError):
        return 429, error_document(str(error), "rate_limit_error", error.code, error.param)
    if isinstance(error, ForbiddenError):
        return 403, error_document(str(error), "permission_error", error.code, error.param)
    if isinstance(error, RequestError):
        status = 401 if isinstance(error, CredentialsError) else _STATUS.get(error.code, 400)
        needed = error.needed if isinstance(error, InfeasibleError) else {}
        more = {"needed": needed} if needed else {}
        kind = "timeout_error" if status == 408 else "invalid_request_error"
        return status, error_document(str(error), kind, error.code, error.param, **more)
    if isinstance(error, ExpertRejectedError) and error.status in _PASSED_ON:
        message = f"{error}{_reason(error.body)}"
        return error.status, error_document(message, "invalid_request_error", "upstream_rejected")
    if isinstance(error, ExpertTimeoutError):
        return 504, error_document(str(error), "timeout_error", "upstream_timeout")
    if isinstance(error, ExpertRejectedError):
        return 502, error_document(str(error), "server_error", "expert_failed")
    if isinstance(error, ExpertUntrustedError):
        return 502, error_document(str(error), "server_error", error.code)
    if isinstance(error, EmbeddingError):
        message = "the embedder gives no vectors now"
        return 503, error_document(message, "server_error", "embedder_unavailable")
    code = error.code if isinstance(error, ExpertOverloadedError) else "expert_unavailable"
    return 503, error_document(str(error), "server_error", code)


def code_of(error: CoeError) -> str:
    """The code by which callers and metrics know an error."""
    return _code_in(rendered(error)[1])


def when_again(status: int, error: CoeError) -> dict[str, str]:
    """Headers that say when to ask again, with what, or that it is no use to do so at once."""
    if isinstance(error, BudgetExhaustedError):
        after_s = error.retry_after_s
        later = {} if after_s is None else {"retry-after": str(after_s)}
        return {**NO_RETRY, **later}
    if isinstance(error, OverloadedError):
        return {"retry-after": str(error.retry_after_s)}
    if isinstance(error, RateLimitError):
        return {"retry-after": str(error.retry_after_s)}
    if isinstance(error, CredentialsError):
        wrong = "" if error.code == "missing_api_key" else ', error="invalid_token"'
        return {"www-authenticate": f'Bearer realm="coe"{wrong}'}
    headers = {"retry-after": _pause(error)} if status in (429, 503) else {}
    tried = isinstance(error, ExpertError) and error.n_tried > 1 and status >= 500
    return {**headers, **NO_RETRY} if tried or status in _SPENT else headers


def _pause(error: CoeError) -> str:
    """Whole seconds after which an expert, or what the gateway needs, may be asked again."""
    seconds: float | None = None
    if isinstance(error, ExpertOverloadedError):
        seconds = error.retry_after_s
    elif isinstance(error, ExpertRejectedError):
        seconds = retry_after_s(error.retry_after, datetime.now(UTC))
    return str(math.ceil(seconds or 1.0))


class Refusal(Response):
    """The answer that an error is; its exchange gets to know."""

    error: CoeError
    code: str

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        exchange_of(scope).end(self.error, self.code)
        await super().__call__(scope, receive, send)


def refused(error: CoeError) -> Response:
    """The answer that an error is."""
    status, document = rendered(error)
    headers = when_again(status, error)
    if status in _LAST_OF_A_CONNECTION or isinstance(error, EndingError | OverdueError):
        headers["connection"] = "close"
    refusal = Refusal(_content(document), status, headers, media_type="application/json")
    refusal.error, refusal.code = error, _code_in(document)
    return refusal


def error_event(error: CoeError) -> bytes:
    """The error as the last event of a stream, which may have broken off in another one."""
    _, document = rendered(error)
    return b"\n\ndata: " + json.dumps(document).encode() + b"\n\n"


def as_json(
    document: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """A document as an answer."""
    content = _content(document)
    return Response(content, status, dict(headers or {}), media_type="application/json")


def _code_in(document: Mapping[str, Any]) -> str:
    return document["error"]["code"] or "none"


def _reason(body: bytes) -> str:
    """Why an expert refuses, as far as words of its error say so; none of its own sentences."""
    try:
        error = json.loads(body)["error"]
        said = [error.get("code") or error.get("type"), error.get("param")]
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return ""
    words = [word for word in said if isinstance(word, str) and _WORD.fullmatch(word)]
    return f": {', '.join(words)}" if words else ""


def _content(document: Mapping[str, Any]) -> bytes:
    # ASCII, because an expert may cut an emoji in two and half of one has no UTF-8 form
    return json.dumps(document, allow_nan=False).encode()

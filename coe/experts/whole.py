"""A whole answer as it may be passed on."""

from __future__ import annotations

from coe.answer import Whole, object_in
from coe.errors.experts import ExpertUntrustedError
from coe.http.errors import BrokenOffError
from coe.http.response import Response

MOST_BYTES = 16 * 1024 * 1024
"""Longest whole answer, by default."""


async def whole_of(expert_id: str, response: Response, most_bytes: int) -> bytes:
    """The body of a response, which must not be longer than ``most_bytes``.

    Raises
    ------
    ExpertUntrustedError
        It is longer, or shorter than its head says.
    """
    parts, n_bytes = [], 0
    try:
        while part := await response.read():
            n_bytes += len(part)
            if n_bytes > most_bytes:
                raise ExpertUntrustedError(expert_id, f"sent more than {most_bytes} bytes")
            parts.append(part)
    except BrokenOffError as error:
        raise ExpertUntrustedError(expert_id, "the answer broke off") from error
    return b"".join(parts)


def answer_in(expert_id: str, body: bytes) -> Whole:
    """The body of a response as an answer: a chat completion of at least one choice.

    Raises
    ------
    ExpertUntrustedError
        It is not.
    """
    document = object_in(body)
    if document is None:
        what = "something else than a JSON object" if body.strip() else "nothing"
        raise ExpertUntrustedError(expert_id, f"answered with {what}")
    choices = document.get("choices")
    if not (isinstance(choices, list) and choices and all(isinstance(c, dict) for c in choices)):
        failed = "error" in document
        said = "failed, and said so in its answer" if failed else "answered without a choice"
        raise ExpertUntrustedError(expert_id, said)
    answer = Whole(body)
    answer.document = document
    return answer

"""The older interface: a prompt, asked as a chat of one message, and its answer told otherwise."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from pydantic import ValidationError

from coe.services.wire.bodies import CompletionBody
from coe.services.wire.chat import UNSUPPORTED
from coe.services.wire.fields import complaint, unknown


def chat_of(document: Mapping[str, Any], extras: frozenset[str]) -> dict[str, Any]:
    """The body of a chat that asks what the body of a completion asks.

    Raises
    ------
    RequestError
        A field is wrong, or none of a completion's; ``param`` names it. Log odds have another form
        in a chat, and are not told: ``unsupported_parameter``.
    """
    more = document.keys() - CompletionBody.model_fields.keys()
    if strange := [name for name in document if name in more - extras]:
        raise unknown(strange, UNSUPPORTED | {"logprobs"})
    named = {name: value for name, value in document.items() if name not in more}
    try:
        body = CompletionBody.model_validate(named)
    except ValidationError as error:
        raise complaint(error) from error
    messages = [{"role": "user", "content": body.text}]
    return {k: v for k, v in document.items() if k != "prompt"} | {"messages": messages}


def completion_of(document: Mapping[str, Any]) -> dict[str, Any]:
    """The answer to a chat, or an event of its stream, as one of a completion.

    What has no choices, such as an error, is returned as it is.
    """
    choices = document.get("choices")
    if not isinstance(choices, list):
        return dict(document)
    return {**document, "object": "text_completion", "choices": [_told(one) for one in choices]}


async def retold(pieces: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """The events of a chat's stream as those of a completion's; what is no event as it comes.

    The stream is closed with the one that is returned.
    """
    rest = b""
    async with aclosing(pieces):
        async for piece in pieces:
            *lines, rest = (rest + piece).split(b"\n")
            if lines:
                yield b"".join(_line(line) + b"\n" for line in lines)
    if rest:
        yield _line(rest)


def _line(line: bytes) -> bytes:
    if not line.startswith(b"data:"):
        return line
    try:
        document = json.loads(line[5:])
    except ValueError:
        return line
    return b"data: " + json.dumps(completion_of(document)).encode()


def _told(choice: Mapping[str, Any]) -> dict[str, Any]:
    said = choice.get("message") or choice.get("delta") or {}
    return {
        "index": choice.get("index", 0),
        "text": said.get("content") or "",
        "logprobs": None,
        "finish_reason": choice.get("finish_reason"),
    }

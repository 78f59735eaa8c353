"""The most that an answer can take: what is held for it before an expert is asked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from coe.core import ExpertSpec, Request
from coe.ledger.amounts import Amounts

MESSAGE_TOKENS = 16
"""What a chat template puts around a message, at most."""

TEMPLATE_TOKENS = 128
"""What it puts before the first message of its own accord, such as a system message."""

TOOLS_TOKENS = 512
"""What it says of how tools are called, besides the tools."""


def bound(spec: ExpertSpec, request: Request, max_tokens: int | None) -> Amounts:
    """The most that the expert can take to answer; no request, which whoever asks counts once.

    Strict as far as the expert is what ``coe.yaml`` says: it stops at its cap and its context, has
    the stated prices, and draws what its profile says. Measured joules may be more. Nothing where
    the answer stands ready. O(bytes of the prompt).

    Parameters
    ----------
    request : as the expert is to get it, passages and quoted answers included.
    max_tokens : cap on each of its answers; ``None``: the expert's own, so its whole context may
        be written, as how little of it the prompt takes is not known.
    """
    if spec.id in request.standing:
        return Amounts()
    n_prompt = prompt_bound(request, spec.context_tokens)
    longest = spec.context_tokens if max_tokens is None else min(max_tokens, spec.context_tokens)
    n_output = longest * request.n_answers
    return Amounts.of(
        energy_j=spec.profile.energy_j(n_prompt, n_output),
        cost_usd=spec.cost_usd(n_prompt, n_output),
        tokens=n_prompt + n_output,
    )


def stated_bound(spec: ExpertSpec, request: Request, max_tokens: int | None) -> tuple[int, int]:
    """The most tokens of a prompt, and of all answers to it, that the expert may truly state.

    As in `bound`, but in constant time and so with less of an eye on the prompt.
    """
    longest = spec.context_tokens if max_tokens is None else min(max_tokens, spec.context_tokens)
    return max(spec.context_tokens, request.prompt_tokens), longest * request.n_answers


def prompt_bound(request: Request, context_tokens: int) -> int:
    """The most tokens that the prompt can have: a token is at least a byte of what is written.

    Everything in the payload counts that a template may write, so tools, schemas and their likes
    as JSON. A part that is no text, such as a picture, may take the whole context. Never fewer
    than `Request.prompt_tokens`, which is what is booked where an expert does not count.
    """
    payload = request.payload
    own = [{"role": message.role, "content": message.text} for message in request.messages]
    messages = payload.get("messages") or own
    n_tokens = TEMPLATE_TOKENS + TOOLS_TOKENS * any(payload.get(k) for k in ("tools", "functions"))
    n_tokens += sum(
        _json_bytes(value)
        for name, value in payload.items()
        if name != "messages" and isinstance(value, str | list | dict)
    )
    for message in messages:
        n_bytes = _message_bytes(message)
        if n_bytes is None:
            return max(context_tokens, request.prompt_tokens)
        n_tokens += MESSAGE_TOKENS + n_bytes
    return max(min(n_tokens, context_tokens), request.prompt_tokens)


def _message_bytes(message: Mapping[str, Any]) -> int | None:
    """Length of all that a message says; ``None``: not all of it is text."""
    content = message.get("content")
    parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
    if any(part.get("type") != "text" for part in parts):
        return None
    n_bytes = sum(_bytes(part.get("text") or "") for part in parts)
    rest = {k: v for k, v in message.items() if k not in ("role", "content")}
    return n_bytes + (_json_bytes(rest) if rest else 0)


def _json_bytes(value: object) -> int:
    return _bytes(json.dumps(value, ensure_ascii=False))


def _bytes(text: str) -> int:
    # half of a surrogate pair has no UTF-8 form, and three bytes of it all the same
    return len(text.encode(errors="surrogatepass"))

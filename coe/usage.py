"""What a stream states of its tokens: asked for always, and kept from callers who did not ask.

Without it the tokens of a stream can only be counted, and what a receipt says of them is a guess.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from coe.answer import object_in
from coe.core import Request

_OF_NO_CHOICE = re.compile(rb'"choices"\s*:\s*\[\s*\]')


def asks_for_usage(request: Request) -> bool:
    """Whether the caller wants a streamed answer to state its usage."""
    return bool(_stream_options(request).get("include_usage"))


def with_usage(request: Request) -> Request:
    """The request, of a stream, as an expert gets it that is to state its usage."""
    options = {**_stream_options(request), "include_usage": True}
    return replace(request, payload={**request.payload, "stream_options": options})


@dataclass(slots=True)
class WithoutUsage:
    """Leaves out of a stream the events that state its usage and nothing else.

    A caller must ask for them with ``stream_options.include_usage``.
    """

    _rest: bytes = b""
    _left_out: bool = False

    def feed(self, piece: bytes) -> bytes:
        """What of the stream up to this piece may pass; the line that it breaks off in waits."""
        if b'"usage"' not in piece and not (self._rest or self._left_out) and piece[-1:] == b"\n":
            return piece
        *lines, self._rest = (self._rest + piece).split(b"\n")
        return b"".join(line + b"\n" for line in lines if self._passes(line))

    def end(self) -> bytes:
        """What is left of a stream that broke off in a line."""
        return self._rest

    def _passes(self, line: bytes) -> bool:
        if self._left_out and not line.strip():
            return False  # the blank line that ends the event
        stating = line.startswith(b"data:") and b'"usage"' in line
        # many servers have a usage of null in every event
        alone = stating and (b'"choices"' not in line or _OF_NO_CHOICE.search(line))
        document = (object_in(line[5:]) if alone else None) or {}
        self._left_out = bool(document.get("usage")) and not document.get("choices")
        return not self._left_out


def _stream_options(request: Request) -> Mapping[str, Any]:
    options = request.payload.get("stream_options")
    return options if isinstance(options, Mapping) else {}

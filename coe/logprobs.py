"""What an answer says of its own tokens: asked for, read, and kept from the caller.

Engines call it ``logprobs``: for each token the natural logarithm of the probability that the
expert gave it. llama.cpp's server states it as it is before temperature and penalties.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from coe.core import Request

ASKING: Mapping[str, Any] = {"logprobs": True, "top_logprobs": 1}
"""Asks for them with the fewest others: at 0 llama.cpp sends none, by default 20 more a token."""

_LEAST = -20.0


def with_logprobs(request: Request) -> Request:
    """The request as an expert gets it whose sureness of its own words is wanted."""
    return replace(request, payload={**request.payload, **ASKING})


def mean_logprob(logprobs: object) -> float | None:
    """Mean over the tokens in the ``logprobs`` of a choice, at most 0; ``None``: there are none.

    A token counts as -20 at least, so that one that could not be had does not outweigh the rest.
    """
    found = list(_told(logprobs))
    return math.fsum(found) / len(found) if found else None


@dataclass(slots=True)
class WithoutLogprobs:
    """Takes out of a stream what it says of its tokens, and keeps the mean.

    Events that say nothing of them pass byte for byte.
    """

    _rest: bytes = b""
    _sum: float = 0.0
    _n_tokens: int = 0

    @property
    def mean(self) -> float | None:
        """As `mean_logprob`, of all tokens of the first answer so far."""
        return self._sum / self._n_tokens if self._n_tokens else None

    def feed(self, piece: bytes) -> bytes:
        """What of the stream up to this piece is left; the line that it breaks off in waits."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        return b"".join(self._passed(line) + b"\n" for line in lines)

    def end(self) -> bytes:
        """What is left of a stream that broke off in a line."""
        return self._rest

    def _passed(self, line: bytes) -> bytes:
        if not line.startswith(b"data:") or b'"logprobs"' not in line:
            return line
        try:
            event = json.loads(line[5:])
        except (ValueError, RecursionError):
            return line
        choices = event.get("choices") if isinstance(event, dict) else None
        telling = [
            choice
            for choice in (choices if isinstance(choices, list) else ())
            if isinstance(choice, dict) and choice.get("logprobs")
        ]
        if not telling:
            return line
        for choice in telling:
            self._note(choice.pop("logprobs"))
        return b"data: " + json.dumps(event).encode()

    def _note(self, logprobs: object) -> None:
        for logprob in _told(logprobs):
            self._sum += logprob
            self._n_tokens += 1


def _told(logprobs: object) -> Iterator[float]:
    """The logarithm of each token that has one."""
    content = logprobs.get("content") if isinstance(logprobs, Mapping) else None
    for token in content if isinstance(content, list) else ():
        logprob = token.get("logprob") if isinstance(token, Mapping) else None
        if isinstance(logprob, int | float) and not math.isnan(logprob):
            yield min(max(float(logprob), _LEAST), 0.0)

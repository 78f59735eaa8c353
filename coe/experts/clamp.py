"""The end that is put to a stream whose expert does not keep to its cap."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import orjson

from coe.answer import DONE

# how events that say nothing are usually written: the role, the end, the usage
_SILENT = (b'"content":""', b'"content": ""', b'"delta":{}', b'"delta": {}', b'"choices":[]')
# how one that says something is; in a text of JSON there is no quotation mark without a backslash
_TELLING = (b'"content":"', b'"content": "')
_SPARE = 16


@dataclass(slots=True)
class Clamp:
    """Passes the events of a stream on until they have said as much as was asked for.

    An event that says something counts as one token at least. Parsed are those of which that is
    not plain to see, and the one that is too many.

    Parameters
    ----------
    most_tokens : of each answer; ``None``: no limit.
    n_answers : each may begin with an event that says nothing, which is not always seen to.
    calling : whether it may call tools: some servers then write two events for a token.
    ended : whether the stream was ended here, by an event with the reason ``length`` and the end
        mark.
    """

    most_tokens: int | None
    n_answers: int = 1
    calling: bool = False
    ended: bool = False
    _n_tokens: int = 0
    _begun: bool = False

    def feed(self, events: bytes) -> bytes:
        """What of these whole events passes."""
        if self.most_tokens is None or not events:
            return events
        most = self.most_tokens * self.n_answers + self.n_answers - 1 + _SPARE * self.calling
        n_events = events.count(b"\n\n")
        if self._begun and self._n_tokens + n_events <= most:
            if b'""' in events or b"{}" in events or b"[]" in events:
                n_events = max(0, n_events - sum(map(events.count, _SILENT)))
            self._n_tokens += n_events
            return events
        passed: list[bytes] = []
        for event in events.split(b"\n\n")[:-1]:
            if self._n_tokens < most and _tells(event):
                self._begun = True
                self._n_tokens += 1
            elif (document := _saying(event)) is not None:
                self._begun = True
                self._n_tokens += 1
                if self._n_tokens > most:
                    self.ended = True
                    return b"".join((*passed, _cut_short(document), DONE))
            passed.append(event + b"\n\n")
        return events


def _tells(event: bytes) -> bool:
    """Whether an event says something, as far as that is seen without parsing it."""
    return any(map(event.__contains__, _TELLING)) and not any(map(event.__contains__, _SILENT))


def _saying(event: bytes) -> dict[str, Any] | None:
    """The document of an event that says something; ``None`` where it does not."""
    try:
        document = orjson.loads(event[5:])
    except ValueError:
        return None
    choices = document.get("choices") if isinstance(document, dict) else None
    for choice in choices if isinstance(choices, list) else []:
        delta = choice.get("delta") if isinstance(choice, dict) else None
        if isinstance(delta, dict) and any(v for k, v in delta.items() if k != "role"):
            return dict(document)
    return None


def _cut_short(document: dict[str, Any]) -> bytes:
    """The event that says of the answers in another one that they end here."""
    index = {choice.get("index", 0) for choice in document["choices"] if isinstance(choice, dict)}
    choices = [{"index": n, "delta": {}, "finish_reason": "length"} for n in sorted(index, key=str)]
    kept = {k: v for k, v in document.items() if k in ("id", "object", "created", "model")}
    return b"data: " + json.dumps(kept | {"choices": choices}).encode() + b"\n\n"

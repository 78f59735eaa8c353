"""A streamed chat completion put together to the document that a whole answer would have been."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

_TEXTS = ("content", "reasoning_content", "refusal")
_MOST = 128  # choices of an answer, and calls of tools; whoever numbers more is not believed


@dataclass(slots=True)
class Assembly:
    """Collects the events of one stream.

    ``ended`` is true once the end mark ``[DONE]`` has come.
    """

    ended: bool = False
    _rest: bytes = b""
    _head: dict[str, Any] = field(default_factory=dict)
    _choices: dict[int, dict[str, Any]] = field(default_factory=dict)

    def feed(self, piece: bytes) -> int:
        """Take the next bytes of the stream; returns how many events with choices they ended.

        Events that are not JSON objects are passed over, and so is what choices should not hold.
        """
        *lines, self._rest = (self._rest + piece).split(b"\n")
        return sum(self._take(line.strip()) for line in lines)

    @property
    def text(self) -> str:
        """What the first of the answers says so far."""
        content = self._choices[0]["message"]["content"] if 0 in self._choices else None
        return content or ""

    def document(self) -> bytes:
        """The chat completion so far, as JSON."""
        choices = [self._choices[index] for index in sorted(self._choices)]
        head = self._head | {"object": "chat.completion", "choices": choices}
        return json.dumps(head).encode()

    def _take(self, line: bytes) -> bool:
        if not line.startswith(b"data:"):
            return False
        data = line[5:].strip()
        if data == b"[DONE]":
            self.ended = True
            return False
        try:
            event = json.loads(data)
        except (ValueError, RecursionError):
            return False
        if not isinstance(event, dict):
            return False
        choices = _objects(event.pop("choices", None))
        self._head |= {name: value for name, value in event.items() if value is not None}
        for choice in choices:
            self._merge(choice)
        return bool(choices)

    def _merge(self, change: dict[str, Any]) -> None:
        index = _number(change)
        empty = {"index": index, "message": {"role": "assistant", "content": ""}}
        choice = self._choices.setdefault(index, empty | {"finish_reason": None})
        message, delta = choice["message"], _object(change.get("delta"))
        for name in _TEXTS:
            said = delta.get(name)
            if said and isinstance(said, str):
                message[name] = (message.get(name) or "") + said
        for call in _objects(delta.get("tool_calls")):
            _merge_call(message.setdefault("tool_calls", []), call)
        if logprobs := _object(change.get("logprobs")):
            kept = choice.setdefault("logprobs", {"content": []})
            kept["content"] += _objects(logprobs.get("content"))
        choice["finish_reason"] = change.get("finish_reason") or choice["finish_reason"]


def _merge_call(calls: list[dict[str, Any]], change: dict[str, Any]) -> None:
    """Add one piece of a tool call; its arguments come in fragments."""
    index = _number(change)
    while len(calls) <= index:
        calls.append({"type": "function", "function": {"name": "", "arguments": ""}})
    call, function = calls[index], _object(change.get("function"))
    if change.get("id"):
        call["id"] = change["id"]
    for name in ("name", "arguments"):
        said = function.get(name)
        call["function"][name] += said if isinstance(said, str) else ""


def _number(change: dict[str, Any]) -> int:
    """Which choice or call a change is of; the first where it does not say."""
    index = change.get("index")
    return index if isinstance(index, int) and 0 <= index < _MOST else 0


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _objects(value: Any) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []

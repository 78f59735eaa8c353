"""A streamed chat completion put together to the document that a whole answer would have been."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

_TEXTS = ("content", "reasoning_content", "refusal")


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

        Events that are not JSON objects are passed over, and choices and texts that are none.
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
        except ValueError:
            return False
        if not isinstance(event, dict):
            return False
        given = event.pop("choices", None)
        choices = [one for one in given if isinstance(one, dict)] if isinstance(given, list) else []
        self._head |= {name: value for name, value in event.items() if value is not None}
        for choice in choices:
            self._merge(choice)
        return bool(choices)

    def _merge(self, change: dict[str, Any]) -> None:
        index = change.get("index") or 0
        empty = {"index": index, "message": {"role": "assistant", "content": ""}}
        choice = self._choices.setdefault(index, empty | {"finish_reason": None})
        message, delta = choice["message"], change.get("delta")
        delta = delta if isinstance(delta, dict) else {}
        for name in _TEXTS:
            said = delta.get(name)
            if said and isinstance(said, str):
                message[name] = (message.get(name) or "") + said
        for call in delta.get("tool_calls") or []:
            _merge_call(message.setdefault("tool_calls", []), call)
        if logprobs := change.get("logprobs"):
            kept = choice.setdefault("logprobs", {"content": []})
            kept["content"] += logprobs.get("content") or []
        choice["finish_reason"] = change.get("finish_reason") or choice["finish_reason"]


def _merge_call(calls: list[dict[str, Any]], change: dict[str, Any]) -> None:
    """Add one piece of a tool call; its arguments come in fragments."""
    index = change.get("index", 0)
    while len(calls) <= index:
        calls.append({"type": "function", "function": {"name": "", "arguments": ""}})
    call, function = calls[index], change.get("function") or {}
    if change.get("id"):
        call["id"] = change["id"]
    call["function"]["name"] += function.get("name") or ""
    call["function"]["arguments"] += function.get("arguments") or ""

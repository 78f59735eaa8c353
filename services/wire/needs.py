"""What an expert must be capable of to answer a body."""

from __future__ import annotations

from coe.capability import Capability
from coe.services.wire.bodies import ChatBody
from coe.services.wire.messages import WireMessage

_OF_PART: dict[str, Capability] = {"image_url": "images", "input_audio": "audio", "file": "files"}


def needs_of(chat: ChatBody) -> dict[Capability, str]:
    """By capability the first field that needs it, in the order of the body's model."""
    found: dict[Capability, str] = {}
    for n, message in enumerate(chat.messages):
        if isinstance(message.content, list):
            for part in sorted(message.parts & _OF_PART.keys()):
                found.setdefault(_OF_PART[part], f"messages[{n}].content")
        if field := _of_tools(message):
            found.setdefault("tools", f"messages[{n}].{field}")
    if chat.tools or chat.functions:
        found["tools"] = "tools" if chat.tools else "functions"
    if chat.response_format is not None and chat.response_format["type"] != "text":
        found[chat.response_format["type"]] = "response_format"
    if chat.audio is not None or "audio" in (chat.modalities or ()):
        found.setdefault("audio", "modalities" if chat.audio is None else "audio")
    if chat.logprobs:
        found["logprobs"] = "logprobs"
    if chat.n is not None and chat.n > 1:
        found["n"] = "n"
    if chat.seed is not None:
        found["seed"] = "seed"
    if chat.stop:
        found["stop"] = "stop"
    return found


def _of_tools(message: WireMessage) -> str:
    """The field of a message that only tools have; "" where it has none."""
    if message.role == "tool":
        return "role"
    return "tool_calls" if message.tool_calls else ""

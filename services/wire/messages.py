"""The messages of a chat request, checked as they come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from coe.core import Message
from coe.services.wire.fields import wrong

MOST_MESSAGES: Final = 1024
MOST_PARTS: Final = 64

# by type of a part: where its content is, and of what kind that is
_PARTS: Final[Mapping[str, tuple[str, type]]] = {
    "text": ("text", str),
    "refusal": ("refusal", str),
    "image_url": ("image_url", dict),
    "input_audio": ("input_audio", dict),
    "file": ("file", dict),
}


def _content(value: Any) -> Any:
    if value is None or isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise wrong("must be text or a list of parts", "invalid_type")
    if not 1 <= len(value) <= MOST_PARTS:
        raise wrong(f"must have 1 to {MOST_PARTS} parts")
    for part in value:
        kind = part.get("type") if isinstance(part, dict) else None
        if not isinstance(kind, str) or kind not in _PARTS:
            raise wrong(f"a part must be an object of type {', '.join(_PARTS)}")
        name, of = _PARTS[kind]
        if not isinstance(part.get(name), of):
            raise wrong(f"a part of type {kind} must have its {name}")
    return value


_CONTENT_SCHEMA = {
    "anyOf": [
        {"type": "string"},
        {
            "type": "array",
            "minItems": 1,
            "maxItems": MOST_PARTS,
            "items": {
                "oneOf": [
                    {
                        "type": "object",
                        "properties": {
                            "type": {"const": kind},
                            name: {"type": "string" if of is str else "object"},
                        },
                        "required": ["type", name],
                    }
                    for kind, (name, of) in _PARTS.items()
                ]
            },
        },
        {"type": "null"},
    ]
}


class ToolCall(BaseModel):
    """A call of a tool in an earlier answer; its arguments are text, whatever they hold."""

    model_config = ConfigDict(strict=True, extra="allow")

    id: str


class WireMessage(BaseModel):
    """One message; what is not named here goes along as it is."""

    model_config = ConfigDict(strict=True, extra="allow")

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Annotated[Any, AfterValidator(_content), WithJsonSchema(_CONTENT_SCHEMA)] = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None

    def as_message(self) -> Message:
        """The noun that a router reads."""
        return Message(self.role, self.text)

    @property
    def text(self) -> str:
        """Its parts of text, a line each."""
        if isinstance(self.content, list):
            texts = [part["text"] for part in self.content if part["type"] == "text"]
            return "\n".join(text for text in texts if text)
        return self.content or ""

    @property
    def parts(self) -> frozenset[str]:
        """Types of the parts of its content; none where that is text."""
        content = self.content if isinstance(self.content, list) else []
        return frozenset(part["type"] for part in content)


def check_conversation(messages: Sequence[WireMessage]) -> None:
    """Refuse messages that do not make a conversation, each at its own field."""
    called: set[str] = set()
    for n, message in enumerate(messages):
        if message.content is None and message.role not in ("assistant", "function"):
            raise wrong("is missing", "invalid_type", f"messages[{n}].content")
        if message.role == "tool" and message.tool_call_id not in called:
            raise wrong(
                "must name a call in tool_calls of an earlier message",
                at=f"messages[{n}].tool_call_id",
            )
        if message.tool_calls:
            called |= {call.id for call in message.tool_calls}
    asked = [(n, one) for n, one in enumerate(messages) if one.role == "user"]
    if not asked:
        raise wrong("there is no message of role 'user'", at="messages")
    if not any(one.text or one.parts - {"text"} for _, one in asked):
        raise wrong("must not be empty", at=f"messages[{asked[0][0]}].content")


def _at_most(value: Any) -> Any:
    if isinstance(value, list) and len(value) > MOST_MESSAGES:
        raise wrong(f"there are more than {MOST_MESSAGES}", "array_above_max_length")
    return value


Messages = Annotated[
    list[WireMessage],
    Field(min_length=1, json_schema_extra={"maxItems": MOST_MESSAGES}),
    BeforeValidator(_at_most),
]

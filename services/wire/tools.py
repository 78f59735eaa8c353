"""The tools and the format of answers that a chat request names, checked as they come."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

from pydantic import AfterValidator, WithJsonSchema

from coe.services.wire.fields import wrong
from coe.services.wire.schemas import wrong_parameters, wrong_schema

MOST_TOOLS: Final = 128

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


def _tools(value: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if len(value) > MOST_TOOLS:
        raise wrong(f"there are more than {MOST_TOOLS}")
    functions = []
    for n, tool in enumerate(value):
        if tool.get("type") not in ("function", "custom"):
            raise wrong("a tool must be of type function or custom")
        function = tool.get(tool["type"])
        if not isinstance(function, dict):
            raise wrong(f"a tool of type {tool['type']} must have its {tool['type']}")
        _check_parameters(function, f"[{n}].{tool['type']}.parameters")
        functions.append(function)
    _check_names(functions)
    return value


def _functions(value: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if len(value) > MOST_TOOLS:
        raise wrong(f"there are more than {MOST_TOOLS}")
    for n, function in enumerate(value):
        _check_parameters(function, f"[{n}].parameters")
    _check_names(value)
    return value


def _check_names(functions: Sequence[Mapping[str, Any]]) -> None:
    names = [function.get("name") for function in functions]
    if not all(isinstance(name, str) and _NAME.fullmatch(name) for name in names):
        raise wrong("a name must be 1 to 64 letters, digits, _ or -")
    if len({*names}) < len(names):
        raise wrong("two have the same name")


def _check_parameters(function: Mapping[str, Any], at: str) -> None:
    given = function.get("parameters")
    if given is not None and (reason := wrong_parameters(given)):
        raise wrong(reason, "invalid_schema", at)


_Functions = list[dict[str, Any]]
_FUNCTION_SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"},
        "parameters": {
            "type": "object",
            "properties": {"type": {"const": "object"}},
            "required": ["type"],
        },
    },
    "required": ["name"],
}
_TOOL_SCHEMA = {
    "type": "object",
    "properties": {"type": {"const": "function"}, "function": _FUNCTION_SCHEMA},
    "required": ["type", "function"],
}


def _some(schema: Mapping[str, Any]) -> WithJsonSchema:
    """Up to `MOST_TOOLS` of these, or null."""
    rows = {"type": "array", "maxItems": MOST_TOOLS, "items": schema}
    return WithJsonSchema({"anyOf": [rows, {"type": "null"}]})


Tools = Annotated[_Functions, AfterValidator(_tools)]
Functions = Annotated[_Functions, AfterValidator(_functions)]
ToolsOrNone = Annotated[Tools | None, _some(_TOOL_SCHEMA)]
FunctionsOrNone = Annotated[Functions | None, _some(_FUNCTION_SCHEMA)]


def _format(value: dict[str, Any]) -> dict[str, Any]:
    kind = value.get("type")
    if kind not in ("text", "json_object", "json_schema"):
        raise wrong("type must be text, json_object or json_schema", "invalid_schema")
    if kind == "json_schema":
        given = value.get("json_schema")
        schema = given.get("schema") if isinstance(given, dict) else None
        if reason := wrong_schema(schema):
            raise wrong(reason, "invalid_schema")
    return value


Format = Annotated[dict[str, Any], AfterValidator(_format)]
FormatOrNone = Annotated[
    Format | None,
    WithJsonSchema(
        {
            "anyOf": [
                {
                    "type": "object",
                    "properties": {"type": {"enum": ["text", "json_object"]}},
                    "required": ["type"],
                },
                {
                    "type": "object",
                    "properties": {
                        "type": {"const": "json_schema"},
                        "json_schema": {
                            "type": "object",
                            "properties": {"schema": {"type": "object"}},
                            "required": ["schema"],
                        },
                    },
                    "required": ["type", "json_schema"],
                },
                {"type": "null"},
            ]
        }
    ),
]

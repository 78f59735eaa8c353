"""Fields that bodies have in common: what they may hold, and how a wrong one is complained of."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, Any, Final

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from coe.errors.callers import RequestError
from coe.errors.wording import wording
from coe.services.wire.strict_json import echoed, path_of

# inside these a complaint names the place, of others the field
_DEEP: Final = frozenset({"messages", "coe"})
_SMALL_INTEGER: Final = 10_000_000


class Wire(BaseModel):
    """A part of a body that has these fields and no others, of these very types."""

    model_config = ConfigDict(strict=True, extra="forbid")


def wrong(reason: str, code: str = "invalid_value", at: str = "") -> PydanticCustomError:
    """An error that says ``code`` of the field under validation, or of what is ``at`` in it."""
    return PydanticCustomError("wrong", "{reason}", {"reason": reason, "code": code, "at": at})


def complaint(error: ValidationError) -> RequestError:
    """The first wrong field, as the caller knows it, and no more of what stands there."""
    row = error.errors(include_url=False, include_input=False)[0]
    said, loc = row.get("ctx", {}), tuple(row["loc"])
    at = said.get("at", "") if row["type"] == "wrong" else ""
    place = path_of(loc if loc and loc[0] in _DEEP else loc[:1]) + at
    message = wording(row)
    if row["type"] == "missing" and len(loc) == 1:
        code = "missing_required_parameter"
    elif row["type"] == "extra_forbidden":
        code = "unknown_parameter"
    else:
        code = said.get("code", "invalid_value")
    return RequestError(f"{place}: {message}", place, code)


def or_else(lists: str) -> Callable[[Any, ValidatorFunctionWrapHandler], Any]:
    """A validator around a field that is a text or a list of some, and one complaint of both."""

    def checked(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        try:
            return handler(value)
        except ValidationError as error:
            raise wrong(f"must be a text that is not empty, or {lists}") from error

    return checked


def _texts(value: Any) -> Any:
    texts = [value] if isinstance(value, str) else value
    if texts is None:
        return value
    if not isinstance(texts, list) or not 1 <= len(texts) <= 4:
        raise wrong("must be a text or a list of 1 to 4")
    if not all(isinstance(text, str) and 1 <= len(text) <= 256 for text in texts):
        raise wrong("a text must have 1 to 256 characters")
    return value


def _pairs(value: Any) -> Any:
    if value is None:
        return value
    if not isinstance(value, dict) or len(value) > 16:
        raise wrong("must be an object of at most 16 pairs")
    for name, text in value.items():
        if len(name) > 64 or not isinstance(text, str) or len(text) > 512:
            raise wrong("a key must have at most 64 characters, and a value be a text of 512")
    return value


def _nullable(*schemas: dict[str, Any]) -> WithJsonSchema:
    return WithJsonSchema({"anyOf": [*schemas, {"type": "null"}]})


_STOP_TEXT = {"type": "string", "minLength": 1, "maxLength": 256}

Stop = Annotated[
    Any,
    AfterValidator(_texts),
    _nullable(_STOP_TEXT, {"type": "array", "items": _STOP_TEXT, "minItems": 1, "maxItems": 4}),
]
Metadata = Annotated[
    Any,
    AfterValidator(_pairs),
    _nullable(
        {
            "type": "object",
            "maxProperties": 16,
            "propertyNames": {"maxLength": 64},
            "additionalProperties": {"type": "string", "maxLength": 512},
        }
    ),
]
Positive = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=_SMALL_INTEGER)]
Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
Temperature = Annotated[float, Field(ge=0, le=2)]
Share = Annotated[float, Field(ge=0, le=1)]
Caller = Annotated[str, Field(max_length=256)]
ModelName = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[!-~]+$")]
Bias = Annotated[dict[str, Annotated[float, Field(ge=-100, le=100)]], Field(max_length=1024)]


def unknown(names: Iterable[str], unsupported: frozenset[str]) -> RequestError:
    """What is said of fields that nobody takes, of the first of them."""
    name = next(iter(names))
    if name in unsupported:
        return RequestError(f"{name} is not supported here", name, "unsupported_parameter")
    shown = echoed(name)
    return RequestError(
        f"{shown}: there is no such field, and no expert takes it", shown, "unknown_parameter"
    )

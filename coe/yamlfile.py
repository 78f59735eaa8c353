"""A YAML file checked against a pydantic model; an error names file, line, field and value."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from coe.errors.files import ConfigError

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,99}$")]
Url = Annotated[str, Field(pattern=r"^https?://[^\s]+$")]


class Section(BaseModel):
    """A mapping of fields: frozen, and none beside those that are listed."""

    model_config = ConfigDict(extra="forbid", frozen=True)


# libyaml reads ten times as fast; PyYAML may be built without it
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_S = TypeVar("_S", bound=Section)


def wrong_field(message: str, at: tuple[str | int, ...]) -> PydanticCustomError:
    """What a validator of a whole section raises of one field in it, whose path is ``at``."""
    return PydanticCustomError("wrong_field", "{message}", {"message": message, "at": at})


def read_yaml(path: Path, section: type[_S], context: Any = None) -> _S:
    """What a YAML file says, checked against a pydantic model.

    Parameters
    ----------
    context : what validators of the model get to know beside the file.

    Raises
    ------
    ConfigError
        The file is absent, not YAML, not a mapping, repeats a key, or a field is wrong; every wrong
        field is named with its line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    try:
        data, tree = yaml.load(text, _LOADER), yaml.compose(text, _LOADER)  # noqa: S506
    except (yaml.YAMLError, ValueError) as error:  # ValueError: such as an impossible date
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: must hold a mapping of sections, not {type(data).__name__}")
    lines = _lines(tree, path)
    try:
        return section.model_validate(data, context=context)
    except ValidationError as error:
        raise ConfigError(_complaint(path, error, lines)) from error


def _lines(node: Any, path: Path, at: tuple[str | int, ...] = ()) -> dict[tuple[Any, ...], int]:
    """Line number of every field, by its path; a repeated key is refused."""
    found = {at: node.start_mark.line + 1}
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*at, key.value)
            if here in found:
                line = key.start_mark.line + 1
                raise ConfigError(f"{path}:{line}: key {key.value!r} appears twice: keep one")
            found |= _lines(value, path, here) | {here: key.start_mark.line + 1}
    elif isinstance(node, yaml.SequenceNode):
        for k, value in enumerate(node.value):
            found |= _lines(value, path, (*at, k))
    return found


def _complaint(path: Path, error: ValidationError, lines: Mapping[tuple[Any, ...], int]) -> str:
    """One line per wrong field: file, line, field, value, what would be right."""
    complaints = []
    for row in error.errors(include_url=False):
        loc = _in_file((*row["loc"], *row.get("ctx", {}).get("at", ())), lines)
        known = next((loc[:n] for n in range(len(loc), -1, -1) if loc[:n] in lines), ())
        field = ".".join(str(part) for part in loc) or "(whole file)"
        value = row["input"]
        got = "" if isinstance(value, dict | list | BaseModel) else f", not {value!r}"
        message = row["msg"].removeprefix("Value error, ")
        complaints.append(f"{path}:{lines[known]}: {field}: {message}{got}")
    return "\n".join(complaints)


def _in_file(
    loc: tuple[int | str, ...], lines: Mapping[tuple[Any, ...], int]
) -> tuple[int | str, ...]:
    """The path of a field without the tags of unions, which pydantic adds: no file has them."""
    found: tuple[int | str, ...] = ()
    for part in loc[:-1]:
        if (*found, part) in lines:
            found = (*found, part)
    return (*found, *loc[-1:])

"""A YAML file checked against a pydantic model; an error names file, line, field and value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from coe.errors.files import ConfigError
from coe.errors.wording import tag_of, wording

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


def read_yaml(
    path: Path,
    section: type[_S],
    context: Any = None,
    never_blank: Sequence[tuple[str, ...]] = (),
) -> _S:
    """What a YAML file says, checked against a pydantic model.

    Parameters
    ----------
    context : what validators of the model get to know beside the file.
    never_blank : sections, by their paths, that are refused where nothing stands behind their name.

    Raises
    ------
    ConfigError
        The file is absent, not YAML, not a mapping, repeats a key, or a field is wrong; every wrong
        field is named with its line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: cannot be read: it is no text in UTF-8") from error
    try:
        data, tree = yaml.load(text, _LOADER), yaml.compose(text, _LOADER)  # noqa: S506
    except (yaml.YAMLError, ValueError) as error:  # ValueError: such as an impossible date
        raise ConfigError(_broken(path, error)) from error
    if not isinstance(data, dict):
        got = "nothing" if data is None else repr(data)[:40]
        raise ConfigError(f"{path}: must hold a mapping of sections, not {got}")
    lines = _lines(tree, path)
    for at in never_blank:
        if at in lines and _value(data, at) is None:
            raise ConfigError(
                f"{path}:{lines[at]}: {'.'.join(at)}: is blank, which switches nothing on: "
                "write {} or fields behind it, or leave it out"
            )
    try:
        return section.model_validate(data, context=context)
    except ValidationError as error:
        raise ConfigError(_complaint(path, section, error, lines)) from error


def _value(data: Any, at: tuple[str, ...]) -> Any:
    for name in at:
        data = data[name]
    return data


def _broken(path: Path, error: yaml.YAMLError | ValueError) -> str:
    """Where a file is no YAML, and why."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return f"{path}: not YAML: {' '.join(str(error).split())}"
    at, since = error.problem_mark, error.context_mark
    begun = f", {error.context} that begins on line {since.line + 1}" if since else ""
    return f"{path}:{at.line + 1}: not YAML: {error.problem} (column {at.column + 1}){begun}"


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


def _complaint(
    path: Path,
    section: type[Section],
    error: ValidationError,
    lines: Mapping[tuple[Any, ...], int],
) -> str:
    """One line per wrong field: file, line, field, value, what would be right."""
    complaints = []
    for row in error.errors(include_url=False):
        loc = _in_file((*row["loc"], *row.get("ctx", {}).get("at", ()), *tag_of(row)), lines)
        known = next((loc[:n] for n in range(len(loc), -1, -1) if loc[:n] in lines), ())
        field = ".".join(str(part) for part in loc) or "(whole file)"
        complaints.append(f"{path}:{lines[known]}: {field}: {_said(row, section)}")
    return "\n".join(complaints)


def _said(row: Any, section: type[Section]) -> str:
    """What is wrong with a field, and what stands there."""
    kind, value, said = row["type"], row["input"], wording(row)
    if kind == "extra_forbidden":
        return said + _meant(section, row["loc"])
    if kind == "union_tag_invalid":
        return f"{said}, not {row['ctx']['tag']!r}"
    if isinstance(value, dict | BaseModel) or (isinstance(value, list) and "_type" not in kind):
        return said
    return f"{said}, not {value!r}"


def _meant(section: type[BaseModel], loc: tuple[int | str, ...]) -> str:
    """Which field may have been meant by an unknown one; "" where none is like it."""
    sections = [section]
    for part in loc[:-1]:
        sections = _inner(sections, part)
    known = {name for one in sections for name in one.model_fields}
    near = get_close_matches(str(loc[-1]), sorted(known), 1)
    return f": is {near[0]} meant?" if near else ""


def _inner(sections: list[type[BaseModel]], part: int | str) -> list[type[BaseModel]]:
    """The sections in a field; or of several those of a tag; a place in a list tells nothing."""
    inner = [s.model_fields[part].annotation for s in sections if part in s.model_fields]
    found = [one for annotation in inner for one in _sections(annotation)]
    kinds = [(s, s.model_fields.get("kind")) for s in sections]
    tagged = [s for s, kind in kinds if kind is not None and part in get_args(kind.annotation)]
    return found or tagged or sections


def _sections(annotation: Any) -> Iterator[type[BaseModel]]:
    """The sections that an annotation mentions, however deep."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _sections(argument)


def _in_file(
    loc: tuple[int | str, ...], lines: Mapping[tuple[Any, ...], int]
) -> tuple[int | str, ...]:
    """The path of a field without the tags of unions, which pydantic adds: no file has them."""
    found: tuple[int | str, ...] = ()
    for part in loc[:-1]:
        if (*found, part) in lines:
            found = (*found, part)
    return (*found, *loc[-1:])

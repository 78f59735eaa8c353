"""What is said of a wrong value, to people who know neither pydantic nor our classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_WORDS: Final = {
    "missing": "is missing",
    "extra_forbidden": "there is no such field",
    "model_type": "must be a mapping of fields",
    "model_attributes_type": "must be a mapping of fields",
    "dict_type": "must be a mapping",
    "int_parsing": "Input should be a valid integer",
    "float_parsing": "Input should be a valid number",
    "bool_parsing": "Input should be true or false",
    "too_short": "must hold at least {min_length}",
    "too_long": "must hold at most {max_length}",
    "union_tag_not_found": "is missing",
    "union_tag_invalid": "must be one of {expected_tags}",
}


def wording(row: ErrorDetails) -> str:
    """What is wrong with a value, without its name, and without the value itself."""
    words = _WORDS.get(row["type"])
    if words is None:
        return row["msg"].removeprefix("Value error, ")
    return words.format(**row.get("ctx", {}))


def tag_of(row: ErrorDetails) -> tuple[str, ...]:
    """The field that says which of several sections this is, where that is what is wrong."""
    if row["type"] not in ("union_tag_not_found", "union_tag_invalid"):
        return ()
    return (row["ctx"]["discriminator"].strip("'"),)

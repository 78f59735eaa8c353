"""Scores of answers by checks that need no judge: numbers, words, choices, JSON, regexes, style.

A check is data (one JSON object per prompt); `parse_check` turns it into one of the frozen
dataclasses below and `score` applies it. Everything here is pure: the two kinds that execute an
answer, ``python_tests`` and ``sql_rows``, are only parsed here and run in
``coe.services.sandbox``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

from pydantic import ConfigDict, Field, JsonValue, TypeAdapter, ValidationError

from coe.errors.files import OutcomesError
from coe.routers.answers import (
    chosen_letter,
    first_json_object,
    first_regex,
    first_stand,
    has_each,
    last_number,
    normalise,
    position_of,
    statements,
)

MAX_ANSWER_CHARS = 20_000
# With `answers.is_tame`, keeps the slowest admitted expression to about a second per subject.
MAX_SUBJECT_CHARS = 24

_FORBID_UNKNOWN = ConfigDict(extra="forbid")

Text: TypeAlias = Annotated[str, Field(strict=True, min_length=1)]
Texts: TypeAlias = Annotated[tuple[Text, ...], Field(min_length=1)]
Subject: TypeAlias = Annotated[str, Field(strict=True, max_length=MAX_SUBJECT_CHARS)]
Real: TypeAlias = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Count: TypeAlias = Annotated[int, Field(strict=True, ge=0)]
Limit: TypeAlias = Annotated[int, Field(strict=True, ge=1)]
Flag: TypeAlias = Annotated[bool, Field(strict=True)]
Cell: TypeAlias = (
    Annotated[str, Field(strict=True)] | Annotated[int, Field(strict=True)] | Real | None
)


@dataclass(frozen=True, slots=True)
class NumberCheck:
    r"""The last number of the answer (of its last ``\boxed{}``, if any) is ``value``.

    ``tolerance`` is absolute. Thousands commas, currency signs, fractions, mixed numbers, LaTeX and
    bold marks are understood; ``50%`` reads as 50 and as 0.5.
    """

    __pydantic_config__ = _FORBID_UNKNOWN
    value: Real
    tolerance: Annotated[Real, Field(ge=0)] = 1e-6
    kind: Literal["number"] = "number"


@dataclass(frozen=True, slots=True)
class ContainsAllCheck:
    """Every item occurs as whole words, without regard to case, accents and punctuation.

    An item that is a list is met by any of its alternatives. None of ``excludes`` may occur, and
    the answer may have at most ``max_words`` words (an echo of the prompt is no extraction).
    """

    __pydantic_config__ = _FORBID_UNKNOWN
    items: Annotated[tuple[Text | Texts, ...], Field(min_length=1)]
    excludes: tuple[Text, ...] = ()
    max_words: Limit | None = None
    kind: Literal["contains_all"] = "contains_all"


@dataclass(frozen=True, slots=True)
class ContainsAnyCheck:
    """At least one item occurs; otherwise as `ContainsAllCheck`."""

    __pydantic_config__ = _FORBID_UNKNOWN
    items: Texts
    excludes: tuple[Text, ...] = ()
    max_words: Limit | None = None
    kind: Literal["contains_any"] = "contains_any"


@dataclass(frozen=True, slots=True)
class LabelCheck:
    """The first of all labels that the answer takes a stand with is in ``accept``.

    Repeating the choice, as in ``positive or negative``, is no stand.
    """

    __pydantic_config__ = _FORBID_UNKNOWN
    accept: Texts
    reject: Texts
    kind: Literal["label"] = "label"


@dataclass(frozen=True, slots=True)
class ChoiceCheck:
    """The answer names option ``letter``; or no letter, and of the option texts only that one."""

    __pydantic_config__ = _FORBID_UNKNOWN
    letter: Annotated[str, Field(strict=True, pattern="^[A-H]$")]
    options: Annotated[tuple[Text, ...], Field(min_length=2, max_length=8)]
    kind: Literal["choice"] = "choice"

    def __post_init__(self) -> None:
        if ord(self.letter) - ord("A") >= len(self.options):
            raise ValueError(f"letter {self.letter} names none of {len(self.options)} options")


@dataclass(frozen=True, slots=True)
class TextCheck:
    """The answer, one of its lines, or a quoted, bold or code span of it equals an accepted text.

    Case, accents and punctuation are ignored; with ``exact`` only white space is.
    """

    __pydantic_config__ = _FORBID_UNKNOWN
    accept: Texts
    exact: Flag = False
    kind: Literal["text"] = "text"


@dataclass(frozen=True, slots=True)
class JsonEqualsCheck:
    """The first JSON object of the answer has these keys with these values; more keys may follow.

    Keys and strings compare as in `ContainsAllCheck`; a number may be written as a string.
    """

    __pydantic_config__ = _FORBID_UNKNOWN
    expected: Annotated[dict[str, JsonValue], Field(min_length=1)]
    kind: Literal["json_equals"] = "json_equals"


@dataclass(frozen=True, slots=True)
class RegexTestsCheck:
    """The regular expression in the answer matches these subjects and not those.

    A pattern that could backtrack for long is refused and scores 0: see
    ``coe.routers.answers.is_tame``.
    """

    __pydantic_config__ = _FORBID_UNKNOWN
    must_match: Annotated[tuple[Subject, ...], Field(min_length=1)]
    must_not_match: Annotated[tuple[Subject, ...], Field(min_length=1)]
    mode: Literal["fullmatch", "search"] = "fullmatch"
    kind: Literal["regex_tests"] = "regex_tests"


@dataclass(frozen=True, slots=True)
class StyleCheck:
    """Length, wording, last character and freedom from loops of a free text.

    ``max_words`` and ``max_lines`` of ``None`` mean unbounded; only non-blank lines count.
    ``distinct_4grams`` is the least share of four-word runs that differ from each other; an answer
    under four words has share 1.
    """

    __pydantic_config__ = _FORBID_UNKNOWN
    min_words: Count = 1
    max_words: Limit | None = None
    min_lines: Count = 0
    max_lines: Limit | None = None
    must_contain_all: tuple[Text | Texts, ...] = ()
    must_contain_any: tuple[Text, ...] = ()
    must_not_contain: tuple[Text, ...] = ()
    ends_with: tuple[Text, ...] = ()
    distinct_4grams: Annotated[Real, Field(ge=0, le=1)] = 0.0
    kind: Literal["style"] = "style"


@dataclass(frozen=True, slots=True)
class PythonTestsCheck:
    """The Python code of the answer passes every statement of ``tests``; run by the sandbox."""

    __pydantic_config__ = _FORBID_UNKNOWN
    tests: Texts
    kind: Literal["python_tests"] = "python_tests"


@dataclass(frozen=True, slots=True)
class SqlRowsCheck:
    """The query of the answer, run after ``setup``, returns ``rows``; run by the sandbox.

    Column names are ignored, and so is the row order unless ``ordered``.
    """

    __pydantic_config__ = _FORBID_UNKNOWN
    setup: Texts
    rows: tuple[tuple[Cell, ...], ...]
    ordered: Flag = False
    kind: Literal["sql_rows"] = "sql_rows"


Check: TypeAlias = (
    NumberCheck
    | ContainsAllCheck
    | ContainsAnyCheck
    | LabelCheck
    | ChoiceCheck
    | TextCheck
    | JsonEqualsCheck
    | RegexTestsCheck
    | StyleCheck
    | PythonTestsCheck
    | SqlRowsCheck
)

_ADAPTER: TypeAdapter[Check] = TypeAdapter(Annotated[Check, Field(discriminator="kind")])


def parse_check(mapping: Mapping[str, object]) -> Check:
    """Return the check that ``mapping`` describes, such as ``{"kind": "number", "value": 72}``.

    Raises
    ------
    OutcomesError
        On an unknown kind, an unknown or missing field, or a value of the wrong type or range;
        the message names the field.
    """
    try:
        return _ADAPTER.validate_python(dict(mapping))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        # loc opens with the union tag, so a field of the check starts at its second place.
        field = ".".join(str(part) for part in first["loc"][1:]) or "kind"
        raise OutcomesError(f"check field {field!r}: {first['msg']}") from error


def score(answer: str, check: Check) -> float:
    """Score of ``answer`` under ``check``: 1.0 if it holds, else 0.0; a blank answer scores 0.0.

    Only the first ``MAX_ANSWER_CHARS`` characters are read. Time is linear in the answer, except
    for `RegexTestsCheck`, which is bounded by pattern and subject length.

    Raises
    ------
    OutcomesError
        If the check must execute the answer: use ``coe.services.sandbox.score_answer``.
    """
    text = answer[:MAX_ANSWER_CHARS]
    match check:
        case PythonTestsCheck() | SqlRowsCheck():
            raise OutcomesError(
                f"a {check.kind!r} check executes the answer: score it with "
                "coe.services.sandbox.score_answer"
            )
        case NumberCheck():
            passed = _holds_number(text, check.value, check.tolerance)
        case ContainsAllCheck():
            passed = _contains(text, check.items, check)
        case ContainsAnyCheck():
            passed = _contains(text, (check.items,), check)
        case LabelCheck():
            passed = _holds_label(text, check)
        case ChoiceCheck():
            passed = chosen_letter(text, check.options) == check.letter
        case TextCheck():
            passed = _holds_text(text, check)
        case JsonEqualsCheck():
            passed = _same_json(first_json_object(text), check.expected)
        case RegexTestsCheck():
            passed = _holds_regex(text, check)
        case StyleCheck():
            passed = _holds_style(text, check)
    return float(passed and bool(text.strip()))


def _contains(
    text: str, items: Iterable[str | Sequence[str]], check: ContainsAllCheck | ContainsAnyCheck
) -> bool:
    words = normalise(text)
    if check.max_words is not None and len(words.split()) > check.max_words:
        return False
    return has_each(words, items) and not any(position_of(words, e) >= 0 for e in check.excludes)


def _holds_label(text: str, check: LabelCheck) -> bool:
    stand = first_stand(text, check.accept, check.reject)
    return stand is not None and stand in map(normalise, check.accept)


def _holds_number(text: str, value: float, tolerance: float) -> bool:
    return any(abs(reading - value) <= tolerance for reading in last_number(text))


def _holds_text(text: str, check: TextCheck) -> bool:
    def key(part: str) -> str:
        return "".join(part.split()) if check.exact else normalise(part)

    found = {key(part) for part in statements(text)}
    return any(key(accepted) in found - {""} for accepted in check.accept)


def _same_json(found: JsonValue, expected: JsonValue) -> bool:
    if isinstance(expected, dict):
        if not isinstance(found, dict):
            return False
        values = {normalise(key): value for key, value in found.items()}
        return all(
            normalise(key) in values and _same_json(values[normalise(key)], value)
            for key, value in expected.items()
        )
    if isinstance(expected, list):
        return (
            isinstance(found, list)
            and len(found) == len(expected)
            and all(_same_json(f, e) for f, e in zip(found, expected, strict=True))
        )
    if isinstance(expected, str):
        return isinstance(found, str | int | float) and normalise(str(found)) == normalise(expected)
    if isinstance(expected, bool) or expected is None:
        return found is expected
    if isinstance(found, str):
        return _holds_number(found, expected, 1e-6)
    return not isinstance(found, bool) and found == expected


def _holds_regex(text: str, check: RegexTestsCheck) -> bool:
    pattern = first_regex(text)
    if pattern is None:
        return False
    matches = pattern.fullmatch if check.mode == "fullmatch" else pattern.search
    return all(map(matches, check.must_match)) and not any(map(matches, check.must_not_match))


def _holds_style(text: str, check: StyleCheck) -> bool:
    words = normalise(text)
    n_words = len(text.split())
    lines = [line for line in text.splitlines() if line.strip()]
    parts = words.split()
    grams = list(zip(parts, parts[1:], parts[2:], parts[3:], strict=False))
    share = len(set(grams)) / len(grams) if grams else 1.0
    return (
        check.min_words <= n_words <= (check.max_words or n_words)
        and check.min_lines <= len(lines) <= (check.max_lines or len(lines))
        and has_each(words, check.must_contain_all)
        and (not check.must_contain_any or has_each(words, (check.must_contain_any,)))
        and not any(position_of(words, phrase) >= 0 for phrase in check.must_not_contain)
        and (not check.ends_with or text.rstrip(" \n\t\"'*”").endswith(check.ends_with))
        and share >= check.distinct_4grams
    )

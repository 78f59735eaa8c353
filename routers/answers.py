"""What an answer says: its words, last number, chosen option, JSON object or regular expression.

Pure readings of the text of a small expert, which may wrap a right answer in Markdown, LaTeX or
prose. They find; ``coe.routers.checks`` compares.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
import warnings
from collections.abc import Iterable, Sequence

from pydantic import JsonValue

MAX_PATTERN_CHARS = 200
MAX_REPEAT_DEPTH = 2
MAX_REPEATS = 12
MAX_JSON_STARTS = 64


def normalise(text: str) -> str:
    """Words of ``text`` in lower case, without accents and punctuation, joined by single spaces."""
    spelled = text.casefold().replace("œ", "oe").replace("æ", "ae").replace("ø", "o")
    letters = unicodedata.normalize("NFKD", spelled).casefold()
    plain = "".join(c for c in letters if not unicodedata.combining(c))
    return " ".join(re.findall(r"[^\W_]+", plain))


def position_of(words: str, phrase: str) -> int:
    """First place of ``phrase``, as whole words, in the normalised ``words``; -1 if absent."""
    wanted = normalise(phrase)
    return f" {words} ".find(f" {wanted} ") if wanted else -1


def has_each(words: str, items: Iterable[str | Sequence[str]]) -> bool:
    """Whether each item, or one alternative of an item that is a list, occurs in ``words``."""
    groups = ([item] if isinstance(item, str) else item for item in items)
    return all(any(position_of(words, phrase) >= 0 for phrase in group) for group in groups)


def first_stand(text: str, phrases: Sequence[str], others: Sequence[str]) -> str | None:
    """First of ``phrases`` and ``others``, normalised, that ``text`` takes a stand with.

    ``true or false`` and ``positive, negative or neutral`` only repeat the question: a run of
    labels of both sides, in one sentence with nothing but "or" and "and" between them, is passed
    over, up to a label that the run has named already. ``None`` if there is no stand. The longest
    label wins a tie.
    """
    sides = {normalise(phrase): side for side in (0, 1) for phrase in (phrases, others)[side]}
    sides.pop("", None)
    if not sides:
        return None
    words = " | ".join(normalise(sentence) for sentence in re.split(r"[.!?\n]+", text))
    labels = "|".join(re.escape(label) for label in sorted(sides, key=len, reverse=True))
    runs: list[list[str]] = []
    end = -1
    for found in re.finditer(rf"\b(?:{labels})\b", words):
        linked = words[end : found.start()].strip() in ("", "or", "and")
        if runs and linked and found[0] not in runs[-1]:
            runs[-1].append(found[0])
        else:
            runs.append([found[0]])
        end = found.end()
    return next((run[0] for run in runs if len({sides[label] for label in run}) == 1), None)


_BOXED = re.compile(r"\\boxed\s*\{([^{}]*(?:\{[^{}]*\}[^{}]*)*)\}")
_NUMBER_REWRITES = (
    (re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹]+"), ""),
    (re.compile(r"(?<=\d)(?=[¼½¾⅓⅔])"), " "),
    (re.compile("[\N{MINUS SIGN}\N{EN DASH}]"), "-"),
    (re.compile(r"\\[dt]?frac\s*\{\s*(-?[\d.,]+)\s*\}\s*\{\s*([\d.,]+)\s*\}"), r" \1/\2 "),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"\\[,;:! ]"), ""),
    (re.compile(r"\^\s*(?:\{\s*)?\(?[-+]?\d+\)?\}?"), ""),
    (re.compile(r"-\s?\\?[$€£]\s?"), " -"),
    (re.compile(r"\\[a-zA-Z]+|[\\$€£*`]"), " "),
)
_NUMBER = re.compile(
    r"(?P<sign>(?<![\w)])-)?(?<![\w.])(?P<whole>\d+\s+(?=\d+/\d))?"
    r"(?P<n>\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"
    r"(?:\s?/\s?(?P<d>\d+(?:\.\d+)?))?(?P<percent>\s?%)?"
)


def last_number(text: str) -> tuple[float, ...]:
    r"""Readings of the last number of ``text``, or of its last ``\boxed{}``; empty if it has none.

    Exponents and digits glued to letters (``cm^2``, ``cm2``) are no numbers; ``10-5`` ends in 5 and
    ``3/4`` is 0.75. ``50%`` has two readings, 50 and 0.5. Division by zero reads as NaN.
    """
    boxed = _BOXED.findall(text)
    scope = boxed[-1] if boxed else text
    for pattern, replacement in _NUMBER_REWRITES:
        scope = pattern.sub(replacement, scope)
    scope = unicodedata.normalize("NFKC", scope).replace("\N{FRACTION SLASH}", "/")
    found = list(_NUMBER.finditer(scope))
    if not found:
        return ()
    last = found[-1]
    value = float(last["n"].replace(",", ""))
    if last["d"] is not None:
        divisor = float(last["d"])
        value = value / divisor if divisor else math.nan
    value += float(last["whole"] or 0)
    value = -value if last["sign"] else value
    return (value, value / 100) if last["percent"] else (value,)


_SAID_LETTER = re.compile(
    r"(?i:answer|option|choice)\b[^A-Za-z\n]*(?:(?:is|would be)[^A-Za-z\n]*)?"
    r"([B-H]\b|A\b(?! [a-z]))"
)
_OPENING_LETTER = re.compile(r"^\W*([A-Ha-h])(?:[).:,\]*]|\s*$|\s*\n)")
_MARKED_LETTER = re.compile(r"(?:^|[\s(*])([A-H])[).:*]")


def chosen_letter(text: str, options: Sequence[str]) -> str | None:
    """Letter of the option that ``text`` settles on; ``None`` if it names none or lists them all.

    ``The answer is B`` counts before an opening ``B)``, that before the only marked letter, and
    that before the text of the only option mentioned.
    """
    if said := _SAID_LETTER.search(text):
        return said[1]
    marked = set(_MARKED_LETTER.findall(text))
    opening = _OPENING_LETTER.search(text)
    if opening and len(marked) <= 2:
        return opening[1].upper()
    if len(marked) == 1:
        return str(marked.pop())
    words = normalise(text)
    named = [i for i, option in enumerate(options) if position_of(words, option) >= 0]
    return chr(ord("A") + named[0]) if len(named) == 1 else None


_FENCE_LINE = re.compile(r"^\s*```\w*\s*$", re.M)
_SPANS = re.compile(r"\*\*([^*\n]+)\*\*|`([^`\n]+)`|\"([^\"\n]+)\"|“([^”\n]+)”")


def statements(text: str) -> list[str]:
    """What ``text`` may mean to say alone: all of it, a line, a line's tail after a colon, a span.

    A span is bold, quoted or code; fence marks are dropped.
    """
    bare = _FENCE_LINE.sub("", text)
    lines = bare.splitlines()
    spans = ["".join(groups) for groups in _SPANS.findall(bare)]
    return [bare, *lines, *(line.rpartition(": ")[2] for line in lines), *spans]


def first_json_object(text: str) -> JsonValue:
    """First JSON object of ``text``, fenced or not; ``None`` if there is none."""
    decoder = json.JSONDecoder()
    starts = [found.start() for found in re.finditer(r"\{", text)][:MAX_JSON_STARTS]
    for start in starts:
        try:
            value: JsonValue = decoder.raw_decode(text, start)[0]
        except (ValueError, RecursionError):
            continue
        return value
    return None


_RAW_STRING = re.compile(r"\br('''|\"\"\"|'|\")(.+?)\1")
_CALL_STRING = re.compile(r"\bre\.\w+\(\s*(['\"])(.+?)\1")
_FENCED = re.compile(r"```[\w+-]*[ \t]*\n(.*?)(?:```|\Z)", re.S)
_CODE_SPAN = re.compile(r"`([^`\n]+)`")


def first_regex(text: str) -> re.Pattern[str] | None:
    """First Python string, code or line of ``text`` that is a regular expression; else ``None``.

    ``None`` also if that expression is not tame (`is_tame`): it would be a risk to run.
    """
    strings = [found[2] for found in (*_RAW_STRING.finditer(text), *_CALL_STRING.finditer(text))]
    fenced = [line for block in _FENCED.findall(text) for line in block.splitlines()]
    lines = [line for line in text.splitlines() if line == text.strip() or line.startswith("^")]
    for part in (*strings, *fenced, *_CODE_SPAN.findall(text), *lines):
        pattern = part.strip().strip("\"'")
        if found := re.fullmatch(r"/(.+)/[a-z]*", pattern):
            pattern = found[1]
        if not re.search(r"[\\\[^$+*{.(|]", pattern) or len(pattern) > MAX_PATTERN_CHARS:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "possible nested set": still the pattern it says
            try:
                compiled = re.compile(pattern)
            except (re.error, OverflowError, RecursionError):
                continue
        return compiled if is_tame(pattern) else None
    return None


_REGEX_TOKEN = re.compile(
    r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\((?:\?(?:P?<\w+>|[:=!]|<[=!]))?|\)|\||[*+?]|\{\d*,?\d*\}|.",
    re.S,
)


def is_tame(pattern: str) -> bool:
    """Whether ``pattern`` has few variable repeats, nested at most ``MAX_REPEAT_DEPTH`` deep.

    Two nested repeats split a subject of n characters in at most 2**(n-1) ways, which the length
    limit of a check's subjects keeps to about a second. An alternation in a repeated group counts
    one level per extra branch, for ``(a|a)+`` branches like ``(a+)+``. A fixed repeat such as
    ``{3}`` and a ``?`` count as no level.
    """
    groups: list[list[int]] = [[0, 0]]  # per open group: depth inside, extra branches
    atom_depth = n_repeats = 0
    for token in _REGEX_TOKEN.findall(pattern):
        if token.startswith("("):
            groups.append([0, 0])
        elif token == ")" and len(groups) > 1:
            atom_depth = sum(groups.pop())
            groups[-1][0] = max(groups[-1][0], atom_depth)
        elif token == "|":
            groups[-1][1] += 1
        elif token in "*+" or re.fullmatch(r"\{\d*,\d*\}", token):
            n_repeats += 1
            atom_depth += 1
            groups[-1][0] = max(groups[-1][0], atom_depth)
            if atom_depth > MAX_REPEAT_DEPTH:
                return False
        elif token != "?":
            atom_depth = 0
    return n_repeats <= MAX_REPEATS

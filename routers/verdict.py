r"""What an answer says, as a value that can be compared with what other answers say.

Answers of several experts can be counted once their wordings are gone: ``\frac{3}{4}``, ``0.75``
and ``The answer is 3/4.`` say one thing. Code and longer prose say nothing that can be counted.
The prompt is not looked at: where it asks for a form, the answer has it.
"""

from __future__ import annotations

import ast
import json
import re
import textwrap
import warnings
from dataclasses import dataclass
from typing import Literal

from coe.routers.answers import chosen_letter, first_json_object, last_number, normalise

MAX_ANSWER_CHARS = 20_000
MAX_LITERAL_CHARS = 2_000
MAX_WORDS = 8

Kind = Literal["number", "letter", "data", "text"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an answer says; verdicts are equal where answers say the same.

    Parameters
    ----------
    kind : ``number``; ``letter`` of an option; ``data``, such as a list or a JSON object; ``text``,
        a few words or a formula.
    value : its one spelling, never empty.
    """

    kind: Kind
    value: str


def verdict(answer: str) -> Verdict | None:
    r"""What ``answer`` says; ``None`` where that cannot be told.

    Looked for, in this order: the last JSON field named ``answer`` (the object need not be
    whole, nor its LaTeX escaped); a whole JSON object; the last ``\boxed{}``; what follows the
    last ``answer is`` or ``answer:``; all of it, if it is one line of a few words; the letter of
    an option; the last number of the last line. JSON that ends before its answer says nothing, nor
    does an answer that is mostly programs in Python, marked as such, one of which does not parse.
    Numbers of six equal significant digits are equal; units, currencies and quotes do not count.
    JSON and Python literals are compared as values, formulas without their spaces, words by
    `normalise` unless capitals stand inside them. Only the last ``MAX_ANSWER_CHARS`` characters
    are read, in linear time.
    """
    text = answer[-MAX_ANSWER_CHARS:].strip()
    if not _parses(text):
        return None
    if fields := list(_FIELD.finditer(text)):
        return _field(text, fields[-1].end())
    bare = _FENCE.sub("", text).strip()
    if bare.startswith("{"):
        found = first_json_object(bare)
        return Verdict("data", _spelled(found)) if found else None
    if boxed := _BOXED.findall(text):
        return _said(boxed[-1])
    for tail in reversed(_SAID.findall(bare)):
        short = tail if len(tail.split()) <= MAX_WORDS else _CLAUSE_END.split(tail, maxsplit=1)[0]
        if len(short.split()) <= MAX_WORDS:
            return _said(short)
    if "\n" not in bare and len(bare.split()) <= MAX_WORDS:
        return _said(bare)
    if letter := chosen_letter(bare, ()):
        return Verdict("letter", letter)
    return _number(bare.rpartition("\n")[2])


_PYTHON = re.compile(r"^[ \t]*```(?:python3?|py)[ \t]*\n(.*?)(?:^[ \t]*```|\Z)", re.M | re.S | re.I)


def _parses(text: str) -> bool:
    """Whether all its Python programs, if they are most of it, parse. Nothing is run."""
    programs = _PYTHON.findall(text)
    if 2 * sum(map(len, programs)) <= len(text):
        return True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "invalid escape": a program all the same
            for program in programs:
                ast.parse(textwrap.dedent(program))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return False
    return True


_FENCE = re.compile(r"^[^\S\n]*```\w*[^\S\n]*$", re.M)
_BOXED = re.compile(r"\\boxed\s*\{([^{}]*(?:\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\}[^{}]*)*)\}")
_SAID = re.compile(r"(?i)\banswer\b[*_]*\s*(?:is\b|:)\s*[*_]*\s*:?([^\n]+)")
_CLAUSE_END = re.compile(r"[.;,](?:\s|$)|\s(?:because|since|as|so)\b")
_FIELD = re.compile(r'"answer"\s*:\s*')
# a quote inside the string, escaped or forgotten: what follows is neither comma nor brace
_STRING = re.compile(r'"((?:[^"\\]|\\.|"(?!\s*(?:[,}]|\Z)))*)"', re.S)


def _field(text: str, place: int) -> Verdict | None:
    """The value of a JSON field; escapes in a string are read as LaTeX where they could be."""
    if said := _STRING.match(text, place):
        plain = re.sub(r"\\n(?![a-z])", "\n", said[1].replace('\\"', '"').replace("\\\\", "\\"))
        return _said(plain)
    try:
        value = json.JSONDecoder().raw_decode(text, place)[0]
    except (ValueError, RecursionError):  # neither string nor JSON: what stands on the line
        line = text[place:].partition("\n")[0]
        return _said(line.replace('\\"', '"').rstrip(" ,}"))
    if isinstance(value, dict | list):
        return Verdict("data", _spelled(value))
    return None if value is None else _said(str(value))


def _spelled(value: object) -> str:
    """The one spelling of a value: whatever the order of its keys."""
    if isinstance(value, dict):
        return f"{{{', '.join(sorted(f'{k!r}: {_spelled(v)}' for k, v in value.items()))}}}"
    if isinstance(value, set):
        return f"{{{', '.join(sorted(map(_spelled, value)))}}}"
    if isinstance(value, list | tuple):
        inside = ", ".join(map(_spelled, value))
        return f"[{inside}]" if isinstance(value, list) else f"({inside})"
    return repr(value)


_LETTER = re.compile(r"\W*\b([A-H])\b(?:\s*$|[).:*]+(?:\s.*)?$)", re.S)
_NAMED = re.compile(r"^\s*\\?[$(]?\s*[a-zA-Z]\w?\s*=(?!=)\s*")
_LATEX = re.compile(r"\\(?:left|right|displaystyle|[,;:! ])|\\[()\[\]]|[$\s]")
_WORDS_IN_LATEX = re.compile(r"\\(?:text|mathrm|mbox)\s*\{([^{}]*)\}")
_FRACTIONS = re.compile(r"\\[dt]frac\b|\\frac(?=\d)")
_FORMULA = re.compile(r"[\\^_=+*/<>|()\[\]{}\d]")


def _said(statement: str) -> Verdict | None:
    """A statement that is all answer."""
    text = _WORDS_IN_LATEX.sub(r"\1", statement).strip().rstrip(".").strip("*`_ \n")
    if letter := _LETTER.match(text):
        return Verdict("letter", letter[1])
    value = _literal(text)
    if isinstance(value, dict | list | tuple | set):
        return Verdict("data", _spelled(value))
    if isinstance(value, str):
        text = value.strip() or "''"
    if _is_number(amount := _NAMED.sub("", text)):
        return _number(amount)
    plain = _plain(text)
    return Verdict("text", plain) if plain else None


def _plain(text: str) -> str:
    """Words or a formula in one spelling."""
    if _FORMULA.search(text):
        text = _NAMED.sub("", _FRACTIONS.sub(r"\\frac", text))
        return _LATEX.sub("", text)
    if re.search(r"\w[A-Z]", text):
        return " ".join(text.split())
    return normalise(text) or text


def _literal(text: str) -> object:
    """The value of a Python string in quotes or of a collection; else ``None``."""
    if len(text) > MAX_LITERAL_CHARS or not text.startswith(("'", '"', "[", "(", "{")):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "invalid escape": the string it says all the same
            return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


_UNIT = r"(?!(?:pi|sqrt|hundred|thousand|million|billion|dozen)\b)[A-Za-z]{2,}(?:\^\{?\d\}?)?"
_AMOUNT = re.compile(
    r"\s*(?:(?:\\?\$|[€£])\s*)?(?:-\s*)?(?:(?:\\?\$|[€£])\s*)?"
    r"(?:(?:\d{1,3}(?:(?:,|\{,\}|,?\\!)\d{3})+|\d+)(?:\.\d*)?(?:\s*/\s*\d+(?:\.\d+)?)?|\.\d+"
    r"|\\[dt]?frac\s*\{\s*-?[\d.,]+\s*\}\s*\{\s*[\d.,]+\s*\})"
    r"(?:\s*(?:\\?%|(?:\^\s*)?\{?\\circ\}?|°))?"
    rf"(?:\s+{_UNIT}){{0,4}}(?:\s*\$)?\s*"
)


def _is_number(text: str) -> bool:
    """Whether ``text`` is an amount and nothing else."""
    return len(text) <= MAX_LITERAL_CHARS and _AMOUNT.fullmatch(text.strip("$ ")) is not None


def _number(text: str) -> Verdict | None:
    readings = last_number(text)
    return Verdict("number", f"{readings[0] + 0.0:.6g}") if readings else None

"""Write ``prompts.jsonl``, the prompt set of ``coe collect``, from the hand-written ``sources``.

One command, no arguments needed: ``uv run python data/prompts/make.py``. The same sources give the
same bytes. ``README.md`` beside this file describes rows, checks and split.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import operator
import random
import re
import unicodedata
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
CATEGORIES = ("maths", "extraction", "translation", "knowledge", "code", "chat")
SEED = 20250601
# Chosen among 0, 1, 2, ... as the first that brings every category within two prompts of 60/20/20.
SPLIT_SALT = "coe-prompts-4810"
LAYOUTS = ("\n{letter}) {option}", "\n{letter}. {option}", " ({letter}) {option}")
MAX_TOKENS = {"maths": 160, "extraction": 64, "translation": 48, "knowledge": 48} | {
    "maths/arithmetic": 96,
    "knowledge/multiple_choice": 64,
    "extraction/json": 96,
    "code": 200,
    "code/regex": 128,
    "code/sql": 128,
    "code/output": 128,
    "code/questions": 64,
    "chat": 120,
}
ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}

Row = dict[str, Any]


def value_of(expression: str) -> Fraction:
    """Exact value of an arithmetic ``expression`` such as ``3*2.5 + 1``.

    Raises
    ------
    ValueError
        If it holds anything but numbers, brackets and + - * / **.
    """

    def walk(node: ast.AST) -> Fraction:
        match node:
            case ast.Expression(body=body):
                return walk(body)
            case ast.Constant(value=int() | float() as number):
                return Fraction(str(number))
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -walk(operand)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in ARITHMETIC:
                return ARITHMETIC[type(op)](walk(left), walk(right))
        raise ValueError(f"no plain arithmetic: {expression!r}")

    return walk(ast.parse(expression, mode="eval"))


def plain(value: Fraction) -> int | float:
    """``value`` as an int where it is whole, else as the nearest float."""
    return value.numerator if value.denominator == 1 else float(value)


def typed_style(fields: Row) -> Row:
    """Style fields of a source, where YAML's base loader leaves every scalar a string."""
    return {k: int(v) if re.match("(min|max)_", k) else v for k, v in fields.items()}


def with_options(prompt: str, options: list[str]) -> tuple[str, Row, str]:
    """Prompt with its shuffled, lettered options, its check, and the right letter.

    The order depends on the seed and the prompt alone, so adding a row moves no other.
    """
    rng = random.Random(f"{SEED}:{prompt}")
    shuffled = rng.sample(options, len(options))
    letter = "ABCDEFGH"[shuffled.index(options[0])]
    layout = rng.choice(LAYOUTS)
    lines = [layout.format(letter="ABCDEFGH"[i], option=o) for i, o in enumerate(shuffled)]
    check = {"kind": "choice", "letter": letter, "options": shuffled}
    return prompt + "".join(lines), check, letter


def check_of(source: Row) -> tuple[Row, str]:
    """Check of a source row, and a reference answer made from it where the row gives none."""
    limits: Row = {}
    if "excludes" in source:
        limits["excludes"] = source["excludes"]
    if "max_words" in source:
        limits["max_words"] = int(source["max_words"])
    match source:
        case {"number": expression}:
            value = plain(value_of(expression))
            return {"kind": "number", "value": value}, f"{value}"
        case {"any": items}:
            return {"kind": "contains_any", "items": items, **limits}, items[0]
        case {"all": items}:
            firsts = [item if isinstance(item, str) else item[0] for item in items]
            return {"kind": "contains_all", "items": items, **limits}, ", ".join(firsts)
        case {"label": {"accept": accept, "reject": reject}}:
            return {"kind": "label", "accept": accept, "reject": reject}, accept[0]
        case {"exact": accept}:
            return {"kind": "text", "accept": accept, "exact": True}, accept[0]
        case {"json": text}:
            return {"kind": "json_equals", "expected": json.loads(text)}, text
        case {"regex": fields}:
            return {"kind": "regex_tests", **fields}, ""
        case {"style": fields}:
            return {"kind": "style", "distinct_4grams": 0.6, **typed_style(fields)}, ""
        case {"tests": tests}:
            return {"kind": "python_tests", "tests": tests}, ""
        case {"setup": setup, "rows": rows}:
            ordered = source.get("ordered") == "true"
            expected = json.loads(rows)
            return {"kind": "sql_rows", "setup": setup, "rows": expected, "ordered": ordered}, ""
    raise ValueError(f"no check in source row {source!r}")


def split_of(prompt: str) -> str:
    """``train``, ``dev`` or ``test`` (60/20/20) by a hash of the prompt's words alone."""
    words = " ".join(re.findall(r"\w+", unicodedata.normalize("NFKC", prompt).casefold()))
    digest = hashlib.sha256(f"{SPLIT_SALT}:{words}".encode()).digest()
    share = int.from_bytes(digest[:8], "big") / 2**64
    return "train" if share < 0.6 else "dev" if share < 0.8 else "test"


def rows_of(category: str) -> list[Row]:
    """Finished rows of one category, in the order of its source file."""
    text = (HERE / "sources" / f"{category}.yaml").read_text(encoding="utf-8")
    tasks: dict[str, list[Row]] = yaml.load(text, Loader=yaml.BaseLoader)  # noqa: S506
    rows: list[Row] = []
    for task, sources in tasks.items():
        source_task = f"{category}/{task}"
        for source in sources:
            prompt = source["p"]
            if "options" in source:
                prompt, check, reference = with_options(prompt, source["options"])
            else:
                check, reference = check_of(source)
            default_tokens = MAX_TOKENS.get(source_task, MAX_TOKENS[category])
            rows.append(
                {
                    "prompt_id": f"{category}-{len(rows) + 1:04d}",
                    "prompt": prompt,
                    "source_task": source_task,
                    "category": category,
                    "split": split_of(prompt),
                    "max_tokens": int(source.get("max_tokens", default_tokens)),
                    "check": check,
                    "reference": source.get("reference", reference),
                }
            )
    return rows


def main() -> None:
    """Write all categories to ``--out``, one JSON object a line."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, default=HERE / "prompts.jsonl")
    out: Path = parser.parse_args().out
    rows = [row for category in CATEGORIES for row in rows_of(category)]
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    out.write_text("".join(lines), encoding="utf-8")
    print(f"{len(rows)} prompts -> {out}")


if __name__ == "__main__":
    main()

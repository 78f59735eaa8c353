"""Scores of answers that must be executed: Python functions against tests, SQL against rows.

The limits here bound the accidents of small experts: endless loops, runaway memory, stray files.
They are **no security boundary against hostile code**: a Python answer runs with the rights of this
process's user and can read what that user can read and open network connections. Score answers of
experts you do not trust in a container or virtual machine of its own, or pass ``run_code=False``.
"""

from __future__ import annotations

import ast
import contextlib
import math
import os
import re
import select
import signal
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import warnings
from collections.abc import Iterable
from pathlib import Path

from coe.errors.files import OutcomesError
from coe.routers.checks import MAX_ANSWER_CHARS, Check, PythonTestsCheck, SqlRowsCheck, score

MAX_ADDRESS_SPACE_BYTES = 512 * 1024 * 1024
MAX_CODE_LINES = 400
MAX_SQL_ROWS = 1_000
MAX_SQL_VALUE_BYTES = 1_000_000
SQL_STEP_BATCH = 1_000
MAX_SQL_BATCHES = 5_000
# Unlike 0 and 1, no exit status that an answer is likely to end the process with by itself.
ALL_PASSED = 87

_FENCED = re.compile(r"```[ \t]*(\w*)[^\n]*\n(.*?)(?:```|\Z)", re.S)
_CODE_START = re.compile(r"^(?:def|async def|import|from|class)\b|^@", re.M)
_SQL_START = re.compile(
    r"^[ \t`>*-]*((?:SELECT\s|WITH\s+(?:RECURSIVE\s+)?\w+\s*(?:\([^)]*\)\s*)?AS\b).*)",
    re.I | re.M | re.S,
)

_HARNESS = """\
import resource, sys
for name, limit in {limits!r}.items():
    resource.setrlimit(getattr(resource, name), (limit, limit))
scope = {{"__name__": "answer"}}
exec(compile({code}, "answer", "exec"), scope)
for test in {tests}:
    exec(compile(test, "test", "exec"), scope)
sys.exit({status})
"""


def score_answer(answer: str, check: Check, run_code: bool) -> float | None:
    """Score of ``answer`` under any check, in [0, 1]; ``None`` if that takes code not to be run.

    ``None`` comes back for a ``python_tests`` check with ``run_code`` false. SQL always runs: it is
    confined to reading an in-memory database.

    Raises
    ------
    OutcomesError
        If the ``setup`` of a ``sql_rows`` check is no valid SQL.
    """
    match check:
        case PythonTestsCheck():
            return run_python_tests(answer, check) if run_code else None
        case SqlRowsCheck():
            return run_sql(answer, check)
    return score(answer, check)


def run_python_tests(answer: str, check: PythonTestsCheck, time_limit_s: float = 5.0) -> float:
    """1.0 if the Python code in ``answer`` passes every test of ``check``, else 0.0.

    The code is every fenced block that defines something, or the bare text from the first
    definition on, each cut where it stops being Python. It runs in a fresh isolated interpreter
    without site-packages, environment, standard input or output, in an empty temporary directory,
    with limits on CPU time, memory, files and processes; after ``time_limit_s`` of wall time its
    process group is killed. Code without ``def``, ``class`` or ``import`` scores 0.0 unrun.
    """
    code = _python_of(answer[:MAX_ANSWER_CHARS])
    if not code:
        return 0.0
    limits = {
        "RLIMIT_CPU": math.ceil(time_limit_s),
        "RLIMIT_AS": MAX_ADDRESS_SPACE_BYTES,
        "RLIMIT_FSIZE": 0,
        "RLIMIT_CORE": 0,
        "RLIMIT_NPROC": 0,
    }
    script = _HARNESS.format(
        limits=limits, code=ascii(code), tests=ascii(check.tests), status=ALL_PASSED
    )
    with tempfile.TemporaryDirectory(prefix="coe-sandbox-") as folder:
        path = Path(folder, "run.py")
        path.write_text(script, encoding="ascii")
        return float(_exit_status(path, time_limit_s) == ALL_PASSED)


def _exit_status(script: Path, time_limit_s: float) -> int:
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-B", str(script)],
        cwd=script.parent,
        env={},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        exited = os.pidfd_open(process.pid)
        try:
            waiter = select.poll()
            waiter.register(exited, select.POLLIN)
            waiter.poll(1_000 * time_limit_s)
        finally:
            os.close(exited)
    finally:
        # Not reaped yet, so the id still names this group, even if its leader has exited.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        status = process.wait()
    return status


def _python_of(answer: str) -> str:
    blocks = [
        textwrap.dedent(body)
        for tag, body in _FENCED.findall(answer)
        if tag.lower() in ("", "python", "py")
    ]
    if not blocks and (start := _CODE_START.search(answer)):
        blocks = [answer[start.start() :]]
    # A later block may correct an earlier one, and then defines the same name again.
    return "\n\n".join(_parsing_prefix(block) for block in blocks if _CODE_START.search(block))


def _parsing_prefix(text: str) -> str:
    """The longest run of lines from the start of ``text`` that is Python."""
    lines = text.splitlines()[:MAX_CODE_LINES]
    for n_lines in range(len(lines), 0, -1):
        prefix = "\n".join(lines[:n_lines])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an odd escape sequence is still Python
            try:
                ast.parse(prefix)
            except (SyntaxError, ValueError, RecursionError, MemoryError):
                continue
        return prefix
    return ""


def run_sql(answer: str, check: SqlRowsCheck) -> float:
    """1.0 if the first ``SELECT`` or ``WITH`` query in ``answer`` returns the rows of ``check``.

    It runs in a fresh in-memory SQLite after ``check.setup``; anything but reading is refused, and
    steps, rows and the size of values are bounded. Numbers are compared to six decimals, rows as a
    multiset unless ``check.ordered``.

    Raises
    ------
    OutcomesError
        If ``check.setup`` is no valid SQL.
    """
    query = _sql_of(answer[:MAX_ANSWER_CHARS])
    if not query:
        return 0.0
    with contextlib.closing(sqlite3.connect(":memory:")) as database:
        try:
            for statement in check.setup:
                database.execute(statement)
        except sqlite3.Error as error:
            raise OutcomesError(f"check field 'setup': {error}") from error
        _confine(database)
        try:
            rows = database.execute(query).fetchmany(MAX_SQL_ROWS + 1)
        except (sqlite3.Error, sqlite3.Warning, ValueError):
            return 0.0
    found, expected = _comparable(rows), _comparable(check.rows)
    if not check.ordered:
        found, expected = sorted(found), sorted(expected)
    return float(found == expected)


def _confine(database: sqlite3.Connection) -> None:
    allowed = {
        sqlite3.SQLITE_SELECT,
        sqlite3.SQLITE_READ,
        sqlite3.SQLITE_FUNCTION,
        sqlite3.SQLITE_RECURSIVE,
    }
    n_batches = 0

    def authorise(action: int, *_: str | None) -> int:
        return sqlite3.SQLITE_OK if action in allowed else sqlite3.SQLITE_DENY

    def exhausted() -> bool:
        nonlocal n_batches
        n_batches += 1
        return n_batches > MAX_SQL_BATCHES

    database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_SQL_VALUE_BYTES)
    database.set_authorizer(authorise)
    database.set_progress_handler(exhausted, SQL_STEP_BATCH)


def _sql_of(answer: str) -> str:
    texts = [body for _, body in _FENCED.findall(answer)] + re.findall(r"`([^`]+)`", answer)
    for text in (*texts, answer):
        if found := _SQL_START.search(text):
            return _first_statement(found[1])
    return ""


def _first_statement(text: str) -> str:
    """``text`` up to its first semicolon outside quotes, else up to its first blank line."""
    for end in (found.end() for found in re.finditer(";", text)):
        if sqlite3.complete_statement(text[:end]):
            return text[:end]
    return re.split(r"\n\s*\n|```", text)[0]


def _comparable(rows: Iterable[Iterable[object]]) -> list[str]:
    def cell(value: object) -> object:
        return round(float(value), 6) if isinstance(value, int | float) else value

    return [repr([cell(value) for value in row]) for row in rows]

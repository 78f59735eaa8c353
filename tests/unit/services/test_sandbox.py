import time

import pytest

from coe.errors.files import OutcomesError
from coe.routers.checks import NumberCheck, PythonTestsCheck, SqlRowsCheck
from coe.services.sandbox import run_python_tests, run_sql, score_answer

ADD = PythonTestsCheck(tests=("assert add(2, 3) == 5", "assert add(-1, 1) == 0"))
AGES = SqlRowsCheck(
    setup=("CREATE TABLE t(name TEXT, age REAL)", "INSERT INTO t VALUES ('a', 1), ('b', 2)"),
    rows=(("b", 2), ("a", 1)),
)


@pytest.mark.parametrize(
    "answer",
    [
        "def add(a, b):\n    return a + b",
        "Sure!\n\n```python\ndef add(a, b):\n    return a + b\n```\nHope it helps (a lot).",
        "def add(a, b):\n    return a + b\n\nThis function adds two numbers.",
        "```\ndef add(a, b):\n    return a + b\n\ndef unfinished(",
        "Wrong:\n```python\ndef add(a, b):\n    pass\n```\nRight:\n```py\ndef add(a, b):\n"
        "    return a + b\n```",
        "1. Like so:\n   ```python\n   def add(a, b):\n       return a + b\n   ```",
        "```python\ndef add(a, b):\n    return a + b\nprint(add(1, 2))\n```",
    ],
)
def test_code_is_found_and_run(answer):
    assert run_python_tests(answer, ADD) == 1.0


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "Add them with a plus sign.",
        "def add(a, b):\n    return a - b",
        "def add(a, b):\n    return abs(a) + abs(b)",
        "def add(a, b):\n    raise SystemExit(0)",
        "def add(a, b) return a + b",
        "def add(a, b):\n    return a + b + '\\q'",
        "def add(a, b):\n    with open('left', 'w') as f:\n        f.write('x')\n    return a + b",
        "def add(a, b):\n    return int(input()) * 0 + a + b",
        "def add(a, b):\n    return len('x' * 10**10) * 0 + a + b",
    ],
)
def test_other_answers_score_nothing(answer):
    assert run_python_tests(answer, ADD) == 0.0


def test_environment_is_empty(monkeypatch):
    monkeypatch.setenv("COE_SANDBOX_PROBE", "1")
    answer = "import os\n\ndef add(a, b):\n    return a + b + ('COE_SANDBOX_PROBE' in os.environ)"
    assert run_python_tests(answer, ADD) == 1.0


@pytest.mark.parametrize("loop", ["while True: pass", "import time; time.sleep(60)"])
def test_an_endless_answer_is_stopped(loop):
    started = time.monotonic()
    answer = f"def add(a, b):\n    {loop}"
    assert run_python_tests(answer, ADD, time_limit_s=0.5) == 0.0
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    "answer",
    [
        "SELECT name, age FROM t",
        "```sql\nSELECT name, age\nFROM t;\n```",
        "With this query:\n\nselect name, age from t where name <> ';';\n\nIt reads all.",
        "Use `SELECT * FROM t` here.",
        "WITH u AS (SELECT * FROM t) SELECT name, age FROM u",
        "SELECT name, age + 0.0000000001 FROM t",
    ],
)
def test_query_is_found_and_run(answer):
    assert run_sql(answer, AGES) == 1.0


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "no query",
        "SELECT name FROM t",
        "SELECT age, name FROM t",
        "SELECT nothing FROM t",
        "DELETE FROM t",
        "SELECT load_extension('x')",
        "SELECT zeroblob(2000000000)",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n",
        "SELECT '\ud800' FROM t",
    ],
)
def test_other_queries_score_nothing(answer):
    assert run_sql(answer, AGES) == 0.0


def test_row_order_counts_when_ordered():
    ordered = SqlRowsCheck(setup=AGES.setup, rows=AGES.rows, ordered=True)
    assert run_sql("SELECT * FROM t ORDER BY age DESC", ordered) == 1.0
    assert run_sql("SELECT * FROM t ORDER BY age", ordered) == 0.0


def test_a_broken_setup_is_an_error_of_the_check():
    with pytest.raises(OutcomesError, match="setup"):
        run_sql("SELECT 1", SqlRowsCheck(setup=("CREATE nonsense",), rows=((1,),)))


def test_score_answer_dispatches():
    assert score_answer("def add(a, b):\n    return a + b", ADD, run_code=True) == 1.0
    assert score_answer("def add(a, b):\n    return a + b", ADD, run_code=False) is None
    assert score_answer("SELECT * FROM t", AGES, run_code=False) == 1.0
    assert score_answer("72", NumberCheck(value=72), run_code=False) == 1.0

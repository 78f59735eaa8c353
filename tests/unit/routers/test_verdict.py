"""What answers say, wherever in them it stands."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coe.routers.verdict import MAX_ANSWER_CHARS, Verdict, verdict


def number(value: str) -> Verdict:
    return Verdict("number", value)


def text(value: str) -> Verdict:
    return Verdict("text", value)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ('```json\n{"reasoning": "5 * 4", "answer": "20"}\n```', number("20")),
        ('{"answer": 20.0}', number("20")),
        ('{"answer": "12", "why": "x"} no, rather {"answer": "$1,234.50"}', number("1234.5")),
        (r'{"reasoning": "\(x\)", "answer": "\frac{3}{4}"}', number("0.75")),
        (r'{"answer": "x = \\dfrac{3}{4}"}', number("0.75")),
        ('{"answer": "-4, 1"}', text("-4,1")),
        (r'{"answer": "3\\sqrt{2}"}', text(r"3\sqrt{2}")),
        ('{"answer": "6√2"}', text("6√2")),
        ('{"answer": "20 cups per day."}', number("20")),
        ('{"answer": "2 pi"}', text("2pi")),
        ('{"answer": "C"}', Verdict("letter", "C")),
        ('{"answer": "(C) 20 cups"}', Verdict("letter", "C")),
        ('{"answer": ["b", 1]}', Verdict("data", "['b', 1]")),
        ("{\"answer\": \"['b', 1]\"}", Verdict("data", "['b', 1]")),
        ('{"answer": {"b": 1, "a": [2]}}', Verdict("data", "{'a': [2], 'b': 1}")),
        ("{\"answer\": \"{'b': 1, 'a': [2]}\"}", Verdict("data", "{'a': [2], 'b': 1}")),
        (r'{"answer": "\"POO\""}', text("POO")),
        (r'{"answer": \"POO\"' + "\n}", text("POO")),
        ('{"answer": ""POO""}', text("POO")),
        ('{"answer": "true"}', text("true")),
        ('{"answer": true}', text("true")),
        ('{"answer": null}', None),
        ('{"answer": ""}', None),
        ('{"reasoning": "first 20, then', None),
        ('{"name": "Ada", "age": 36}', Verdict("data", "{'age': 36, 'name': 'Ada'}")),
        (r"So it is $\boxed{\frac{1}{2}}$. Check: 7.", number("0.5")),
        (r"\boxed{\text{(B)}}", Verdict("letter", "B")),
        ("Well.\n**Answer:** 42\nHope that helps, see page 7!", number("42")),
        ("The answer is 42 because there are six ducks that lay seven eggs each.", number("42")),
        ("The answer is B since the others are wrong in one way or other.", Verdict("letter", "B")),
        ("Paris.", text("paris")),
        ("**Paris**", text("paris")),
        ("A) red\nis what I would choose", Verdict("letter", "A")),
        ("Each has 3 and there are 4.\nThat makes 12 in all.", number("12")),
        ("Once upon a time, in 1969, there was a cat.\nIt slept, and so did everybody else.", None),
        ("", None),
        ("  \n ", None),
    ],
)  # fmt: skip
def test_what_is_said(answer: str, said: Verdict | None) -> None:
    assert verdict(answer) == said


def test_wordings_of_one_answer_are_one_verdict() -> None:
    wordings = [
        "3/4",
        "0.75",
        r"\frac{3}{4}",
        r"$\frac{3}{4}$",
        "The answer is 3/4.",
        "0.75 litres",
    ]
    assert {verdict(wording) for wording in wordings} == {number("0.75")}


@given(st.floats(-1e5, 1e5).map(lambda value: round(value, 2)))
def test_a_number_is_found_however_it_is_wrapped(value: float) -> None:
    wrapped = [
        f"{value}",
        f"The answer is **{value}**.",
        f"Thus \\boxed{{{value}}}",
        json.dumps({"reasoning": "1 + 1", "answer": str(value)}),
        json.dumps({"answer": value}),
        f"First 1.\nSecond 2, which leads to a total, after all is said, of {value}",
    ]
    assert {verdict(answer) for answer in wrapped} == {number(f"{value + 0.0:.6g}")}


BROKEN = "def f(x:\n    return 42"
WHOLE = "def f(x):\n    return '\\d', 42"


@pytest.mark.parametrize(
    ("answer", "heard"),
    [
        (f"```python\n{WHOLE}\n```", True),
        (f"Here:\n\n  ```Python\n  {WHOLE.replace(chr(10), chr(10) + '  ')}\n  ```", True),
        (f"```python\n{BROKEN}\n```", False),
        (f"```py\n{WHOLE}\n```\n```py\n{BROKEN}\n```", False),
        (f"```python\n{BROKEN}", False),
        ("```python\n" + "(" * 5_000 + "\n```\nThe answer is 42", False),
        ("```python\nlonger_than_its_fences = '\0'\n```", False),
        (f"```\n{BROKEN}\n```", True),
        (f"{'It returns a number. ' * 10}\n```python\n{BROKEN}\n```", True),
    ],
)
def test_a_program_that_does_not_parse_says_nothing(answer: str, heard: bool) -> None:
    assert (verdict(answer) is not None) is heard


@given(st.text(max_size=200))
def test_any_text_is_read(answer: str) -> None:
    found = verdict(answer)
    assert found is None or found.value


@pytest.mark.parametrize(
    "part",
    [
        "\\boxed{",
        '{"answer": "',
        "answer is ",
        "([{",
        "'\\",
        "$",
        " 1,000",
        "\\text{",
        "A) ",
        "```py\n",
        "```py\n-",
    ],
)
def test_a_hostile_answer_takes_no_time(part: str) -> None:
    started = time.process_time()
    verdict(part * (MAX_ANSWER_CHARS // len(part)))
    assert time.process_time() - started < 2.0


@pytest.mark.parametrize(
    "answer",
    [
        "x" + "\n" * 19_000 + "y",
        f"a b c d e f g h i ^{' ' * 19_000}x",
        f"answer{'-' * 19_000}x y z a b c d e f",
        "\N{EURO SIGN}" + " " * 1_900 + "x",
        f"1{' ' * 1_900}!",
    ],
    ids=["lines", "exponent", "letter", "currency", "unit"],
)
def test_nor_does_one_with_a_long_gap(answer: str) -> None:
    started = time.process_time()
    verdict(answer)
    assert time.process_time() - started < 0.5

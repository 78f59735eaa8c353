import time

import pytest

from coe.errors.files import OutcomesError
from coe.routers.checks import parse_check, score


def scored(answer, **fields):
    return score(answer, parse_check(fields))


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ("It costs $12.50.", 12.5),
        ("1,234", 1234),
        ("3/4", 0.75),
        ("1 1/2 cups", 1.5),
        ("1½", 1.5),
        ("50%", 50),
        ("50%", 0.5),
        ("6 * 12 = **72**", 72),
        (r"\boxed{72}, since 3 is odd", 72),
        (r"\(\boxed{\frac{1}{2}}\)", 0.5),
        (r"$1\frac{1}{2}$", 1.5),
        ("1{,}234", 1234),
        ("the answer is -5", -5),
        ("\N{MINUS SIGN}5", -5),
        ("-$5", -5),
        ("10-5", 5),
        ("24 cm^2", 24),
        ("24 cm²", 24),
        ("24 cm2", 24),
        ("first 3, then 7.", 7),
    ],
)
def test_number_is_read_from_the_end_of_the_answer(answer, value):
    assert scored(answer, kind="number", value=value) == 1.0
    assert scored(answer, kind="number", value=value + 1) == 0.0


@pytest.mark.parametrize("answer", ["none at all", "3/0", "about 7 to 9"])
def test_number_rejects(answer):
    assert scored(answer, kind="number", value=7) == 0.0


def test_number_tolerance_is_absolute():
    assert scored("3.14", kind="number", value=3.14159, tolerance=0.01) == 1.0
    assert scored("3.14", kind="number", value=3.14159) == 0.0


def test_words_ignore_case_accents_and_punctuation_but_are_whole():
    assert scored("C'est l'ÉTÉ!", kind="contains_any", items=["ete"]) == 1.0
    assert scored("ma sœur", kind="contains_any", items=["soeur"]) == 1.0
    assert scored("a catalogue", kind="contains_any", items=["cat"]) == 0.0


def test_contains_all_takes_alternatives():
    check = {"kind": "contains_all", "items": [["coche", "carro"], "nuevo"]}
    assert scored("Mi carro es nuevo.", **check) == 1.0
    assert scored("Mi carro es viejo.", **check) == 0.0


def test_an_echo_of_the_text_is_no_extraction():
    assert scored("a@x.io", kind="contains_any", items=["a@x.io"], excludes=["b@x.io"]) == 1.0
    assert scored("a@x.io b@x.io", kind="contains_any", items=["a@x.io"], excludes=["b@x.io"]) == 0
    assert scored("the word is red", kind="contains_any", items=["red"], max_words=3) == 0.0


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Positive.", 1.0),
        ("It is positive, not negative.", 1.0),
        ("Positive or negative: positive", 1.0),
        ("The tone is positive. Negative points: none.", 1.0),
        ("positive, negative or neutral", 0.0),
        ("Neutral, leaning positive", 0.0),
        ("hard to say", 0.0),
    ],
)
def test_label_is_the_first_one_taken_alone(answer, expected):
    fields = {"kind": "label", "accept": ["positive"], "reject": ["negative", "neutral"]}
    assert scored(answer, **fields) == expected


def test_label_prefers_the_longer_phrase():
    assert scored("not true", kind="label", accept=["true"], reject=["not true"]) == 0.0
    assert scored("Not true!", kind="label", accept=["not true"], reject=["true"]) == 1.0


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("B", 1.0),
        ("b)", 1.0),
        ("**B) blue**", 1.0),
        ("The correct answer is (B) because A) is wrong.", 1.0),
        ("I would go for blue", 1.0),
        ("A good one: blue", 1.0),
        ("A) red B) blue C) green", 0.0),
        ("red, blue or green", 0.0),
        ("C", 0.0),
        ("no idea", 0.0),
    ],
)
def test_choice(answer, expected):
    fields = {"kind": "choice", "letter": "B", "options": ["red", "blue", "green"]}
    assert scored(answer, **fields) == expected


def test_text_is_a_line_a_span_or_all():
    for answer in ("[1, 2]", "It prints:\n```\n[1,2]\n```", "Output: [1, 2]", "It is `[1, 2]`."):
        assert scored(answer, kind="text", accept=["[1, 2]"], exact=True) == 1.0
    assert scored("[1, 2, 3]", kind="text", accept=["[1, 2]"], exact=True) == 0.0
    assert scored("Bonjour !", kind="text", accept=["bonjour"]) == 1.0


def test_text_without_words_matches_no_blank_line():
    assert scored("some\n\nlines", kind="text", accept=["!"]) == 0.0


def test_json_equals_reads_the_first_object():
    expected = {"name": "Ana", "age": 3, "tags": ["a", None, True]}
    text = '```json\n{"Name": "ana", "age": "3", "tags": ["A", null, true], "more": 1}\n```'
    assert scored(text, kind="json_equals", expected=expected) == 1.0
    assert scored("{broken} " + text, kind="json_equals", expected=expected) == 1.0
    assert scored('{"name": "Ana"} ' + text, kind="json_equals", expected=expected) == 0.0
    assert scored("{" * 30_000, kind="json_equals", expected=expected) == 0.0
    assert scored('{"a":' * 5_000, kind="json_equals", expected=expected) == 0.0


@pytest.mark.parametrize(
    "answer",
    [
        r"^\d{5}$",
        r"Use `^\d{5}$`.",
        "```regex\n\\b\\d{5}\\b\n```",
        "```python\nimport re\npattern = r'^[0-9]{5}$'\n```",
        "`/^[0-9]{5}$/g`",
        're.match("[0-9]{5}", zip_code)',
    ],
)
def test_regex_is_found_in_prose_and_code(answer):
    fields = {"kind": "regex_tests", "must_match": ["12345"], "must_not_match": ["1234", "abcde"]}
    assert scored(answer, **fields) == 1.0


@pytest.mark.parametrize(
    "answer", ["Sure, here you are.", "`[0-9`", "`.*`", "`(`", "`\\d{9999999999}`"]
)
def test_regex_rejects(answer):
    fields = {"kind": "regex_tests", "must_match": ["12345"], "must_not_match": ["x"]}
    assert scored(answer, **fields) == 0.0


@pytest.mark.parametrize(
    "pattern",
    ["(a+)+$", "(a|a)+$", "((a+)+)+$", "(a|a|a)+$", "(a*)*b", "(?:a+|a+)+$", "a*" * 30 + "b"],
)
def test_no_regex_backtracks_for_long(pattern):
    fields = {"kind": "regex_tests", "must_match": ["a" * 23 + "!"], "must_not_match": ["b"]}
    started = time.monotonic()
    assert scored(f"`{pattern}`", **fields) == 0.0
    assert time.monotonic() - started < 10


def test_style_checks_length_words_end_and_loops():
    assert scored("How are you today?", kind="style", min_words=3, ends_with=["?"]) == 1.0
    assert scored("How are you today.", kind="style", ends_with=["?"]) == 0.0
    assert scored("one two three", kind="style", max_words=2) == 0.0
    assert scored("one", kind="style", min_words=2) == 0.0
    assert scored("a moon\n\nand a sea", kind="style", min_lines=2, max_lines=2) == 1.0
    assert scored("the moon", kind="style", must_contain_all=[["moon", "sun"]]) == 1.0
    assert scored("the moon", kind="style", must_contain_any=["sun"]) == 0.0
    assert scored("the moon", kind="style", must_not_contain=["Moon"]) == 0.0
    assert scored("round and round it goes " * 20, kind="style", distinct_4grams=0.5) == 0.0


@pytest.mark.parametrize("blank", ["", " \n\t"])
def test_a_blank_answer_scores_nothing(blank):
    assert scored(blank, kind="style", min_words=0) == 0.0
    assert scored(blank, kind="number", value=0) == 0.0
    assert scored(blank, kind="text", accept=["?"], exact=True) == 0.0


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "python_tests", "tests": ["assert True"]},
        {"kind": "sql_rows", "setup": ["CREATE TABLE t(a)"], "rows": []},
    ],
)
def test_executing_kinds_are_refused(fields):
    with pytest.raises(OutcomesError, match=r"services\.sandbox"):
        scored("def f(): pass", **fields)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "kind"),
        ({"kind": "guess"}, "kind"),
        ({"kind": "number"}, "value"),
        ({"kind": "number", "value": "3"}, "value"),
        ({"kind": "number", "value": True}, "value"),
        ({"kind": "number", "value": float("nan")}, "value"),
        ({"kind": "number", "value": 3, "unit": "m"}, "unit"),
        ({"kind": "number", "value": 3, "tolerance": -1}, "tolerance"),
        ({"kind": "contains_all", "items": "abc"}, "items"),
        ({"kind": "contains_all", "items": ["a", 3]}, "items"),
        ({"kind": "contains_any", "items": []}, "items"),
        ({"kind": "choice", "letter": "Z", "options": ["a", "b"]}, "letter"),
        ({"kind": "choice", "letter": "C", "options": ["a", "b"]}, "letter"),
        ({"kind": "regex_tests", "must_match": ["a" * 99], "must_not_match": ["b"]}, "must_match"),
        ({"kind": "style", "distinct_4grams": 2}, "distinct_4grams"),
        ({"kind": "sql_rows", "setup": ["x"], "rows": [[{}]]}, "rows"),
    ],
)
def test_a_bad_check_is_refused_by_field(fields, field):
    with pytest.raises(OutcomesError, match=field):
        parse_check(fields)

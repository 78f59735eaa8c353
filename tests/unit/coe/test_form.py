"""Whether an answer has the form that the caller asked for."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coe.form import fits, keeps_form

OBJECT = {"type": "json_object"}
SCHEMA = {
    "type": "json_schema",
    "json_schema": {"name": "x", "schema": {"type": "object", "required": ["answer", "why"]}},
}


@pytest.mark.parametrize(
    ("text", "form", "kept"),
    [
        ("anything", {}, True),
        ("anything", {"type": "text"}, True),
        ('{"answer": 4}', OBJECT, True),
        (' {"answer": 4}\n', OBJECT, True),
        ('Sure! {"answer": 4}', OBJECT, False),
        ('{"answer": 4', OBJECT, False),
        ("[4]", OBJECT, False),
        ("[" * 100_000, OBJECT, False),
        ('{"answer": 4, "why": ""}', SCHEMA, True),
        ('{"answer": 4}', SCHEMA, False),
        ("[4]", SCHEMA, False),
        ("4", SCHEMA, False),
        ("[4]", {"type": "json_schema", "json_schema": {"schema": {"type": "array"}}}, True),
        ('{"answer": 4}', {"type": "json_schema", "json_schema": {"schema": {}}}, True),
        ('{"answer": 4}', {"type": "json_schema"}, True),
        ('{"answer": 4}', {"type": "json_schema", "json_schema": 7}, True),
        (
            '{"answer": 4}',
            {"type": "json_schema", "json_schema": {"schema": {"required": 3}}},
            True,
        ),
    ],
)
def test_an_answer_keeps_the_form_or_not(text, form, kept):
    assert keeps_form(text, form) is kept


PERSON = {
    "type": "object",
    "required": ["name", "tags"],
    "properties": {
        "name": {"type": "string"},
        "age": {"type": ["integer", "null"]},
        "tags": {"type": "array", "items": {"type": "object", "required": ["id"]}},
    },
}


@pytest.mark.parametrize(
    ("document", "kept"),
    [
        ({"name": "x", "tags": []}, True),
        ({"name": "x", "tags": [{"id": 1}, {"id": None, "more": 2}]}, True),
        ({"name": "x", "tags": [{"id": 1}, {}]}, False),
        ({"name": "x", "tags": [3]}, False),
        ({"name": "x", "tags": {}}, False),
        ({"name": 3, "tags": []}, False),
        ({"name": "x", "tags": [], "age": None}, True),
        ({"name": "x", "tags": [], "age": 3.0}, True),
        ({"name": "x", "tags": [], "age": 3.5}, False),
        ({"name": "x", "tags": [], "age": True}, False),
        ([], False),
    ],
)
def test_types_and_keys_are_held_to_at_any_depth(document, kept):
    form = {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON}}
    assert keeps_form(json.dumps(document), form) is kept


@pytest.mark.parametrize(
    "schema",
    [
        None,
        7,
        {"type": 3},
        {"type": ["thing", None]},
        {"properties": 3, "items": 4},
        {"required": [3, None]},
        {"$ref": "#/x", "enum": [1]},
    ],
)
def test_other_words_and_malformed_ones_are_not_held_against_an_answer(schema):
    assert fits({"a": [1]}, schema)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.integers() | st.text(max_size=3),
    lambda inside: (
        st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=3), inside, max_size=3)
    ),
    max_leaves=8,
)


def schema_of(document: object) -> dict[str, object]:
    """The narrowest schema of a document that these words can say."""
    match document:
        case dict():
            inside = {name: schema_of(value) for name, value in document.items()}
            return {"type": "object", "required": list(document), "properties": inside}
        case list():
            return {"type": "array"}
        case bool():
            return {"type": "boolean"}
        case int():
            return {"type": ["integer"]}
        case float():
            return {"type": "number"}
        case str():
            return {"type": "string"}
    return {"type": "null"}


@given(JSON, JSON)
def test_a_document_fits_its_own_schema_and_whatever_fits_has_its_keys(document, other):
    schema = schema_of(document)
    assert fits(document, schema)
    if isinstance(document, dict) and fits(other, schema):
        assert document.keys() <= other.keys()

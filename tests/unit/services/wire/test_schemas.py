"""Schemas that an engine may be given, and those it must not."""

import pytest

from coe.services.wire.schemas import MOST_BYTES, wrong_parameters, wrong_schema


def nested(n):
    schema = {"type": "integer"}
    for _ in range(n - 1):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "string", "pattern": r"^(?<year>\p{Nd}{4})-\u{1F600}\/\cA$"},
        {"$ref": "#/$defs/a", "$defs": {"a": {"type": "null"}}},
        {"type": "object", "properties": {"pattern": {"type": "string"}, "$ref": {}}},
        nested(16),
    ],
)
def test_usual_schemas_pass(schema):
    assert wrong_schema(schema) == ""


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ([], "object"),
        ({"description": "a" * MOST_BYTES}, "bytes"),
        (nested(17), "levels"),
        ({"items": {"$ref": "https://example.com/a.json"}}, "reference"),
        ({"anyOf": [{"pattern": "("}]}, "pattern"),
        ({"pattern": "a{99999999999}"}, "pattern"),
    ],
)
def test_others_are_refused_with_why(schema, said):
    assert said in wrong_schema(schema)


@pytest.mark.parametrize("schema", [{}, {"type": "object"}])
def test_a_function_takes_an_object_or_nothing(schema):
    assert wrong_parameters(schema) == ""


@pytest.mark.parametrize("schema", [{"properties": {}}, {"type": "array"}, 7])
def test_a_function_takes_nothing_else(schema):
    assert "object" in wrong_parameters(schema)

"""Answers as responses, whatever an expert has put into them."""

import json

import pytest

from coe.answer import object_in
from coe.services.wire.answers import as_answer


@pytest.mark.parametrize("beside", ["1", str(10**30), r'"\ud83d"'])
def test_a_number_beyond_all_is_null_whatever_stands_beside_it(beside):
    found = object_in(f'{{"a": 1e999, "b": {beside}}}'.encode())
    said = as_answer(found, {"x-a": "1"})
    assert json.loads(said.body) == {"a": None, "b": json.loads(beside)}
    assert said.status_code == 200

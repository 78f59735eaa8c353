"""Refusals are said in words that fit an API, and no class or library of ours is in them."""

import json

import pytest

from coe.errors.callers import RequestError
from coe.services.wire.chat import parse_chat
from coe.services.wire.completions import chat_of

GOOD = {"model": "auto", "messages": [{"role": "user", "content": "hours"}]}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"coe": 7}, "coe: must be a mapping of fields"),
        ({"coe": {"budget": 7}}, "coe.budget: must be a mapping of fields"),
        ({"messages": []}, "messages: must hold at least 1"),
        ({"messages": [7]}, "messages[0]: must be a mapping of fields"),
        ({"coe": {"budget": {"joules": 1}}}, "coe.budget.joules: there is no such field"),
    ],
)
def test_a_wrong_field(change, said):
    with pytest.raises(RequestError) as refused:
        parse_chat(json.dumps(GOOD | change).encode(), {}, frozenset())
    assert str(refused.value) == said


@pytest.mark.parametrize("prompt", [["a", "b"], [1, 2], 7, []])
def test_a_prompt_that_is_no_text(prompt):
    with pytest.raises(RequestError) as refused:
        chat_of({"model": "auto", "prompt": prompt}, frozenset())
    assert str(refused.value) == "prompt: must be a text that is not empty, or a list of one"

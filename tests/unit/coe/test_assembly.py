"""A stream put together to the document that a whole answer would have been."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coe.answer import DONE, completion, pieces_of
from coe.assembly import Assembly

TOKENS = ["Grüße", " data: [DONE]", "\n\ndata:", " 世界"]
USAGE = {"prompt_tokens": 5, "completion_tokens": 4, "total_tokens": 9}


def event(**fields):
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


def delta(index=0, finish=None, **fields):
    """An event that adds something to a choice."""
    return event(choices=[{"index": index, "delta": fields, "finish_reason": finish}])


BODY = b"".join(pieces_of("chatcmpl-1", "a", TOKENS, "length")).removesuffix(DONE)
BODY += event(choices=[], usage=USAGE) + DONE
WHOLE = json.loads(completion("chatcmpl-1", "a", "".join(TOKENS), 5, 4, "length"))


def assembled(*pieces):
    assembly = Assembly()
    for piece in pieces:
        assembly.feed(piece)
    return json.loads(assembly.document()), assembly.ended


@given(st.lists(st.integers(0, len(BODY)), max_size=20))
def test_a_stream_in_any_pieces_becomes_the_whole_answer(cuts):
    edges = [0, *sorted(cuts), len(BODY)]
    assert assembled(*(BODY[a:b] for a, b in pairwise(edges))) == (WHOLE, True)


def test_feeding_counts_the_events_that_say_something():
    # role, tokens, finish reason; not the figures and not the end mark
    assert Assembly().feed(BODY) == len(TOKENS) + 2


def test_a_stream_that_breaks_off_has_not_ended():
    for cut in range(len(BODY) - 2):
        assert not assembled(BODY[:cut])[1]


def test_choices_are_kept_apart_and_sorted():
    document, _ = assembled(
        delta(1, content="b"),
        delta(0, content="a"),
        delta(1, "stop", content="b"),
        delta(0, "stop"),
    )
    assert [choice["index"] for choice in document["choices"]] == [0, 1]
    assert [choice["message"]["content"] for choice in document["choices"]] == ["a", "bb"]
    assert {choice["finish_reason"] for choice in document["choices"]} == {"stop"}


def test_reasoning_is_kept_apart_from_the_answer():
    document, _ = assembled(
        delta(reasoning_content="h"), delta(reasoning_content="m"), delta(content="7")
    )
    message = document["choices"][0]["message"]
    assert (message["reasoning_content"], message["content"]) == ("hm", "7")


def test_the_fragments_of_a_tool_call_are_joined():
    document, _ = assembled(
        delta(
            tool_calls=[{"index": 0, "id": "c1", "function": {"name": "add", "arguments": '{"a"'}}]
        ),
        delta(tool_calls=[{"index": 0, "function": {"arguments": ": 1}"}}]),
        delta(tool_calls=[{"index": 1, "id": "c2", "function": {"name": "sub"}}]),
        delta(finish="tool_calls"),
    )
    choice = document["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["tool_calls"] == [
        {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}},
        {"id": "c2", "type": "function", "function": {"name": "sub", "arguments": ""}},
    ]


def test_log_probabilities_are_strung_together():
    events = [
        event(choices=[{"index": 0, "delta": {}, "logprobs": {"content": [{"token": token}]}}])
        for token in "ab"
    ]
    assert assembled(*events)[0]["choices"][0]["logprobs"] == {
        "content": [{"token": "a"}, {"token": "b"}]
    }


@pytest.mark.parametrize(
    "line", [b": ping", b"event: x", b"data: {", b"data: [1]", b"data:", b"id: 7"]
)
def test_lines_that_are_no_events_are_passed_over(line):
    assert assembled(line + b"\n\n", BODY) == (WHOLE, True)


def test_the_text_of_a_stream_is_what_its_first_answer_says_so_far():
    assembly = Assembly()
    assert assembly.text == ""
    assembly.feed(delta(role="assistant", content=None))
    assert assembly.text == ""
    for word in ("four", " is", " it"):
        assembly.feed(delta(content=word))
    assembly.feed(delta(index=1, content="five"))
    assert assembly.text == "four is it"


@pytest.mark.parametrize(
    "odd",
    [
        event(choices={}),
        event(choices=[None, 7]),
        event(choices=[{"index": None, "delta": None}]),
        event(choices=[{"index": 0, "delta": "four"}]),
        event(choices=[{"index": 0, "delta": {"content": ["four"], "refusal": 4}}]),
        event(choices=[{"index": [], "logprobs": "x", "delta": {"tool_calls": "x"}}]),
        event(choices=[{"index": 0, "logprobs": {"content": 1}, "delta": {"tool_calls": [1]}}]),
        delta(tool_calls=[{"index": 10**12, "function": {"name": 1, "arguments": []}}]),
        delta(tool_calls=[{"index": -7, "function": "x"}]),
        b"data: " + b"[" * 100_000 + b"\n\n",
    ],
)
def test_what_is_no_text_of_a_choice_is_passed_over(odd):
    assembly = Assembly()
    for piece in (odd, delta(content="five"), odd):
        assembly.feed(piece)
    assert assembly.text == "five"
    assert json.loads(assembly.document())["choices"][0]["message"]["content"] == "five"

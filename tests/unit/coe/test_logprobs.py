"""What an answer says of its tokens: read, and taken out of the stream."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coe.answer import DONE, chunk, pieces_of
from coe.assembly import Assembly
from coe.core import Message, Request
from coe.logprobs import WithoutLogprobs, mean_logprob, with_logprobs


def telling(text: str, *logprobs: object) -> bytes:
    """An event as llama.cpp's server sends it when it is asked for log-probabilities."""
    event = json.loads(chunk("x", "a", {"content": text}, None)[6:])
    content = [
        {"id": 1, "token": text, "bytes": [55], "logprob": logprob, "top_logprobs": []}
        for logprob in logprobs
    ]
    event["choices"][0]["logprobs"] = {"content": content}
    return b"data: " + json.dumps(event).encode() + b"\n\n"


def read(stream: bytes, *cuts: int) -> tuple[bytes, float | None]:
    taking, passed, places = WithoutLogprobs(), b"", [0, *sorted(cuts), len(stream)]
    for start, end in pairwise(places):
        passed += taking.feed(stream[start:end])
    return passed + taking.end(), taking.mean


TOLD = (
    chunk("x", "a", {"role": "assistant", "content": ""}, None)
    + telling("7", -1.5)
    + telling("🍉", -0.25, -0.25)
    + chunk("x", "a", {}, "stop", (3, 2))
    + DONE
)


@given(st.lists(st.integers(0, len(TOLD)), max_size=6))
def test_what_is_left_is_the_answer_however_it_is_cut(cuts):
    passed, mean = read(TOLD, *cuts)
    assert mean == pytest.approx(-2.0 / 3)
    assert b"logprob" not in passed
    with_them, without = Assembly(), Assembly()
    with_them.feed(TOLD)
    without.feed(passed)
    assert without.text == with_them.text == "7🍉"
    assert without.ended
    whole = json.loads(with_them.document())
    whole["choices"][0].pop("logprobs")
    assert json.loads(without.document()) == whole


@given(st.lists(st.text(max_size=4), max_size=4), st.binary(max_size=20))
def test_a_stream_that_says_nothing_of_its_tokens_passes_byte_for_byte(tokens, rest):
    stream = b"".join(pieces_of("x", "a", tokens)) + rest
    assert read(stream) == (stream, None)


@pytest.mark.parametrize(
    "line",
    [
        b'data: {"logprobs": 3}\n',
        b'data: {"choices": [{"logprobs": null}]}\n',
        b'data: {"choices": ["logprobs"]}\n',
        b'data: {"choices": "logprobs"}\n',
        b'data: ["logprobs"]\n',
        b'data: {"logprobs":\n',
        b': "logprobs"\n',
    ],
)
def test_what_is_no_such_event_passes(line):
    assert read(line) == (line, None)


@pytest.mark.parametrize(
    ("logprobs", "mean"),
    [
        ({"content": [{"logprob": -1}, {"logprob": -3.0}]}, -2.0),
        ({"content": [{"logprob": -1e9}]}, -20.0),
        ({"content": [{"logprob": 1e-9}]}, 0.0),
        ({"content": [{"logprob": float("nan")}, {"logprob": None}, {}, 3]}, None),
        ({"content": []}, None),
        ({"content": 3}, None),
        ({}, None),
        (None, None),
        ([], None),
    ],
)
def test_the_mean_is_over_the_tokens_that_have_one(logprobs, mean):
    assert mean_logprob(logprobs) == mean


def test_asking_for_them_changes_nothing_else():
    request = Request((Message("user", "hi"),), payload={"temperature": 0, "top_logprobs": 5})
    asked = with_logprobs(request)
    assert asked.payload == {"temperature": 0, "logprobs": True, "top_logprobs": 1}
    assert asked.messages == request.messages

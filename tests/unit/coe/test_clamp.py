"""Streams of experts that say more than they were asked for."""

import json

import pytest

from coe.answer import DONE, chunk, pieces_of
from coe.experts.clamp import Clamp

TOKENS = [f" t{n}" for n in range(10)]
EVENTS = list(pieces_of("c", "up", TOKENS, usage=(3, 10)))


def passed(clamp, events):
    out = []
    for piece in events:
        out.append(clamp.feed(piece))
        if clamp.ended:
            break
    return b"".join(out)


def said(body):
    documents = [json.loads(e[6:]) for e in body.split(b"\n\n")[:-1] if e + b"\n\n" != DONE]
    choices = [d["choices"][0] for d in documents]
    text = "".join(c["delta"].get("content") or "" for c in choices)
    return text, choices[-1]["finish_reason"]


@pytest.mark.parametrize("most", [None, 10, 11, 1000])
def test_who_keeps_to_the_cap_passes_byte_for_byte(most):
    clamp = Clamp(most)
    assert passed(clamp, EVENTS) == b"".join(EVENTS)
    assert not clamp.ended


@pytest.mark.parametrize("together", [1, 3, 100])
@pytest.mark.parametrize("most", [1, 2, 5, 9])
def test_who_does_not_is_cut_at_the_cap(most, together):
    pieces = [b"".join(EVENTS[k : k + together]) for k in range(0, len(EVENTS), together)]
    clamp = Clamp(most)
    body = passed(clamp, pieces)
    assert clamp.ended
    assert body.endswith(DONE)
    assert said(body) == ("".join(TOKENS[:most]), "length")
    ids = {json.loads(e[6:])["id"] for e in body.split(b"\n\n")[:-2]}
    assert ids == {"c"}


def test_events_that_say_nothing_are_no_tokens():
    silent = [
        chunk("c", "up", {"content": ""}, None),
        b'data: {"choices":[]}\n\n',
        b'data: {"choices": [{"delta": {"content": null, "role": "assistant"}}]}\n\n',
        b'data: {"choices": [7], "usage": {}}\n\n',
    ]
    events = [EVENTS[0], *silent * 20, *EVENTS[1:]]
    clamp = Clamp(10)
    assert passed(clamp, events[:1] + silent[:2] * 20 + EVENTS[1:]) == b"".join(
        events[:1] + silent[:2] * 20 + EVENTS[1:]
    )
    clamp = Clamp(200)
    assert passed(clamp, events) == b"".join(events)


@pytest.mark.parametrize("delta", [{"role": "assistant", "content": None}, {"role": "assistant"}])
def test_an_answer_may_begin_with_nothing_however_it_is_written(delta):
    events = [chunk("c", "up", delta, None), *EVENTS[1:]]
    assert passed(Clamp(10), events) == b"".join(events)
    assert said(passed(Clamp(9), events)) == ("".join(TOKENS[:9]), "length")


def test_several_answers_have_as_much_each():
    events = [
        chunk("c", "up", delta, None, index=index)
        for delta in ({"role": "assistant", "content": None}, *({"content": "x"} for _ in range(9)))
        for index in range(3)
    ]
    ended = [*events, DONE]
    assert passed(Clamp(9, 3), ended) == b"".join(ended)
    clamp = Clamp(5, 3)
    assert passed(clamp, ended).count(b'"x"') == 5 * 3 + 2
    assert clamp.ended


def test_reasoning_and_calls_of_tools_are_tokens():
    deltas = [{"reasoning_content": "hm"}, {"tool_calls": [{"index": 0}]}, {"content": "so"}]
    body = passed(Clamp(2), [chunk("c", "up", delta, None, index=1) for delta in deltas])
    *_, last, done, rest = body.split(b"\n\n")
    assert json.loads(last[6:])["choices"] == [{"index": 1, "delta": {}, "finish_reason": "length"}]
    assert (done + b"\n\n", rest) == (DONE, b"")


def test_who_may_call_tools_has_a_few_events_to_spare_and_no_more():
    call = chunk("c", "up", {"tool_calls": [{"index": 0, "function": {"arguments": "{"}}]}, None)
    for n_events, ended in [(26, False), (27, True), (100, True)]:
        clamp = Clamp(10, calling=True)
        passed(clamp, [call] * n_events)
        assert clamp.ended == ended

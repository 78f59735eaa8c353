"""What of an expert's stream may pass, however it is written and wherever it is cut."""

import json
import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coe.answer import DONE, chunk, pieces_of
from coe.errors.experts import ExpertUntrustedError
from coe.experts.events import LINE_BYTES, Events

BODY = b"".join(pieces_of("c", "up", ["Grüße", " data: [DONE]\n\n", " 世界"]))
EVENT = chunk("c", "up", {"content": "x"}, None)


def passed(*pieces):
    events = Events("up")
    out = b"".join([*map(events.feed, pieces), events.end()])
    return out, events.ended


def split(body, places):
    edges = sorted({0, len(body), *(place % (len(body) + 1) for place in places)})
    return [body[a:b] for a, b in pairwise(edges)]


OTHER_WAYS = {
    "as it is": BODY,
    "CRLF": BODY.replace(b"\n", b"\r\n"),
    "CR": BODY.replace(b"\n", b"\r"),
    "mixed": BODY.replace(b"\n\n", b"\r\n\n", 2).replace(b"\n\n", b"\r\r\n", 1),
    "BOM": b"\xef\xbb\xbf" + BODY,
    "no space": BODY.replace(b"data: {", b"data:{").replace(DONE, b"data:[DONE]\n\n"),
    "comments": b": hello\n\n" + BODY.replace(b"\n\n", b"\n\n: still here\n\n"),
    "other fields": BODY.replace(b"data: {", b"event: message\nid: 7\nretry: 1\ndata: {"),
    "empty events": BODY.replace(b"\n\n", b"\n\n\n\ndata:\n\ndata: \n\n"),
    "no blank line": BODY.removesuffix(b"\n"),
    "no line end": BODY.removesuffix(b"\n\n"),
    "more after the end": BODY + b"data: " + b"{}\n\n" + DONE,
}


@pytest.mark.parametrize("written", OTHER_WAYS.values(), ids=OTHER_WAYS)
def test_however_it_is_written_and_wherever_it_is_cut_in_two_the_same_passes(written):
    for cut in range(len(written) + 1):
        assert passed(written[:cut], written[cut:]) == (BODY, True), cut
    assert passed(*(bytes([byte]) for byte in written)) == (BODY, True)


@given(st.sampled_from(sorted(OTHER_WAYS)), st.lists(st.integers(0, 5000), max_size=30))
def test_it_passes_the_same_in_any_pieces(name, places):
    assert passed(*split(OTHER_WAYS[name], places)) == (BODY, True)


@pytest.mark.parametrize("written", OTHER_WAYS.values(), ids=OTHER_WAYS)
def test_what_breaks_off_has_not_ended_and_holds_whole_events(written):
    for cut in range(len(written)):
        out, ended = passed(written[:cut])
        assert BODY.startswith(out), cut
        assert ended == (out == BODY), cut
        assert out == b"" or out.endswith(b"\n\n"), cut


def test_an_event_passes_as_soon_as_it_is_complete():
    events = Events("up")
    assert events.feed(EVENT) is EVENT
    assert events.feed(EVENT + EVENT[:9]) == EVENT
    assert events.feed(EVENT[9:-1]) == b""
    assert events.feed(b"\n" + DONE) == EVENT + DONE
    assert events.feed(EVENT) == b""


def document_of(event):
    out, _ = passed(event)
    assert out.count(b"\n") == 2
    assert out.isascii()
    return json.loads(out.removeprefix(b"data: "))


@pytest.mark.parametrize("sign", ["\u2028", "\u2029", "\x85"])
def test_signs_that_some_take_for_the_end_of_a_line_are_escaped(sign):
    said = {"choices": [{"delta": {"content": f"one{sign}two"}}]}
    event = b"data: " + json.dumps(said, ensure_ascii=False).encode() + b"\n\n"
    assert document_of(event) == said


def test_signs_that_json_must_escape_are_escaped():
    event = b'data: {"choices": [], "text": "nul \x00, tab \t, line\x0bfeed\x1e"}\n\n'
    assert document_of(event) == {"choices": [], "text": "nul \x00, tab \t, line\x0bfeed\x1e"}


def test_an_event_of_several_lines_becomes_one():
    assert document_of(b'data: {"choices":\ndata:  [],\ndata: "a": "b\ndata: c"}\n\n') == {
        "choices": [],
        "a": "b\nc",
    }


def test_numbers_that_are_none_are_left_out():
    event = b'data: {"choices": [], "logprob": -Infinity, "n": NaN, "m": 1e999}\n\n'
    assert document_of(event) == {"choices": [], "logprob": None, "n": None, "m": None}


def test_words_that_look_odd_in_a_text_change_nothing():
    for said in ('NaN and Infinity, {"error": 1}', "data: [DONE]", "\r\ndata: {}\r\n\r\n"):
        event = chunk("c", "up", {"content": said}, None)
        assert passed(event)[0] == event
    nothing_wrong = b'data: {"choices": [], "error": null}\n\n'
    assert passed(nothing_wrong)[0] == nothing_wrong


@pytest.mark.parametrize(
    "event",
    [
        b'data: {"error": {"message": "out of memory"}}\n\n',
        b'event: error\ndata: {"error": "no"}\n\n',
        b'data: {"choices": [{"delta": {"content": "half\n\n',
        b"data: [1]\n\n",
        b"data: hello\n\n",
        b"data: " + b"[" * 100_000 + b"\n\n",
        b'data: {"choices": [], "raw": "line\rfeed"}\n\n',
    ],
)
def test_what_is_no_event_of_an_answer_is_an_error(event):
    with pytest.raises(ExpertUntrustedError):
        passed(EVENT, event, DONE)


@pytest.mark.parametrize("size", [1000, 65_536, 3 * LINE_BYTES])
def test_a_line_has_a_longest_length(size):
    events, line = Events("up"), b"data: {" + b" " * (2 * LINE_BYTES)
    pieces = [line[start : start + size] for start in range(0, len(line), size)]
    with pytest.raises(ExpertUntrustedError, match="1048576 bytes in a line"):
        b"".join(map(events.feed, pieces))


def test_many_lines_of_one_event_have_a_longest_length_too():
    events = Events("up")
    line = b"data: " + b" " * 1000 + b"\n"
    with pytest.raises(ExpertUntrustedError):
        [events.feed(line) for _ in range(3000)]


def test_ten_thousand_events_that_say_nothing_pass_as_nothing():
    assert passed(*[b"data:\n\n"] * 10_000, BODY) == (BODY, True)
    assert passed(b"\n\n" * 10_000 + BODY) == (BODY, True)


def test_a_long_event_that_comes_byte_by_byte_takes_linear_time():
    event = b'data: {"text": "' + b"x" * 300_000 + b'"}\n\n'
    events, started = Events("up"), time.process_time()
    for byte in event:
        out = events.feed(bytes([byte]))
    assert out == event
    assert time.process_time() - started < 5.0


@pytest.mark.parametrize(
    "event",
    [b"data: {" + EVENT, b'data: {"a": }\n\n', b'data: {"a": "\xff"}\n\n', b"data: {}}\n\n"],
)
def test_what_only_looks_like_json_does_not_pass(event):
    for pieces in [[event], [EVENT + event], [event[:7], event[7:]]]:
        events = Events("up")
        with pytest.raises(ExpertUntrustedError, match="no JSON object"):
            b"".join(map(events.feed, pieces))


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_an_event_of_many_lines_that_come_one_by_one_takes_linear_time(end):
    events, started = Events("up"), time.process_time()
    for _ in range(100_000):
        assert events.feed(b"data: " + end) == b""
    out = events.feed(b'data: {"text": 1}' + end + end)
    assert out + events.feed(end) == b'data: {"text": 1}\n\n'
    assert time.process_time() - started < 5.0


LINES = [
    EVENT,
    DONE,
    EVENT.replace(b"\n", b"\r"),
    b"data: {\ndata: }\n\n",
    b"data: {}\r\n",
    b"\n",
    b": a\n",
]


@given(st.lists(st.sampled_from(LINES), max_size=8), st.lists(st.integers(1, 40), min_size=1))
def test_however_a_stream_is_cut_the_same_passes(pieces, sizes):
    whole, cut = b"".join(pieces), []
    while whole:
        cut.append(whole[: sizes[len(cut) % len(sizes)]])
        whole = whole[len(cut[-1]) :]
    assert outcome(cut) == outcome([b"".join(cut)])


def outcome(pieces):
    events, out = Events("up"), b""
    try:
        for piece in pieces:
            out += events.feed(piece)
        return out + events.end(), events.ended
    except ExpertUntrustedError as error:
        return str(error)


@given(st.lists(st.binary(max_size=40) | st.sampled_from([EVENT, DONE, b"\r", b"\n"]), max_size=12))
def test_whatever_passes_is_whole_events_on_a_line_each(pieces):
    events, out = Events("up"), b""
    try:
        for piece in pieces:
            out += events.feed(piece)
        out += events.end()
    except ExpertUntrustedError:
        pass
    assert b"\r" not in out
    *found, rest = out.split(b"\n\n")
    assert rest == b""
    for event in found:
        assert event + b"\n\n" == DONE or isinstance(json.loads(event[6:]), dict)
    assert (DONE in out) == events.ended

"""Bodies of answers: what the meter reads from them, however they are cut."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coe.answer import (
    DONE,
    AnswerMeter,
    Reading,
    Whole,
    before_end,
    chunk,
    completion,
    object_in,
    pieces_of,
    together,
)

TOKENS = ["Write", " data: here", "\n\ndata:", " [DONE]", ' "usage"', " für", " 世界", "!"]
BODY = b"".join(pieces_of("chatcmpl-1", "a", TOKENS))
USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
TIMINGS = {"cache_n": 4, "prompt_n": 7, "predicted_n": 9, "predicted_ms": 12.5}


def event(**fields):
    return b"data: " + json.dumps({"choices": [], **fields}).encode() + b"\n\n"


def ending_with(last):
    """``BODY`` with another event before its end mark."""
    return BODY.removesuffix(DONE) + last + DONE


def read(*pieces, stream=True):
    meter = AnswerMeter(stream)
    for piece in pieces:
        meter.feed(piece)
    return meter.reading()


BODIES = [
    (BODY, Reading(None, len(TOKENS), False, True)),
    (BODY.removesuffix(DONE), Reading(None, len(TOKENS), False, False)),
    (ending_with(event(usage=USAGE)), Reading(11, 7, True, True)),
    (ending_with(event(timings=TIMINGS)), Reading(11, 9, True, True)),
    (BODY.replace(b"\n", b"\r\n"), Reading(None, len(TOKENS), False, True)),
]


@pytest.mark.parametrize(
    ("body", "reading"), BODIES, ids=["counted", "broken off", "usage", "timings", "crlf"]
)
def test_a_stream_reads_the_same_wherever_it_is_cut_in_two(body, reading):
    for cut in range(len(body) + 1):
        assert read(body[:cut], body[cut:]) == reading, cut


@given(st.sampled_from(BODIES), st.lists(st.integers(0, 2000), max_size=30))
def test_a_stream_reads_the_same_in_any_pieces(body_and_reading, cuts):
    body, reading = body_and_reading
    edges = [0, *sorted(cut % len(body) for cut in cuts), len(body)]
    assert read(*(body[a:b] for a, b in pairwise(edges))) == reading


def test_a_stream_reads_the_same_byte_by_byte():
    for body, reading in BODIES:
        assert read(*(bytes([byte]) for byte in body)) == reading


def test_figures_are_still_found_at_the_end_of_a_long_stream():
    long = b"".join(pieces_of("chatcmpl-1", "a", ["word "] * 5000)).removesuffix(DONE)
    assert read(long, DONE) == Reading(None, 5000, False, True)
    assert read(long, event(usage=USAGE), DONE) == Reading(11, 7, True, True)


def test_usage_is_preferred_to_timings_and_the_last_statement_counts():
    both = event(usage=USAGE, timings=TIMINGS)
    assert read(BODY, both, DONE) == Reading(11, 7, True, True)
    later = event(usage={"prompt_tokens": 11, "completion_tokens": 8})
    assert read(BODY, both, later, DONE) == Reading(11, 8, True, True)
    assert read(BODY, both, event(usage=None), DONE) == Reading(11, 7, True, True)


def test_timings_without_a_cache_state_the_whole_prompt():
    timings = {"prompt_n": 7, "predicted_n": 9}
    assert read(ending_with(event(timings=timings))) == Reading(7, 9, True, True)


@pytest.mark.parametrize("space", [b"", b" "])
def test_the_space_after_the_colon_is_optional(space):
    body = ending_with(event(usage=USAGE)).replace(b"data: ", b"data:" + space)
    assert read(body) == Reading(11, 7, True, True)


@pytest.mark.parametrize(
    "fields",
    [
        {"usage": None},
        {"usage": {}},
        {"usage": 7},
        {"usage": {"prompt_tokens": 5}},
        {"usage": {"prompt_tokens": -1, "completion_tokens": 2}},
        {"usage": {"prompt_tokens": "5", "completion_tokens": 2}},
        {"usage": {"prompt_tokens": 10**12, "completion_tokens": 2}},
        {"timings": {"prompt_n": None, "predicted_n": 3}},
        {"timings": {"cache_n": None, "prompt_n": "5", "predicted_n": 3}},
        {"timings": []},
    ],
)
def test_figures_that_make_no_sense_count_as_not_stated(fields):
    # one event more than the tokens: the meter takes it for one of them
    assert read(ending_with(event(**fields))) == Reading(None, len(TOKENS) + 1, False, True)
    assert read(json.dumps(fields).encode(), stream=False) == Reading(None, 0, False, True)


@pytest.mark.parametrize(
    ("prompt", "output", "believed"),
    [
        (11, 7, True),
        (0, 16, True),
        (20, 16, True),
        (21, 7, False),
        (11, 17, False),
        (11, 0, False),
        (True, 7, False),
        (11, 7.0, False),
        (-1, 7, False),
        (10**30, 7, False),
    ],
)
def test_figures_that_cannot_be_are_replaced_by_a_count(prompt, output, believed):
    usage = {"prompt_tokens": prompt, "completion_tokens": output}
    for stream in (True, False):
        meter = AnswerMeter(stream, 1, most_prompt_tokens=20, most_output_tokens=16)
        document = json.loads(completion("c", "a", "x" * 32, 0, 0, "stop")) | {"usage": usage}
        whole = json.dumps(document).encode()
        meter.feed(ending_with(event(usage=usage)) if stream else whole)
        reading = meter.reading()
        assert reading.ended
        assert reading.stated == believed
        if believed:
            assert (reading.prompt_tokens, reading.output_tokens) == (prompt, output)
        else:
            counted = len(TOKENS) + 1 if stream else 8
            assert (reading.prompt_tokens, reading.output_tokens) == (None, counted)


def test_an_answer_of_nothing_may_say_so():
    body = b"".join(pieces_of("c", "a", [], usage=(11, 0)))
    assert read(body) == Reading(11, 0, True, True)


def test_an_empty_stream_says_nothing_and_has_not_ended():
    assert read() == read(b"") == Reading(None, 0, False, False)
    assert read(DONE) == Reading(None, 0, False, True)


def test_a_document_states_its_figures_in_any_pieces():
    body = completion("chatcmpl-1", "a", "Grüße", 11, 7, "stop")
    for cut in range(len(body)):
        assert read(body[:cut], body[cut:], stream=False) == Reading(11, 7, True, True)
    assert read(json.dumps({"timings": TIMINGS}).encode(), stream=False) == Reading(
        11, 9, True, True
    )


def test_a_document_without_figures_is_counted_at_four_bytes_a_token():
    document = json.loads(completion("chatcmpl-1", "a", "Grüße!", 11, 7, "stop"))
    del document["usage"]
    assert read(json.dumps(document).encode(), stream=False) == Reading(None, 2, False, True)


def test_a_document_may_hold_half_a_surrogate_pair():
    body = b'{"choices": [{"message": {"content": "\\ud83d"}}]}'
    assert read(body, stream=False) == Reading(None, 1, False, True)


def test_empty_pieces_tell_of_the_tokens_of_a_whole_answer_that_breaks_off():
    # one for the role, then one a token
    assert read(b"", b"", b"", stream=False) == Reading(None, 2, False, False)
    assert read(b"", stream=False) == Reading(None, 0, False, False)


def test_tokens_can_be_counted_along():
    meter, counts = AnswerMeter(True), []
    for piece in pieces_of("a", "x", ["Hello", " there", "."]):
        meter.feed(piece)
        counts.append(meter.n_tokens)
    # role, three tokens, finish reason, end mark
    assert counts[:4] == [0, 1, 2, 3]


def test_a_whole_answer_is_worth_more_than_its_empty_pieces():
    body = completion("chatcmpl-1", "a", "Hello", 11, 7, "stop")
    assert read(*[b""] * 4, body, stream=False) == Reading(11, 7, True, True)


def test_half_a_document_has_not_ended():
    body = completion("chatcmpl-1", "a", "Hello", 11, 7, "stop")
    for cut in range(len(body)):
        assert read(body[:cut], stream=False) == Reading(None, 0, False, False)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>502</html>",
        b"\xff\xfe",
        b"null",
        b"[1]",
        b'"text"',
        b"[" * 100_000,
        b'{"a":' * 3_000,
    ],
)
def test_a_body_that_is_no_json_object_says_nothing_and_has_not_ended(body):
    assert read(body, stream=False) == Reading(None, 0, False, False)
    assert not read(b'data: {"usage"' + body, stream=True).ended


@pytest.mark.parametrize(
    "choices",
    [7, {"a": 1}, [7], [{"message": 7}], [{"message": {"content": [{"text": "hi"}]}}], [{}], None],
)
def test_a_document_of_strange_choices_says_nothing(choices):
    body = json.dumps({"choices": choices}).encode()
    assert read(body, stream=False) == Reading(None, 0, False, True)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["usage", "timings", "choices", "message", "content", "prompt_n"]),
            inner,
        )
    ),
    max_leaves=10,
)


@given(json_values)
def test_no_json_confuses_the_meter(value):
    body = json.dumps(value).encode()
    assert read(body, stream=False).ended == isinstance(value, dict)
    assert read(b"data: " + body + b"\n\n", DONE).ended


@given(st.binary(min_size=1, max_size=60), st.binary(min_size=1, max_size=60))
def test_no_bytes_confuse_the_meter(one, other):
    for stream in (True, False):
        assert read(one, other, stream=stream) == read(one + other, stream=stream)


def test_the_pieces_of_a_stream_are_events_that_say_the_tokens():
    *events, done = pieces_of("chatcmpl-1", "a", TOKENS, "length")
    assert done == DONE
    documents = [json.loads(e.removeprefix(b"data: ")) for e in events]
    choices = [d["choices"][0] for d in documents]
    assert "".join(c["delta"].get("content", "") for c in choices) == "".join(TOKENS)
    assert [c["finish_reason"] for c in choices] == [None] * (len(TOKENS) + 1) + ["length"]
    assert {(d["id"], d["model"], d["object"]) for d in documents} == {
        ("chatcmpl-1", "a", "chat.completion.chunk")
    }


def test_an_event_is_one_line_whatever_it_says():
    assert chunk("id", "a", {"content": "one\ntwo\r\n\n"}, None).strip().count(b"\n") == 0


# ---- one more event before the end mark

MORE = b'data: {"choices": [], "coe": {}}\n\n'


async def passed(pieces):
    async def source():
        for piece in pieces:
            yield piece

    return [piece async for piece in before_end(source(), MORE)]


def cut(body, places):
    ends = sorted({0, len(body), *(place % (len(body) + 1) for place in places)})
    return [body[start:end] for start, end in pairwise(ends)]


@given(st.lists(st.integers(0, 10_000), max_size=40))
async def test_an_event_stands_before_the_end_mark_however_the_stream_is_cut(places):
    assert b"".join(await passed(cut(BODY, places))) == ending_with(MORE)


@pytest.mark.parametrize("end", [b"data:[DONE]\n\n", b"data: [DONE]", b"data: [DONE]\r\n\r\n"])
async def test_every_spelling_of_the_end_mark_is_known(end):
    body = BODY.removesuffix(DONE)
    for size in (1, 3, 1000):
        pieces = [(body + end)[k : k + size] for k in range(0, len(body + end), size)]
        assert b"".join(await passed(pieces)) == body + MORE + end


@pytest.mark.parametrize("body", [b"", b"data: [DO", BODY.removesuffix(DONE), b"xdata: [DONE]\n\n"])
async def test_a_stream_without_its_end_mark_stays_as_it_is(body):
    for size in (1, 5, 1000):
        pieces = [body[k : k + size] for k in range(0, len(body), size)]
        assert b"".join(await passed(pieces)) == body


async def test_pieces_are_passed_on_as_they_come():
    pieces = list(pieces_of("chatcmpl-1", "a", TOKENS))
    assert await passed(pieces) == [*pieces[:-1], MORE + DONE]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.dictionaries(st.text(), JSON), st.booleans())
def test_an_object_is_read_as_it_stands_without_what_is_no_number(document, plain):
    text = json.dumps(document, ensure_ascii=plain)
    slow = json.loads(text, parse_constant=lambda name: None)
    body = text.encode(errors="surrogatepass")
    assert json.dumps(object_in(body)) == json.dumps(slow)


@pytest.mark.parametrize("number", [-(2**63) - 1, 2**64, 10**19, -(10**18), 2**63, 10**40 + 1])
def test_a_long_number_is_exact_wherever_it_stands(number):
    for n_before in range(12):
        assert object_in(b'{"a":%b%d}' % (b" " * n_before, number)) == {"a": number}


@pytest.mark.parametrize("number", [b"NaN", b"-Infinity", b"1e999", b"-1.5E+400"])
@pytest.mark.parametrize("beside", [b"1", b"%d" % 10**30, rb'"\ud83d"'])
def test_what_no_finite_number_is_near_is_none(number, beside):
    found = object_in(b'{"a":%b,"b":%b}' % (number, beside))
    assert found == {"a": None, "b": json.loads(beside)}


@pytest.mark.parametrize("text", [b"", b"[]", b'"a"', b"{", b"{} {}", b"\xff", b"[" * 100_000])
def test_what_is_no_object_is_none(text):
    assert object_in(text) is None


def test_a_whole_answer_is_not_read_again():
    body = Whole(completion("chatcmpl-1", "a", "Hello", 11, 7, "stop"))
    body.document = {"usage": {"prompt_tokens": 3, "completion_tokens": 2}}
    assert object_in(body) is body.document
    assert together([body]) is body
    assert read(body, stream=False) == Reading(3, 2, True, True)
    assert read(b"", body, stream=False) == Reading(11, 7, True, True)

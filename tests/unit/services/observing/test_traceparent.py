"""Who a request's trace belongs to."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coe.services.observing.traceparent import begun, parsed

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GOOD = f"00-{TRACE}-{SPAN}-01"


def test_a_header_names_trace_span_and_whether_they_are_recorded():
    assert parsed(GOOD) == (int(TRACE, 16), int(SPAN, 16), True)
    assert parsed(f"00-{TRACE}-{SPAN}-00") == (int(TRACE, 16), int(SPAN, 16), False)
    # a version to come may say more
    assert parsed(f"01-{TRACE}-{SPAN}-01-more") == parsed(GOOD)


@pytest.mark.parametrize(
    "header",
    [
        "",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}",
        f" {GOOD}",
        f"01-{TRACE}-{SPAN}-01-" + "x" * 10_000,
        f"{GOOD}\n",
    ],
)
def test_what_is_malformed_counts_as_none(header):
    assert parsed(header) is None
    trace = begun(header, 1.0, random.Random(0))
    assert (trace.parent_id, trace.sampled) == (0, True)


@given(st.text(max_size=200))
def test_no_text_is_too_odd(text):
    assert parsed(text) is None or text[2:3] == "-"


def test_a_trace_goes_on_under_a_span_of_our_own():
    trace = begun(GOOD, 0.0, random.Random(0))
    assert (trace.trace_id, trace.parent_id, trace.sampled) == (int(TRACE, 16), int(SPAN, 16), True)
    assert parsed(trace.traceparent) == (trace.trace_id, trace.span_id, True)
    assert trace.span_id != trace.parent_id


def test_of_traces_that_begin_here_a_share_is_recorded():
    dice = random.Random(0)
    recorded = sum(begun("", 0.25, dice).sampled for _ in range(4000))
    assert 900 < recorded < 1100

"""``Retry-After``: seconds or a date, and nothing else."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coe.guard.retry_after import CAP_S, retry_after_s

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("1", 1.0),
        (" 2 ", 2.0),
        ("120", 120.0),
        ("300", 300.0),
        ("301", CAP_S),
        ("1000000000", CAP_S),
        ("Sun, 01 Mar 2026 12:00:05 GMT", 5.0),
        ("Sun, 01 Mar 2026 13:00:00 GMT", CAP_S),
        ("Fri, 31 Dec 9999 23:59:59 GMT", CAP_S),
    ],
)
def test_what_the_standard_has_is_kept_to_up_to_a_cap(header, seconds):
    assert retry_after_s(header, NOW) == seconds


@pytest.mark.parametrize(
    "header",
    [
        *(None, "", "0", "-1", "+1", "3.5", "1e9", "abc", "1, 2", "1 2", "٣", "nan", "1" * 5000),
        "Sun, 01 Mar 2026 11:59:59 GMT",
        "Thu, 01 Jan 1970 00:00:00 GMT",
        "Sun, 31 Feb 2026 12:00:05 GMT",
        "Sunday, 01-Mar-26 12:00:05 GMT",
        "2026-03-01T12:00:05Z",
        "Sun, 01 Mar 2026 12:00:05 +0200",
    ],
)
def test_anything_else_says_nothing(header):
    assert retry_after_s(header, NOW) is None


@given(st.text(max_size=40))
def test_whatever_is_sent_the_wait_is_bounded(header):
    seconds = retry_after_s(header, NOW)
    assert seconds is None or 0 < seconds <= CAP_S

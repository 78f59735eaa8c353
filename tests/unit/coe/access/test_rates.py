"""Rates on a clock that obeys: never more than flows in, and debts are paid first."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coe.access.bucket import Bucket
from coe.access.caller import Caller, Rates
from coe.access.rates import RateMeter
from coe.errors.callers import RateLimitError


def caller(key_id="a", **rates):
    return Caller(key_id, rates=Rates(**rates))


def admitted(meter, who, n):
    """How many of ``n`` requests at once are let in."""
    count = 0
    for _ in range(n):
        try:
            meter.admit(who)
        except RateLimitError:
            continue
        count += 1
    return count


def test_a_minutes_worth_at_once_and_then_what_flows_in(clock):
    meter, who = RateMeter(clock), caller(requests=60.0)
    assert admitted(meter, who, 100) == 60
    clock.seconds += 10
    assert admitted(meter, who, 100) == 10
    clock.seconds += 3600
    assert admitted(meter, who, 100) == 60


def test_the_wait_that_is_told_is_long_enough_and_not_longer_than_a_second_too_long(clock):
    meter, who = RateMeter(clock), caller(requests=7.0)
    admitted(meter, who, 7)
    with pytest.raises(RateLimitError) as refused:
        meter.admit(who)
    assert refused.value.retry_after_s == 9
    clock.seconds += 8.5
    assert admitted(meter, who, 1) == 0
    clock.seconds += 0.5
    assert admitted(meter, who, 1) == 1


def test_each_key_has_its_own(clock):
    meter = RateMeter(clock)
    assert admitted(meter, caller("a", requests=1.0), 5) == 1
    assert admitted(meter, caller("b", requests=1.0), 5) == 1
    assert admitted(meter, caller("c"), 5) == 5


@pytest.mark.parametrize(("axis", "took"), [("tokens", (250, 0.0)), ("joules", (0, 250.0))])
def test_what_was_taken_beyond_is_owed(clock, axis, took):
    meter, who = RateMeter(clock), caller(**{axis: 100.0})
    meter.admit(who)
    meter.charge("a", *took)
    with pytest.raises(RateLimitError, match=axis) as refused:
        meter.admit(who)
    # 150 owed and one to have, at 100 a minute
    assert refused.value.retry_after_s == 91
    clock.seconds += 90
    assert admitted(meter, who, 1) == 0
    clock.seconds += 1
    assert admitted(meter, who, 1) == 1


def test_a_refused_request_is_not_counted(clock):
    meter, who = RateMeter(clock), caller(requests=10.0, tokens=10.0)
    meter.admit(who)
    meter.charge("a", 100, 0.0)
    assert admitted(meter, who, 50) == 0
    assert dict(meter.told(who))["x-ratelimit-remaining-requests"] == "9"


def test_what_is_left_is_told(clock):
    meter, who = RateMeter(clock), caller(requests=60.0, joules=0.5)
    meter.admit(who)
    meter.charge("a", 5, 0.75)
    assert dict(meter.told(who)) == {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-reset-requests": "1.000s",
        "x-ratelimit-limit-joules": "0.5",
        "x-ratelimit-remaining-joules": "0",
        "x-ratelimit-reset-joules": "90.000s",
    }
    assert list(meter.told(caller("b"))) == []


def test_a_changed_rate_holds_at_once_and_a_removed_one_no_more(clock):
    meter = RateMeter(clock)
    assert admitted(meter, caller(requests=1.0), 5) == 1
    assert admitted(meter, caller(requests=3.0), 5) == 3
    assert admitted(meter, caller(tokens=3.0), 5) == 5
    assert admitted(meter, caller(), 5) == 5


def test_less_than_one_per_minute_is_one_per_while(clock):
    meter, who = RateMeter(clock), caller(requests=0.5)
    assert admitted(meter, who, 5) == 1
    clock.seconds += 59
    assert admitted(meter, who, 1) == 0
    clock.seconds += 61
    assert admitted(meter, who, 5) == 1


@given(
    st.floats(0.1, 1e6),
    st.lists(st.tuples(st.floats(0, 100), st.floats(0, 1e4)), max_size=30),
)
def test_no_more_is_let_in_than_flows_in(per_minute, steps):
    """What was taken before the last that was let in is at most a minute's worth and the inflow."""
    bucket, now_s, taken = Bucket.full(per_minute, 0.0), 0.0, 0.0
    for wait_s, amount in steps:
        now_s += wait_s
        if bucket.wait_s(now_s) == 0:
            most = per_minute * (1 + now_s / 60)
            assert taken <= most * (1 + 1e-9) + 1e-6
            bucket.take(amount, now_s)
            taken += amount
    assert bucket.at(now_s) <= per_minute


def test_a_clock_that_steps_back_gives_nothing(clock):
    bucket = Bucket.full(60.0, 100.0)
    bucket.take(60.0, 100.0)
    assert bucket.at(0.0) == 0
    assert bucket.at(100.0) == 0
    assert bucket.at(101.0) == pytest.approx(1.0)

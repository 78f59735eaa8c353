"""The limit of a replica in simulated time: it finds what the replica serves at once."""

import heapq

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coe.guard.limit import Limit


def served(limit, n_slots, seconds, rate_per_s=200.0, ttft_s=0.2, fails_above=None, from_s=0.0):
    """Requests come so fast that the limit is always used; beyond its slots a replica is slower."""
    ends, n_in_flight, now_s, history = [], 0, from_s, []
    while now_s < from_s + seconds:
        now_s += 1.0 / rate_per_s
        while ends and ends[0][0] <= now_s:
            end_s, sent_s, failed = heapq.heappop(ends)
            if failed:
                limit.bad(sent_s, end_s)
            else:
                limit.good(sent_s, end_s, ttft_s, n_in_flight)
            n_in_flight -= 1
        if n_in_flight < limit.now:
            n_in_flight += 1
            failed = fails_above is not None and n_in_flight > fails_above
            took_s = 0.01 if failed else ttft_s * max(1.0, n_in_flight / n_slots)
            heapq.heappush(ends, (now_s + took_s, now_s, failed))
        history.append(limit.now)
    return history


def test_it_begins_with_the_slots_that_are_said():
    assert (Limit(4.0, 16.0).now, Limit(1.0, 4.0).now) == (4, 1)


def test_a_replica_with_room_gets_all_of_four_times_its_slots():
    history = served(Limit(4.0, 16.0), n_slots=1000, seconds=20)
    assert history[-1] == max(history) == 16


@pytest.mark.parametrize("n_slots", [2, 4, 8])
def test_it_settles_where_first_tokens_take_twice_as_long(n_slots):
    limit = Limit(float(n_slots), 4.0 * n_slots)
    history = served(limit, n_slots, seconds=25)
    late = history[len(history) // 2 :]
    mean = sum(late) / len(late)
    assert n_slots <= mean <= 2.2 * n_slots
    assert max(late) < 4 * n_slots


def test_errors_push_it_down_and_it_recovers():
    limit = Limit(8.0, 32.0)
    down = served(limit, n_slots=1000, seconds=10, fails_above=3)
    assert sum(down[-500:]) / 500 < 4.5
    up = served(limit, n_slots=1000, seconds=30, from_s=10.0)
    assert up[-1] == 32


def test_a_limit_that_is_not_used_does_not_grow():
    limit = Limit(8.0, 32.0)
    for second in range(100):
        limit.good(float(second), second + 0.2, 0.2, n_in_flight=1)
    assert limit.now == 8


def test_a_burst_of_failures_cuts_once():
    limit = Limit(10.0, 40.0)
    for _ in range(10):
        limit.bad(sent_s=1.0, now_s=2.0)
    assert limit.value == 9.0
    limit.bad(sent_s=2.5, now_s=3.0)
    assert limit.value == pytest.approx(8.1)


@given(st.lists(st.tuples(st.sampled_from(["good", "bad"]), st.floats(0, 10), st.integers(1, 99))))
def test_it_stays_between_one_and_the_most(steps):
    limit, now_s = Limit(2.0, 8.0), 0.0
    for kind, took_s, n_in_flight in steps:
        sent_s, now_s = now_s, now_s + took_s
        if kind == "bad":
            limit.bad(sent_s, now_s)
        else:
            limit.good(sent_s, now_s, 0.5, n_in_flight)
        assert 1 <= limit.now <= limit.value <= 8.0

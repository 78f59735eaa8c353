"""How many requests may be answered at once, and of whom."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coe.crowd import Crowd, Line
from coe.errors.gateway import OverloadedError


def crowd(most=512, own=64):
    return Crowd(most, own, np.random.default_rng(0))


@given(st.lists(st.tuples(st.sampled_from(["", "a", "b", "c"]), st.booleans())))
def test_limits_hold_and_whoever_left_makes_room(steps):
    inside, kept = Counter(), crowd(5, 2)
    for caller, comes in steps:
        if comes:
            full = inside.total() == 5 or (caller != "" and inside[caller] == 2)
            if full:
                with pytest.raises(OverloadedError):
                    kept.enter(caller)
            else:
                kept.enter(caller)
                inside[caller] += 1
        elif inside[caller]:
            kept.leave(caller)
            inside[caller] -= 1
        assert kept.n == inside.total()


def test_one_caller_leaves_room_for_others():
    """One that asks for ten times its share costs nobody else a refusal."""
    kept = crowd()
    refused = Counter()
    for n in range(640):
        for caller in ["greedy", f"tenant-{n % 63}"] if n < 189 else ["greedy"]:
            try:
                kept.enter(caller)
            except OverloadedError:
                refused[caller] += 1
    assert refused == {"greedy": 640 - 64}


def test_nobody_in_particular_has_no_share_of_his_own():
    kept = crowd(100, 2)
    for _ in range(100):
        kept.enter("")
    with pytest.raises(OverloadedError, match="100 requests"):
        kept.enter("")


def test_who_is_refused_at_once_does_not_come_back_at_once():
    kept = crowd(1)
    kept.enter("")
    delays = []
    for _ in range(400):
        with pytest.raises(OverloadedError) as refused:
            kept.enter("")
        delays.append(refused.value.retry_after_s)
    shares = Counter(delays)
    assert shares.keys() == {1, 2, 3, 4, 5}
    assert min(shares.values()) > 50


# ---- the line


@given(st.lists(st.integers(0, 20), max_size=30), st.integers(1, 8))
def test_so_many_begin_in_a_turn_in_the_order_in_which_they_came(arrivals, per_turn):
    line = Line(per_turn, 1.0, lambda: 0.0)
    came, begun = 0, []
    for n in [*arrivals, *[0] * 100]:
        started = line.next_turn()
        for _ in range(n):
            if line.begins():
                started.append(came)
            else:
                line.join(came)
            came += 1
        assert len(started) <= per_turn
        assert len(started) == per_turn or len(begun) + len(started) == came
        begun += started
        if n == 0 and len(begun) == came:
            assert line.next_turn() == []
            assert not line.begun
    assert begun == sorted(begun)


def test_nobody_joins_a_line_whose_first_has_waited_too_long(clock):
    line = Line(1, 0.5, clock)
    assert line.begins()
    for who in "abc":
        line.join(who)
    for who in "ab":
        clock.seconds += 0.25
        assert not line.too_long
        assert line.next_turn() == [who]
    clock.seconds += 0.125
    line.join("d")
    assert line.too_long
    assert line.next_turn() == ["c"]
    assert not line.too_long


def test_nobody_is_sent_away_because_the_process_stood_still(clock):
    line = Line(2, 0.5, clock)
    assert line.begins()
    assert line.begins()
    for who in range(10):
        line.join(who)
    clock.seconds += 60.0
    # those who came meanwhile are seen to before the next turn, or after it
    assert not line.too_long
    line.join(10)
    assert line.next_turn() == [0, 1]
    assert not line.too_long
    for _ in range(2):
        clock.seconds += 0.25
        line.next_turn()
    assert line.too_long

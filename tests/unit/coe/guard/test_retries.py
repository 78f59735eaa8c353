"""The budget of retries, on a clock that stands still and on one that runs."""

from random import Random

import pytest

from coe.guard.retries import Retries


@pytest.mark.parametrize("percent", [0, 1, 10, 50, 100])
@pytest.mark.parametrize("per_s", [0.0, 1.0])
def test_on_a_frozen_clock_retries_are_a_share_of_requests_and_the_floor(percent, per_s):
    """T-P03, as Finagle has it: 10,000 requests, each of which would be tried again."""
    retries, n = Retries(percent, per_s), 0
    for _ in range(10_000):
        retries.asked(5.0)
        n += retries.take(5.0)
    assert abs(n - min(10_000 * percent // 100 + 10 * per_s, 10_000)) <= 1
    assert (retries.n_spent, retries.n_refused) == (n, 10_000 - n)


def test_the_floor_is_so_many_in_any_ten_seconds():
    retries = Retries()
    assert [retries.take(0.0) for _ in range(11)] == [True] * 10 + [False]
    assert not retries.take(8.9)
    assert [retries.take(10.0) for _ in range(11)] == [True] * 10 + [False]


def test_what_was_paid_in_is_lost_after_its_time():
    retries = Retries(per_s=0.0)
    for _ in range(100):
        retries.asked(0.0)
    assert retries.take(8.9)
    assert not retries.take(10.1)


@pytest.mark.parametrize("seed", range(5))
def test_in_a_total_outage_attempts_are_few_more_than_requests(seed):
    """T-L4: 100 requests a second, none answered for 30 s."""
    rng, retries, now_s, n_requests, n_attempts = Random(seed), Retries(), 0.0, 0, 0
    by_second = [0] * 31
    while (now_s := now_s + rng.expovariate(100.0)) < 30.0:
        retries.asked(now_s)
        n_requests += 1
        again = retries.take(now_s)
        n_attempts += 1 + again
        by_second[int(now_s)] += again
    assert n_attempts <= 1.15 * n_requests


def test_a_clock_that_steps_back_gives_nothing_away():
    retries = Retries()
    assert sum(retries.take(100.0) for _ in range(20)) == 10
    assert sum(retries.take(95.0) for _ in range(20)) == 0

"""When a stream is late, and how many second requests that may cost."""

from random import Random

import pytest

from coe.guard.hedging import LEAST_KNOWN, Hedging


def test_late_is_what_one_in_twenty_is():
    hedging = Hedging()
    for k in range(1, LEAST_KNOWN):
        hedging.began(0.01 * k)
    assert hedging.delay_s is None
    for k in range(LEAST_KNOWN, 201):
        hedging.began(0.01 * k)
    assert hedging.delay_s == pytest.approx(1.9, abs=0.02)


def test_old_first_tokens_are_forgotten():
    hedging = Hedging()
    for _ in range(200):
        hedging.began(5.0)
    for _ in range(200):
        hedging.began(0.1)
    assert hedging.delay_s == 0.1


def test_of_few_streams_none_is_asked_for_twice():
    hedging = Hedging()
    for _ in range(49):
        hedging.asked(0.0)
    assert not hedging.take(0.0)
    hedging.asked(0.0)
    assert hedging.take(0.0)
    assert not hedging.take(0.0)


@pytest.mark.parametrize("seed", range(5))
def test_second_requests_are_two_in_a_hundred_and_never_five(seed):
    """T-P05: every stream would be hedged; rates between two and two hundred a second."""
    rng, hedging, now_s, log = Random(seed), Hedging(), 0.0, []
    for n in range(20_000):
        now_s += rng.expovariate(2.0 if n // 2000 % 2 else 200.0)
        hedging.asked(now_s)
        log.append(hedging.take(now_s))
        if n >= 100:
            assert sum(log[-100:]) <= 5
    assert sum(log) == hedging.n_hedged <= 0.02 * len(log)

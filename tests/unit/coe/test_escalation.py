"""The bucket of escalations: what it promises, whatever is asked."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coe.escalation import Escalations

STEPS = st.lists(st.tuples(st.floats(0, 100), st.sampled_from("abcd")), max_size=60)


@given(STEPS, st.floats(0.1, 60), st.integers(1, 5))
def test_no_tenant_gets_more_than_its_burst_and_its_rate(steps, per_minute, burst):
    now, taken = [0.0], []
    bucket = Escalations(per_minute, burst, lambda: now[0])
    for pause, tenant in steps:
        now[0] += pause
        if bucket.take(tenant):
            taken.append((now[0], tenant))
    for tenant in "abcd":
        own = [at for at, who in taken if who == tenant]
        for k, since in enumerate(own):
            for n, until in enumerate(own[k:], start=1):
                assert n <= burst + (until - since) * per_minute / 60 + 1e-9


@given(STEPS, st.integers(1, 3))
def test_new_names_are_no_way_around_the_bounds(steps, most_tenants):
    """All together get no more than the kept buckets and the shared one hold."""
    now, taken = [0.0], 0
    bucket = Escalations(6.0, 2, lambda: now[0], most_tenants)
    for n, (pause, _) in enumerate(steps):
        now[0] += pause
        taken += bucket.take(f"tenant {n}")
    assert len(bucket._kept) <= most_tenants
    assert taken <= (most_tenants + 1) * (2 + now[0] * 6.0 / 60) + 1e-9


def test_one_tenant_s_haste_is_nobody_else_s_loss(clock):
    bucket = Escalations(1.0, 2, clock)
    assert [bucket.take("hasty") for _ in range(3)] == [True, True, False]
    assert bucket.take("calm")


async def test_what_was_taken_comes_back_with_time(clock):
    bucket = Escalations(2.0, 1, clock)
    assert [bucket.take("a"), bucket.take("a")] == [True, False]
    await clock.sleep(29.0)
    assert not bucket.take("a")
    await clock.sleep(1.0)
    assert bucket.take("a")


async def test_who_has_not_asked_for_long_is_forgotten(clock):
    bucket = Escalations(60.0, 3, clock, most_tenants=2)
    for tenant in ("a", "b"):
        assert bucket.take(tenant)
    await clock.sleep(5.0)
    assert bucket.take("c")
    assert list(bucket._kept) == ["c"]


@pytest.mark.parametrize("tenant", ["", "a"])
def test_a_burst_is_there_from_the_beginning(clock, tenant):
    bucket = Escalations(1.0, 100, clock)
    assert sum(bucket.take(tenant) for _ in range(200)) == 100

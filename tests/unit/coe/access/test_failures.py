"""Wrong keys are counted by address, and the count takes no more room than it may."""

from ipaddress import IPv6Address

import pytest

from coe.access.failures import Failures


def noted(failures, address, n):
    return [failures.note(address) for _ in range(n)]


def test_a_thousand_wrong_keys_in_ten_seconds_are_put_off_after_the_first(clock):
    failures = Failures(60.0, clock)
    waits = []
    for _ in range(1000):
        waits += noted(failures, "192.0.2.1", 1)
        clock.seconds += 0.01
    assert waits[:60] == [None] * 60
    # 60 at once and one a second
    assert 68 <= waits.count(None) <= 71
    assert {wait for wait in waits if wait is not None} == {1}


def test_others_are_not_put_off(clock):
    failures = Failures(1.0, clock)
    assert noted(failures, "192.0.2.1", 2) == [None, 60]
    assert noted(failures, "192.0.2.2", 1) == [None]
    assert noted(failures, "::ffff:192.0.2.1", 1) == [60]


def test_the_addresses_of_one_machine_are_one(clock):
    failures = Failures(3.0, clock)
    waits = [failures.note(str(IPv6Address(f"2001:db8::{n:x}"))) for n in range(5)]
    assert waits == [None, None, None, 20, 20]
    assert failures.note("2001:db8:0:1::1") is None


@pytest.mark.parametrize("address", ["", "a socket", "fe80::1%eth0"])
def test_any_address_will_do(clock, address):
    assert noted(Failures(1.0, clock), address, 2) == [None, 60]


def test_there_are_no_more_of_them_than_there_may_be(clock):
    failures = Failures(1.0, clock, most_addresses=100)
    for n in range(5000):
        failures.note(f"10.0.{n // 250}.{n % 250}")
    assert len(failures) == 100
    # the last ones are remembered
    assert failures.note("10.0.19.249") == 60

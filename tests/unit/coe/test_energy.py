"""Which requests count as metered, and how one is settled before its reading has come."""

import pytest

from coe.device import DeviceProfile
from coe.energy import EnergyAccount
from coe.meter import MeterReading

# tokens of 1 J, ten a second; no prompt to speak of
PROFILE = DeviceProfile("ten watts", 0.0, 0.0, 0.0, 10.0, 0.0, 10.0)


@pytest.fixture
def account(clock):
    return EnergyAccount("board", now=clock)


def told(account, clock, energy_j, at_s=None, origin=0):
    account.note_reading(MeterReading(clock() if at_s is None else at_s, energy_j, origin))


def balanced(account):
    parts = account.idle_j + account.requests_j + account.carried_j
    return account.metered_j == pytest.approx(parts, abs=1e-9)


def ten_seconds_of_twenty_watts(account, clock):
    """A request at ten tokens a second whose machine draws twenty watts, in flight."""
    told(account, clock, 0.0)
    claim = account.enter(PROFILE, 100)
    for second in range(1, 11):
        clock.seconds += 1.0
        claim.note(10 * second)
        told(account, clock, 20.0 * second)
    return claim


def test_a_request_that_a_reading_ends_with_gets_what_was_drawn(account, clock):
    claim = ten_seconds_of_twenty_watts(account, clock)
    assert claim.leave() == pytest.approx(200.0)
    assert (account.requests_j, account.idle_j, account.carried_j) == (200.0, 0.0, 0.0)


def test_the_tail_that_no_reading_covers_yet_costs_what_work_cost_before(account, clock):
    claim = ten_seconds_of_twenty_watts(account, clock)
    clock.seconds += 0.5
    claim.note(105)
    assert claim.leave() == pytest.approx(210.0)
    assert account.carried_j == pytest.approx(-10.0)
    clock.seconds += 0.5
    told(account, clock, 214.0)
    # the reading gives the half second 14 J instead of 10: the rest is carried, not lost
    assert account.carried_j == pytest.approx(4.0)
    assert account.idle_j == 0
    assert balanced(account)


def test_a_tail_without_work_costs_nothing_more(account, clock):
    claim = ten_seconds_of_twenty_watts(account, clock)
    clock.seconds += 0.5
    assert claim.leave() == pytest.approx(200.0)


def test_where_no_work_was_seen_the_tail_goes_by_time(account, clock):
    told(account, clock, 0.0)
    claim = account.enter(PROFILE, 100)
    clock.seconds += 4.0
    told(account, clock, 8.0)
    clock.seconds += 1.0
    assert claim.leave() == pytest.approx(10.0)


def test_a_request_of_which_readings_cover_too_little_was_not_metered(account, clock):
    told(account, clock, 0.0)
    claim = account.enter(PROFILE, 100)
    clock.seconds += 1.0
    told(account, clock, 20.0)
    clock.seconds += 0.5
    assert claim.leave() is None
    clock.seconds += 0.5
    told(account, clock, 40.0)
    assert (account.requests_j, account.carried_j) == (20.0, 20.0)


def test_a_request_between_two_readings_was_not_metered_and_its_joules_are_carried(account, clock):
    told(account, clock, 0.0)
    clock.seconds += 0.25
    claim = account.enter(PROFILE, 100)
    clock.seconds += 0.5
    assert claim.leave() is None
    clock.seconds += 0.25
    told(account, clock, 30.0)
    assert (account.carried_j, account.idle_j) == (30.0, 0.0)


def test_a_request_that_reads_the_meter_at_both_ends_needs_no_other_reading(clock):
    account = EnergyAccount("rail", now=clock)
    account.refresh = lambda: told(account, clock, 20.0 * clock())
    clock.seconds = 0.5
    claim = account.enter(PROFILE, 100)
    clock.seconds += 0.25
    assert claim.leave() == pytest.approx(5.0)


def test_a_request_from_before_the_first_reading_was_not_metered(account, clock):
    claim = account.enter(PROFILE, 100)
    clock.seconds += 0.5
    told(account, clock, 5.0)
    clock.seconds += 9.5
    claim.note(1)
    told(account, clock, 6.0)
    assert claim.leave() is None


def test_a_late_first_reading_does_not_spoil_who_came_after_it(account, clock):
    clock.seconds = 10.0
    claim = account.enter(PROFILE, 100)
    told(account, clock, 0.0, at_s=9.5)
    clock.seconds += 1.0
    told(account, clock, 7.0)
    assert claim.leave() == pytest.approx(7.0)


@pytest.mark.parametrize(
    ("energy_j", "at_s", "origin"),
    [(300.0, 15.5, 0), (201.0, 11.0, 1), (1.0, 11.0, 0)],
    ids=["too far apart", "watched by another", "began anew"],
)
def test_what_lies_across_a_break_is_left_out_of_every_sum(account, clock, energy_j, at_s, origin):
    claim = ten_seconds_of_twenty_watts(account, clock)
    clock.seconds = at_s
    told(account, clock, energy_j, origin=origin)
    assert account.metered_j == 200.0
    clock.seconds += 1.0
    told(account, clock, energy_j + 3.0, origin=origin)
    assert account.metered_j == 203.0
    assert claim.leave() is None
    assert balanced(account)


def test_an_old_reading_is_ignored(account, clock):
    ten_seconds_of_twenty_watts(account, clock)
    told(account, clock, 500.0)
    told(account, clock, 500.0, at_s=3.0)
    assert account.metered_j == 200.0


def test_a_second_reading_of_the_same_moment_waits_for_the_next(account, clock):
    claim = ten_seconds_of_twenty_watts(account, clock)
    told(account, clock, 207.0)
    assert (account.metered_j, account.idle_j) == (200.0, 0.0)
    clock.seconds += 1.0
    told(account, clock, 220.0)
    assert claim.share_j == pytest.approx(220.0)


def test_a_token_at_the_moment_of_a_reading_counts_for_the_next(account, clock):
    told(account, clock, 0.0)
    one, two = account.enter(PROFILE, 0), account.enter(PROFILE, 0)
    clock.seconds += 1.0
    told(account, clock, 10.0)
    one.note(1)
    clock.seconds += 1.0
    told(account, clock, 20.0)
    assert (one.share_j, two.share_j) == pytest.approx((15.0, 5.0))


def test_requests_that_do_nothing_share_by_their_time_in_flight(account, clock):
    told(account, clock, 0.0)
    first = account.enter(PROFILE, 100)
    clock.seconds += 3.0
    second = account.enter(PROFILE, 100)
    clock.seconds += 1.0
    told(account, clock, 10.0)
    assert (first.share_j, second.share_j) == pytest.approx((8.0, 2.0))


def test_while_nothing_is_in_flight_all_is_idle(account, clock):
    ten_seconds_of_twenty_watts(account, clock).leave()
    clock.seconds += 1.0
    told(account, clock, 205.0)
    assert (account.idle_j, account.requests_j) == (5.0, 200.0)


def test_idle_power_is_taken_off_first_and_never_more_than_there_is(clock):
    account = EnergyAccount("board", idle_w=15.0, now=clock)
    claim = ten_seconds_of_twenty_watts(account, clock)
    assert claim.leave() == pytest.approx(50.0)
    account = EnergyAccount("board", idle_w=25.0, now=clock)
    claim = ten_seconds_of_twenty_watts(account, clock)
    assert claim.leave() == 0.0
    assert account.idle_j == pytest.approx(200.0)


def test_behind_a_meter_that_died_nothing_piles_up(account, clock):
    ten_seconds_of_twenty_watts(account, clock).leave()
    for _ in range(100):
        claim = account.enter(PROFILE, 100)
        clock.seconds += 1.0
        claim.note(10)
        assert claim.leave() is None
    assert account.waiting <= account.longest_gap_s + 1


def test_experts_of_one_machine_share_by_what_their_work_is_predicted_to_cost(account, clock):
    dear = DeviceProfile("forty watts", 0.0, 0.0, 0.0, 10.0, 0.0, 40.0)
    told(account, clock, 0.0)
    cheap_one, dear_one = account.enter(PROFILE, 0), account.enter(dear, 0)
    clock.seconds += 1.0
    cheap_one.note(10)
    dear_one.note(10)
    told(account, clock, 100.0)
    assert (cheap_one.leave(), dear_one.leave()) == pytest.approx((20.0, 80.0))


def test_a_prompt_weighs_what_reading_it_costs_from_the_start(account, clock):
    # a prompt of 30 J, read in 3 s at 10 W, beside tokens of 1 J
    reader = DeviceProfile("reads", 0.0, 10.0, 0.0, 10.0, 10.0, 10.0)
    told(account, clock, 0.0)
    reading, writing = account.enter(reader, 300), account.enter(PROFILE, 0)
    clock.seconds += 1.0
    writing.note(10)
    told(account, clock, 30.0)
    assert (reading.share_j, writing.share_j) == pytest.approx((15.0, 15.0))
    # the first token comes after one more second, sooner than predicted: 20 J of work at once
    clock.seconds += 1.0
    reading.note(1)
    writing.note(20)
    told(account, clock, 61.0)
    assert (reading.share_j, writing.share_j) == pytest.approx((15.0 + 21.0, 15.0 + 10.0))


def test_an_answer_never_gets_shorter(account, clock):
    claim = account.enter(PROFILE, 0)
    claim.note(3)
    claim.note(2)
    assert claim.n_tokens == 3


def test_joules_of_requests_that_nobody_told_of_are_in_no_sum(account, clock):
    claim = ten_seconds_of_twenty_watts(account, clock)
    before_j = account.metered_j
    clock.seconds += 1.0
    account.note_reading(MeterReading(clock(), 500.0), alone=False)
    assert account.metered_j == before_j
    assert claim.leave() is None
    clock.seconds += 1.0
    told(account, clock, 510.0)
    assert account.idle_j == pytest.approx(10.0)
    assert balanced(account)


def test_in_flight_is_who_had_come_and_not_gone(account, clock):
    told(account, clock, 0.0)
    started_s = clock()
    claim = account.enter(PROFILE, 0)
    clock.seconds += 2.0
    account.enter(PROFILE, 0, n_answers=3)
    clock.seconds += 2.0
    claim.leave()
    clock.seconds += 2.0
    counts = [account.in_flight(started_s + after_s) for after_s in (-1, 0, 1, 3, 4, 5)]
    assert counts == [0, 1, 1, 4, 4, 3]

"""Running prices: when there are any, what moves them, whose they are."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from coe.optimizer.demand import Arrivals
from coe.optimizer.pacing import KEPT, Allowance, Pacer

# a good expert at 10 J and a fair one at 1 J, worth a switch at 0.4 / 9 quality per J and beyond
GOOD, FAIR = 10.0, 1.0
QUALITY = np.array([0.9, 0.5])
ENERGY = np.array([[GOOD], [FAIR]])
SWITCH = 0.4 / (GOOD - FAIR)


def drive(pacer, seconds, per_s=1.0, tenant=None, start=0.0, settles=True, scale=None):
    """A stream of requests who each take what is worth most; joules taken per request."""
    taken = []
    for k in range(int(seconds * per_s)):
        now_s = start + k / per_s
        price = pacer.prices(now_s, tenant)["energy_j"]
        usage = ENERGY * (1.0 if scale is None else scale(k))
        pacer.observe(now_s, QUALITY, usage, tenant)
        joules = float(usage[np.argmax(QUALITY - price * usage[:, 0]), 0])
        taken.append(joules)
        if settles:
            pacer.settle(now_s, {"energy_j": joules}, tenant)
    return taken


def price(pacer, now_s, tenant=None):
    return pacer.prices(now_s, tenant)["energy_j"]


def test_with_ample_budget_nothing_costs_anything():
    pacer = Pacer([Allowance("energy_j", 11_000, 1000)])
    assert drive(pacer, 1000) == [GOOD] * 1000


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_a_scarce_budget_lasts_the_window_and_is_used(share):
    pacer = Pacer([Allowance("energy_j", share * 10_000, 1000)])
    # lengths differ, so that some requests are worth their joules more than others
    lengths = np.random.default_rng(0).uniform(0.2, 1.8, 1000)
    taken = drive(pacer, 1000, scale=lambda k: lengths[k])
    assert 0.9 * share * 10_000 <= sum(taken) <= 1.02 * share * 10_000
    assert sum(taken[500:]) == pytest.approx(sum(taken[:500]), rel=0.25)


def test_without_requests_there_is_no_price():
    pacer = Pacer([Allowance("energy_j", 1e-9, 10)])
    assert pacer.prices(5.0) == {"energy_j": 0.0}
    drive(pacer, 7, start=6.0)
    assert price(pacer, 9.5) == 0.0


def test_a_spent_budget_has_a_price_at_which_the_least_is_taken():
    pacer = Pacer([Allowance("energy_j", 50, 1000)])
    drive(pacer, 100)
    assert SWITCH < price(pacer, 100.0) < math.inf
    assert pacer.left(100.0)[0] < 0


def test_a_new_window_begins_with_the_whole_budget_and_what_was_learned():
    pacer = Pacer([Allowance("energy_j", 300, 100)])
    drive(pacer, 100)
    assert pacer.left(100.0) == (300,)
    assert price(pacer, 100.0) > SWITCH  # 3 J a request, known from the window before


def test_a_budget_is_ample_again_when_requests_stay_away():
    pacer = Pacer([Allowance("energy_j", 3_000, 1000)])
    drive(pacer, 500, settles=False)
    assert price(pacer, 500.0) > 0
    assert price(pacer, 990.0) == 0.0


def test_a_forecast_takes_the_place_of_the_recent_rate():
    asked = []

    def busy_later(allowance, now_s, end_s):
        asked.append((allowance.amount, now_s, end_s))
        return 1000.0

    allowances = [Allowance("energy_j", 3000, 1000)]
    pacer = Pacer(allowances, forecast=busy_later)
    drive(pacer, 20, settles=False)
    assert price(pacer, 30.0) > SWITCH  # 3 J each, though only twenty came
    assert {(amount, end_s) for amount, _, end_s in asked} == {(3000, 1000.0)}
    twin = Pacer.restored(allowances, pacer.state(), busy_later)
    assert twin.prices(500.0) == pacer.prices(500.0)
    assert price(Pacer.restored(allowances, pacer.state()), 600.0) == 0.0


def test_what_an_earlier_window_began_is_not_booked_on_this_one():
    pacer = Pacer([Allowance("energy_j", 100, 10), Allowance("energy_j", 500, 50)])
    pacer.settle(9.0, {"energy_j": 30})
    assert pacer.left(11.0) == (100, 470)
    pacer.settle(9.5, {"energy_j": 30})
    assert pacer.left(12.0) == (100, 440)


def test_windows_follow_the_start_of_the_first():
    pacer = Pacer([Allowance("energy_j", 100, 10)], started_s=7.0)
    pacer.settle(8.0, {"energy_j": 30})
    assert pacer.left(16.9) == (70,)
    assert pacer.left(17.0) == (100,)


def test_a_tenant_pays_for_its_own_budget_and_for_that_of_all():
    everyone, one = Allowance("energy_j", 1e9, 1000), Allowance("energy_j", 300, 1000, "one")
    pacer = Pacer([everyone, one])
    drive(pacer, 50, tenant="one")
    drive(pacer, 50, tenant="other", start=50)
    assert price(pacer, 100.0, "one") > SWITCH
    assert price(pacer, 100.0, "other") == price(pacer, 100.0) == 0.0
    ones = 300 - pacer.left(100.0)[1]
    assert pacer.left(100.0)[0] == pytest.approx(1e9 - ones - 50 * GOOD)


def test_prices_of_nested_budgets_add_up_to_no_more_than_is_needed():
    same = [Allowance("energy_j", 500, 100), Allowance("energy_j", 500, 100, "one")]
    both, single = Pacer(same), Pacer(same[:1])
    lengths = np.random.default_rng(1).uniform(0.2, 1.8, 100)
    taken = drive(both, 100, tenant="one", scale=lambda k: lengths[k])
    alone = drive(single, 100, scale=lambda k: lengths[k])
    assert sum(taken) == pytest.approx(sum(alone), rel=0.05)


def test_each_resource_has_its_own_price():
    pacer = Pacer([Allowance("energy_j", 1e9, 1000), Allowance("cost_usd", 1.0, 1000)])
    usage = np.array([[10.0, 0.1], [1.0, 0.001]])
    for k in range(32):
        pacer.observe(float(k), QUALITY, usage)
    prices = pacer.prices(32.0)
    assert prices["energy_j"] == 0.0
    assert prices["cost_usd"] > 0.4 / 0.099


def test_requests_are_a_resource_where_they_may_be_declined():
    pacer = Pacer([Allowance("requests", 50, 100)])
    worth = np.random.default_rng(2).uniform(0.1, 0.9, 100)
    answered = 0
    for k, quality in enumerate(worth):
        cost = pacer.prices(float(k))["requests"]
        pacer.observe(float(k), np.array([quality, 0.0]), np.array([[1.0], [0.0]]))
        if quality >= cost:
            answered += 1
            pacer.settle(float(k), {"requests": 1})
    assert answered == pytest.approx(50, abs=6)


@pytest.mark.parametrize("demand", [0.7, 1.0, 1.4])
def test_requests_of_one_worth_are_paid_for_evenly(demand):
    # all are worth the same, so that at any one price all or none would be answered
    pacer = Pacer([Allowance("requests", 100, 1000)], forecast=lambda a, n, e: demand * (e - n))
    answered = []
    for k in range(1000):
        cost = pacer.prices(float(k))["requests"]
        pacer.observe(float(k), np.array([0.5, 0.0]), np.array([[1.0], [0.0]]))
        if 0.5 > cost and sum(answered) < 100:
            pacer.settle(float(k), {"requests": 1})
        answered.append(0.5 > cost and sum(answered) < 100)
    assert 85 <= sum(answered) <= 100
    assert 30 <= sum(answered[:500]) <= 75


def test_what_declines_is_scarce_and_may():
    usage = np.array([[10.0, 0.1], [1.0, 0.01], [0.0, 0.0]])
    takes = {"energy_j": 1.0, "cost_usd": 0.01}

    def decliner(*allowances):
        pacer = Pacer(allowances)
        assert pacer.decliner(takes) is None
        for k in range(32):
            pacer.observe(float(k), np.append(QUALITY, 0.0), usage)
        pacer.prices(32.0)
        return pacer.decliner(takes)

    day = Allowance("energy_j", 10, 1000, name="day", may_decline=True)
    month = Allowance("cost_usd", 1e9, 1000, name="month", may_decline=True)
    assert decliner(day, month) == decliner(month, day) == day
    assert decliner(month, replace(day, may_decline=False)) is None
    assert decliner(replace(day, amount=1e9), month) is None


def test_with_several_allowances_one_price_after_another_comes_to_the_same():
    allowances = [Allowance("energy_j", 3000, 1000), Allowance("cost_usd", 5.0, 1000)]
    lengths = np.random.default_rng(3).uniform(0.2, 1.8, 1000)
    pacer, totals = Pacer(allowances), np.zeros(2)
    for k, length in enumerate(lengths):
        usage = np.array([[10.0, 0.002], [1.0, 0.01], [0.5, 0.001]]) * length
        quality = np.array([0.9, 0.8, 0.3])
        asked = np.array(list(pacer.prices(float(k)).values()))
        pacer.observe(float(k), quality, usage)
        taken = usage[np.argmax(quality - usage @ asked)]
        totals += taken
        pacer.settle(float(k), dict(zip(pacer.resources, taken.tolist(), strict=True)))
    shares = totals / [3000, 5.0]
    assert np.all(shares <= 1.03)
    assert shares.max() >= 0.93


def test_options_may_differ_in_number_and_old_requests_are_forgotten():
    pacer = Pacer([Allowance("energy_j", 3 * KEPT, KEPT)])
    for k in range(20):
        pacer.observe(float(k), np.array([0.9, 0.5, 0.4]), np.array([[10.0], [1.0], [0.5]]))
        pacer.observe(float(k), np.array([0.9]), np.array([[10.0]]))
    for k in range(20, 20 + KEPT):
        pacer.observe(float(k), np.array([0.9, 0.8]), np.array([[1.0], [0.5]]))
    assert price(pacer, 20.0 + KEPT) == 0.0


def test_its_state_is_plain_and_goes_on_where_it_was():
    allowances = [Allowance("energy_j", 300, 100), Allowance("energy_j", 2000, 500, "one")]
    pacer = Pacer(allowances, started_s=-3.0)
    fresh = Pacer.restored(allowances, json.loads(json.dumps(pacer.state())))
    assert fresh.state() == pacer.state()
    drive(pacer, KEPT + 70, tenant="one")
    twin = Pacer.restored(allowances, json.loads(json.dumps(pacer.state())))
    assert twin.state() == pacer.state()
    start = KEPT + 70.0
    assert drive(twin, 200, tenant="one", start=start) == drive(
        pacer, 200, tenant="one", start=start
    )


@pytest.mark.parametrize("wrong", [0.0, -1.0, math.inf, math.nan])
@pytest.mark.parametrize("field", ["amount", "window_s"])
def test_an_allowance_names_its_wrong_field(field, wrong):
    with pytest.raises(ValueError, match=field):
        Allowance("energy_j", **{"amount": 1.0, "window_s": 1.0} | {field: wrong})


@pytest.mark.parametrize(
    ("quality", "usage", "named"),
    [
        ([], [], "quality"),
        ([0.5], [[1.0, 2.0]], "usage"),
        ([math.nan], [[1.0]], "finite"),
        ([0.5], [[-1.0]], "negative"),
    ],
)
def test_options_that_are_none_are_refused(quality, usage, named):
    pacer = Pacer([Allowance("energy_j", 1, 1)])
    with pytest.raises(ValueError, match=named):
        pacer.observe(0.0, np.array(quality), np.array(usage))


def test_wrong_amounts_are_refused():
    pacer = Pacer([Allowance("energy_j", 1, 1)])
    with pytest.raises(ValueError, match="energy_j"):
        pacer.settle(0.0, {"energy_j": math.nan})
    with pytest.raises(ValueError, match="allowances"):
        Pacer([])


def test_a_steady_stream_has_its_rate_from_the_beginning():
    arrivals = Arrivals(memory_s=100.0, since_s=0.0)
    for k in range(1000):
        arrivals.add((k + 1) / 4.0)
        if k >= 20:
            assert arrivals.per_s((k + 1) / 4.0) == pytest.approx(4.0, rel=0.1)
    assert arrivals.per_s(250.0 + 100.0) < 4.0 / math.e * 1.1


def test_a_rate_is_finite_at_the_very_beginning():
    arrivals = Arrivals(memory_s=100.0, since_s=0.0)
    arrivals.add(0.0)
    assert 0 < arrivals.per_s(0.0) < 2


def test_other_allowances_begin_with_what_is_known_of_those_that_stay():
    day = Allowance("energy_j", 1000, 1000, name="day")
    pacer = Pacer([day, Allowance("energy_j", 50, 100, name="minute")])
    drive(pacer, 60)
    before, asked = pacer.left(60.0), price(pacer, 60.0)
    pacer.become([replace(day, amount=2000), Allowance("energy_j", 70, 30, name="new")], 60.0)
    assert pacer.left(60.0) == (before[0] + 1000, 70)
    drive(pacer, 20, start=60.0)
    assert pacer.left(80.0)[0] < before[0] + 1000
    # half as much is left for the rest as was planned: it costs more than it did
    pacer.become([replace(day, amount=100)], 80.0)
    assert price(pacer, 80.0) >= asked
    json.dumps(pacer.state())


def test_a_new_resource_is_paced_by_requests_from_then_on():
    pacer = Pacer([Allowance("energy_j", 100, 1000, name="day")])
    drive(pacer, 60)
    pacer.become([Allowance("cost_usd", 1, 1000, name="day")], 60.0)
    assert pacer.prices(60.0) == {"cost_usd": 0.0}
    for k in range(20):
        pacer.observe(60.0 + k, QUALITY, ENERGY)
    assert pacer.prices(80.0)["cost_usd"] > 0
    pacer.become([Allowance("energy_j", 1, 1000, name="x")], 80.0)
    assert pacer.left(80.0) == (1,)

"""Choosing one expert: small cases by hand. The properties are in ``tests/property``."""

from dataclasses import replace

import numpy as np
import pytest

from coe.core import Budget, Estimate, Prices
from coe.optimizer.choice import Choice
from coe.optimizer.options import AXES, Options
from coe.optimizer.select import select, slack, violated

# quality, then usage: latency_ms, ttft_ms, energy_j, cost_usd
BIG = (0.9, 800.0, 200.0, 16.0, 0.5)
MID = (0.7, 400.0, 100.0, 4.0, 0.25)
TINY = (0.5, 100.0, 50.0, 1.0, 0.0)


def options(*candidates, prices=(0, 0, 0, 0), **ceilings):
    table = np.array(candidates, dtype=float).reshape(len(candidates), 5)
    return Options(
        quality=table[:, 0],
        usage=table[:, 1:],
        ceilings=np.array([ceilings.get(axis, np.inf) for axis in AXES]),
        prices=np.array(prices, dtype=float),
    )


def test_without_ceilings_and_prices_the_best_quality_wins():
    result = select(options(TINY, BIG, MID))
    assert (result.status, result.index, result.ranking) == ("optimal", 1, (1, 2, 0))
    assert (result.utility, result.binding) == (0.9, None)
    assert (result.slack, result.needed) == ({}, {})


def test_a_ceiling_keeps_out_what_exceeds_it_and_is_named():
    result = select(options(BIG, MID, TINY, energy_j=5.0))
    assert (result.index, result.ranking, result.binding) == (1, (1, 2), "energy_j")
    assert result.slack == {"energy_j": 1.0}


def test_prices_turn_usage_into_points():
    # a joule costs 0.05: BIG 0.1, MID 0.5, TINY 0.45
    result = select(options(BIG, MID, TINY, prices=(0, 0, 0.05, 0)))
    assert result.ranking == (1, 2, 0)
    assert result.utility == pytest.approx(0.5)


def test_a_usage_equal_to_its_ceiling_fits():
    at_the_edge = dict(zip(AXES, MID[1:], strict=True))
    assert select(options(MID, **at_the_edge)).index == 0
    for axis, usage in at_the_edge.items():
        tighter = at_the_edge | {axis: np.nextafter(usage, 0)}
        assert select(options(MID, **tighter)).status == "infeasible"


def test_ties_go_to_fewer_joules_then_less_time_then_the_first():
    frugal = (0.9, 900.0, 200.0, 15.0, 0.5)
    quick = (0.9, 700.0, 200.0, 16.0, 0.5)
    assert select(options(BIG, quick, frugal)).ranking == (2, 1, 0)
    assert select(options(BIG, BIG)).ranking == (0, 1)


def test_of_several_ceilings_the_one_exceeded_most_in_proportion_binds():
    # BIG exceeds latency by a third, energy by three thirds
    result = select(options(BIG, TINY, latency_ms=600.0, energy_j=8.0))
    assert (result.index, result.binding) == (1, "energy_j")


def test_a_ceiling_binds_only_if_it_keeps_out_the_best():
    # MID is kept out, but BIG would be chosen anyway
    dear = (0.7, 900.0, 100.0, 4.0, 0.25)
    assert select(options(BIG, dear, latency_ms=850.0)).binding is None


def test_when_nothing_fits_the_answer_says_what_would():
    result = select(options(BIG, MID, TINY, latency_ms=300.0, energy_j=0.5))
    assert (result.status, result.index, result.ranking) == ("infeasible", None, ())
    assert (result.utility, result.slack) == (-np.inf, {})
    # TINY alone keeps to the latency; no latency helps against half a joule
    assert result.needed == {"latency_ms": None, "energy_j": 1.0}
    assert (result.nearest, result.binding) == (2, "energy_j")


def test_nearest_exceeds_the_budget_least_in_proportion():
    # BIG exceeds by a third of the joules, TINY by none but by half of the time
    slow = (0.5, 900.0, 50.0, 1.0, 0.0)
    result = select(options(BIG, slow, latency_ms=800.0 / 2, energy_j=12.0))
    assert (result.nearest, result.binding) == (0, "latency_ms")


def test_of_two_equally_near_the_more_useful_is_nearest():
    result = select(options(TINY, (0.6, *TINY[1:]), energy_j=0.5))
    assert result.nearest == 1


def test_without_candidates_nothing_is_needed_and_nothing_near():
    assert select(options(energy_j=1.0)) == Choice(
        "infeasible", None, (), -np.inf, None, {}, {}, None
    )


def test_slack_is_ceiling_less_usage_and_negative_where_it_exceeds():
    p = options(BIG, MID, latency_ms=500.0, energy_j=16.0)
    assert slack(p, 0) == {"latency_ms": -300.0, "energy_j": 0.0}
    assert slack(p, 1) == {"latency_ms": 100.0, "energy_j": 12.0}


def test_violated_are_the_exceeded_ceilings_in_the_order_of_the_axes():
    p = options(BIG, MID, cost_usd=0.1, latency_ms=500.0)
    assert violated(p, 0) == ("latency_ms", "cost_usd")
    assert violated(p, 1) == ("cost_usd",)


# ---- the options itself


def test_a_problem_is_made_of_estimates_a_budget_and_prices():
    estimates = [
        Estimate(0.9, ttft_ms=200, latency_ms=800, energy_j=16, cost_usd=0.5, output_tokens=9),
        Estimate(0.5, ttft_ms=50, latency_ms=100, energy_j=1, cost_usd=0, output_tokens=9),
    ]
    longer = [
        estimates[0]._replace(latency_ms=900, output_tokens=12),
        estimates[1]._replace(energy_j=2, output_tokens=12),
    ]
    made = Options.of(estimates, longer, Budget(ttft_ms=70.0), Prices(0.5, 0.25, 2.0))
    by_hand = options(BIG, TINY, ttft_ms=70.0, prices=(0.0005, 0, 0.25, 2.0))
    for name in ("quality", "ceilings", "prices"):
        np.testing.assert_array_equal(getattr(made, name), getattr(by_hand, name))
    np.testing.assert_array_equal(made.expected_usage, by_hand.usage)
    np.testing.assert_array_equal(made.usage, [[900, *BIG[2:]], [100, 50, 2, 0]])


def test_a_problem_without_estimates_is_empty():
    made = Options.of([], [], Budget(energy_j=1.0), Prices())
    assert made.usage.shape == made.expected_usage.shape == (0, 4)


def test_utility_and_excess_by_hand():
    p = options(BIG, TINY, prices=(0.0005, 0, 0, 0.4), energy_j=8.0)
    assert p.utility == pytest.approx([0.9 - 0.4 - 0.2, 0.5 - 0.05])
    np.testing.assert_array_equal(p.excess, [[-1, -1, 1.0, -1], [-1, -1, -0.875, -1]])


def test_prices_are_paid_on_the_expected_usage_and_ceilings_hold_for_the_cautious_one():
    mean, bound = np.array([[0, 0, 4.0, 0]]), np.array([[0, 0, 8.0, 0]])
    p = replace(options(BIG, prices=(0, 0, 0.125, 0)), usage=bound, expected_usage=mean)
    assert p.utility == pytest.approx([0.9 - 0.5])
    assert select(replace(p, ceilings=np.array([np.inf, np.inf, 8.0, np.inf]))).index == 0
    short = select(replace(p, ceilings=np.array([np.inf, np.inf, 6.0, np.inf])))
    assert short.needed == {"energy_j": 8.0}


@pytest.mark.parametrize("figure", [np.nan, -0.1, 1.1, np.inf])
def test_a_quality_outside_its_range_is_refused(figure):
    with pytest.raises(ValueError, match="quality"):
        options((figure, 1, 1, 1, 1))


@pytest.mark.parametrize("column", range(4))
@pytest.mark.parametrize("figure", [np.nan, -1.0, np.inf])
def test_a_usage_or_price_that_is_no_finite_amount_is_refused(figure, column):
    row = [0.5, 1.0, 1.0, 1.0, 1.0]
    row[column + 1] = figure
    with pytest.raises(ValueError, match="usage"):
        options(row)
    with pytest.raises(ValueError, match="usage"):
        replace(options(TINY), expected_usage=np.array([row[1:]]))
    with pytest.raises(ValueError, match="prices"):
        options(TINY, prices=[figure if k == column else 0.0 for k in range(4)])


@pytest.mark.parametrize("figure", [np.nan, -1.0, 0.0])
def test_a_ceiling_that_is_not_positive_is_refused(figure):
    with pytest.raises(ValueError, match="ceilings"):
        options(TINY, energy_j=figure)


@pytest.mark.parametrize(
    "shapes",
    [
        {"quality": (3,)},
        {"quality": (2, 1)},
        {"usage": (2, 3)},
        {"expected_usage": (3, 4)},
        {"ceilings": (3,)},
        {"prices": (4, 1)},
    ],
)
def test_shapes_that_disagree_are_refused(shapes):
    right = {"quality": (2,), "usage": (2, 4), "ceilings": (4,), "prices": (4,)}
    with pytest.raises(ValueError, match="shape"):
        Options(**{name: np.ones(shape) for name, shape in (right | shapes).items()})

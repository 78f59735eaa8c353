"""What prices buy, on a handful of prompts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from coe.routers.frontier import Point, cheapest, frontier

NAN = np.nan
QUALITY = np.array([[0.2, 0.9], [0.6, 0.7], [0.5, 0.4], [0.1, 0.8]])
SCORES = np.array([[0.0, 1.0], [1.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
JOULES = np.array([[1.0, 5.0], [1.0, 6.0], [2.0, 7.0], [1.0, 9.0]])

tables = arrays(np.float64, (5, 3), elements=st.floats(0.0, 1.0, width=16))
curves = st.lists(
    st.builds(Point, st.just(0.0), st.integers(0, 8).map(lambda k: k / 8), st.integers(0, 20)),
    max_size=8,
)


def test_free_usage_leaves_the_best_expected_quality():
    first = frontier(QUALITY, JOULES, SCORES, JOULES)[0]
    picks = (np.arange(4), QUALITY.argmax(axis=1))
    assert first == Point(0.0, SCORES[picks].mean(), JOULES[picks].mean())


def test_at_the_highest_price_only_usage_counts():
    last = frontier(QUALITY, JOULES, SCORES, JOULES)[-1]
    assert (last.score, last.usage) == (SCORES[:, 0].mean(), JOULES[:, 0].mean())


def test_there_is_a_point_for_each_price_and_prices_rise():
    prices = [point.price for point in frontier(QUALITY, JOULES, SCORES, JOULES, n_points=7)]
    assert len(prices) == 8
    assert all(np.diff(prices) > 0)


@given(tables, tables)
def test_no_price_leads_to_more_expected_usage_than_none(quality, expected):
    points = frontier(quality, expected, quality, expected, n_points=20)
    assert max(point.usage for point in points) <= points[0].usage + 1e-12
    # the score is the expected one here, so that the first point is also the best
    assert max(point.score for point in points) <= points[0].score + 1e-12


def test_what_came_out_may_use_more_than_expected():
    points = frontier(QUALITY, JOULES, SCORES, JOULES[:, ::-1])
    assert points[-1].usage > points[0].usage


def test_the_unit_of_usage_changes_only_prices():
    points = frontier(QUALITY, JOULES, SCORES, JOULES)
    small = frontier(QUALITY, JOULES * 2.0**-20, SCORES, JOULES)
    assert [(p.score, p.usage) for p in points] == [(p.score, p.usage) for p in small]


@pytest.mark.parametrize("table", ["scores", "usage"])
def test_prompts_with_an_unknown_cell_are_left_out(table):
    holed = {"scores": SCORES.copy(), "usage": JOULES.copy()}
    holed[table][2, 0] = NAN
    kept = [0, 1, 3]
    assert frontier(QUALITY, JOULES, **holed) == frontier(
        QUALITY[kept], JOULES[kept], SCORES[kept], JOULES[kept]
    )


def test_where_no_prompt_is_known_there_is_no_curve():
    assert frontier(QUALITY, JOULES, SCORES, np.full_like(JOULES, NAN)) == []
    assert frontier(*[np.zeros((0, 2))] * 4) == []


def test_experts_that_use_nothing_keep_their_best():
    nothing = np.zeros_like(JOULES)
    points = frontier(QUALITY, nothing, SCORES, nothing)
    assert {(point.score, point.usage) for point in points} == {(points[0].score, 0.0)}


@pytest.mark.parametrize("expected", [JOULES * NAN, JOULES * [NAN, 1.0]])
def test_an_unknown_expectation_never_passes_for_the_best_choice(expected):
    points = frontier(QUALITY, expected, SCORES, JOULES)
    # no curve, or one that starts as it does for any other resource
    assert points[:1] in ([], frontier(QUALITY, JOULES, SCORES, JOULES)[:1])
    assert all(np.isfinite(point.price) for point in points)


# ---- the cheapest way to a score


def test_a_blend_fills_the_gap_between_two_points():
    dear, cheap = Point(0.0, 0.8, 10.0), Point(1.0, 0.4, 2.0)
    found = cheapest([dear, cheap], 0.5)
    assert (found.first, found.second, found.share) == (dear, cheap, pytest.approx(0.25))
    assert found.mean(dear.score, cheap.score) == pytest.approx(0.5)
    assert found.mean(dear.usage, cheap.usage) == pytest.approx(4.0)


def test_a_point_that_is_enough_and_cheaper_is_not_blended():
    good, bad = Point(0.0, 0.8, 1.0), Point(1.0, 0.4, 2.0)
    assert cheapest([bad, good], 0.5).first == good
    assert cheapest([bad, good], 0.5).share == 1.0


@pytest.mark.parametrize("points", [[], [Point(0.0, 0.8, 1.0)]])
def test_out_of_reach_is_none(points):
    assert cheapest(points, 0.9) is None


@given(curves, st.integers(0, 8).map(lambda k: k / 8))
def test_the_cheapest_blend_reaches_the_score_for_no_more_than_any_point(points, least):
    found = cheapest(points, least)
    enough = [point for point in points if point.score >= least]
    assert (found is None) == (not enough)
    if found is None:
        return
    assert 0.0 <= found.share <= 1.0
    assert found.mean(found.first.score, found.second.score) >= least - 1e-12
    usage = found.mean(found.first.usage, found.second.usage)
    assert usage <= min(point.usage for point in enough) + 1e-12


@given(curves, st.lists(st.floats(0.0, 1.0), min_size=2, max_size=2).map(sorted))
def test_a_higher_score_is_never_cheaper(points, targets):
    low, high = (cheapest(points, target) for target in targets)
    if high is not None:
        spent = [b.mean(b.first.usage, b.second.usage) for b in (low, high)]
        assert spent[0] <= spent[1] + 1e-9

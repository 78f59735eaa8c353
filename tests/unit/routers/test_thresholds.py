"""When a category router should admit that it does not know."""

from dataclasses import replace

import numpy as np
import pytest

from coe.routers.category import CentroidRouter
from coe.routers.expectation import Expectation
from coe.routers.head import CategoryHead
from coe.routers.quality import QualityTable
from coe.routers.thresholds import mean_known, routed_scores, with_thresholds

E1, E2, E3 = np.eye(3)
N = 100
RNG = np.random.default_rng(0)
# training prompts of code along the first axis, of maths along the second
X = np.vstack([E1 + 0.05 * RNG.normal(size=(N, 3)), E2 + 0.05 * RNG.normal(size=(N, 3))])
X = X.astype(np.float32)
NAMES = np.repeat(["code", "maths"], N)


def head_of(**params):
    return CentroidRouter(sharpness=8.0, **params).fit(X, NAMES).head()


def expectation_of(general=(0.1, 0.1, 0.6), **options):
    """A coder, a solver, and an expert that is best where nothing is known."""
    quality = np.array([[0.9, 0.1, 0.5], [0.1, 0.9, 0.5], general])
    same = np.ones_like(quality)
    names, experts = ("code", "maths", "general"), ("coder", "solver", "sage")
    table = QualityTable(names, experts, quality, same, same, same)
    return Expectation(table, **options)


def held_out(n_between):
    """100 prompts, so many of them between code and maths, where only the sage is right."""
    rng = np.random.default_rng(1)
    k = np.arange(100)
    clear = np.where((k % 2 == 0)[:, None], E1, E2) + 0.05 * rng.normal(size=(100, 3))
    between = np.where((k % 2 == 0)[:, None], 0.6 * E1 + 0.5 * E2, 0.5 * E1 + 0.6 * E2)
    asked = np.where((k < n_between)[:, None], between + 0.02 * rng.normal(size=(100, 3)), clear)
    right = np.where(k < n_between, 2, k % 2)
    return asked.astype(np.float32), np.eye(3)[right]


def routed_score(head, expectation, asked, scores):
    """Mean known score of the expert expected to be best, and the share of certain prompts."""
    found = head.assess(asked)
    known, unknown = routed_scores(expectation, found, asked, scores)
    routed = mean_known(np.where(found.uncertain, unknown, known))
    return routed, 1 - found.uncertain.mean()


def coverage(head, asked):
    return 1 - head.assess(asked).uncertain.mean()


@pytest.mark.parametrize(("n_between", "covered"), [(40, 0.6), (20, 0.8), (10, 0.9), (5, 0.95)])
def test_as_many_prompts_stay_certain_as_routing_them_is_worth(n_between, covered):
    asked, scores = held_out(n_between)
    head = with_thresholds(head_of(), expectation_of(), X, asked, scores)
    assert coverage(head, asked) == pytest.approx(covered, abs=0.02)
    score, certain = routed_score(head, expectation_of(), asked, scores)
    assert score >= 0.98
    assert certain == pytest.approx(coverage(head, asked))
    without, everybody = routed_score(head_of(), expectation_of(), asked, scores)
    assert (without, everybody) == (pytest.approx(1 - n_between / 100, abs=0.02), 1.0)


@pytest.mark.parametrize(
    "scores",
    [np.ones((100, 3)), np.full((100, 3), np.nan), np.tile([1.0, np.nan, np.nan], (100, 1))],
    ids=["equal", "unknown", "partly known"],
)
def test_where_thresholds_do_not_matter_most_prompts_stay_certain(scores):
    asked, _ = held_out(40)
    head = with_thresholds(head_of(), expectation_of(), X, asked, scores)
    most = replace(head, distance_threshold=np.inf)
    assert coverage(most, asked) == pytest.approx(0.99, abs=0.011)
    doubt = head.assess(asked).entropy
    assert head.entropy_threshold == np.quantile(doubt, 0.99)


def test_a_router_that_declines_gains_nothing_by_doubt_and_keeps_most_certain():
    asked, scores = held_out(40)
    declined = expectation_of(incumbent=0)
    head = with_thresholds(head_of(), declined, X, asked, scores)
    assert head.entropy_threshold == np.quantile(head.assess(asked).entropy, 0.99)
    assert routed_score(head, declined, asked, scores)[0] == pytest.approx(scores[:, 0].mean())


@pytest.mark.parametrize("n_held", [0, 100])
def test_prompts_far_from_all_training_prompts_are_uncertain(n_held):
    asked, scores = held_out(10)
    head = with_thresholds(head_of(), expectation_of(), X, asked[:n_held], scores[:n_held])
    strangers = np.array([E3, -E1, E1 + 3 * E3, np.zeros(3)])
    assert head.assess(strangers).uncertain.all()
    assert head.assess(strangers).distance.min() > head.distance_threshold
    assert not head.assess([E1, E2]).uncertain.any()


def test_without_held_out_prompts_nearly_all_training_prompts_stay_certain():
    nobody = np.zeros((0, 3), dtype=np.float32)
    head = with_thresholds(head_of(), expectation_of(), X, nobody, np.zeros((0, 3)))
    assert np.isfinite([head.entropy_threshold, head.distance_threshold]).all()
    assert 0 < head.assess(X).uncertain.sum() <= 0.02 * len(X) + 2
    for name in ("classes_", "coef_", "intercept_", "points_"):
        np.testing.assert_array_equal(getattr(head, name), getattr(head_of(), name))


@pytest.mark.parametrize("n_prompts", [2, 3, 20])
@pytest.mark.parametrize("n_neighbors", [1, 5])
def test_a_training_prompt_is_not_counted_among_its_own_neighbours(n_prompts, n_neighbors):
    # all are at distance 1 from each other, however few they are
    points = np.eye(20, dtype=np.float32)[:n_prompts]
    head = CategoryHead(np.array(["code"]), np.zeros((1, 20)), np.zeros(1), points, n_neighbors)
    table = QualityTable(("code", "general"), ("a",), *[np.ones((2, 1))] * 4)
    nobody = np.zeros((0, 20), dtype=np.float32)
    found = with_thresholds(head, Expectation(table), points, nobody, np.zeros((0, 1)))
    assert found.distance_threshold == pytest.approx(1.0)


def test_prompts_that_were_not_kept_as_neighbours_do_not_lower_the_threshold():
    kept = head_of()
    half = replace(kept, points_=kept.points_[::2])
    nobody, unknown = np.zeros((0, 3), dtype=np.float32), np.zeros((0, 3))
    alone = with_thresholds(half, expectation_of(), X[::2], nobody, unknown)
    among = with_thresholds(half, expectation_of(), X, nobody, unknown)
    assert among.distance_threshold == pytest.approx(alone.distance_threshold)


def test_a_single_training_prompt_is_familiar_to_itself():
    head = CategoryHead(np.array(["code"]), np.zeros((1, 3)), np.zeros(1), X[:1] / X[0, 0])
    table = QualityTable(("code", "general"), ("a",), *[np.ones((2, 1))] * 4)
    nobody = np.zeros((0, 3), dtype=np.float32)
    found = with_thresholds(head, Expectation(table), X[:1], nobody, np.zeros((0, 1)))
    assert found.distance_threshold < 0.01
    assert not found.assess(X[:1]).uncertain[0]
    assert found.entropy_threshold == 0.0


def test_the_routed_score_is_that_of_the_expert_expected_to_be_best():
    asked, scores = (
        np.array([E1, E2, E3], dtype=np.float32),
        np.array([[1, 0, 0], [0, 0, 1], [0, 0, 1.0]]),
    )
    head = replace(head_of(), distance_threshold=0.5)
    # the coder is asked first and is right, the solver second and wrong, the sage last and right
    assert routed_score(head, expectation_of(), asked, scores) == pytest.approx((2 / 3, 2 / 3))
    scores[1, 1] = np.nan
    assert routed_score(head, expectation_of(), asked, scores) == pytest.approx((1.0, 2 / 3))
    assert routed_score(head, expectation_of(), asked, np.full((3, 3), np.nan))[0] == 0.0

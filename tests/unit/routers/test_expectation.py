"""What is expected of every expert: the table, refined, and the router that declines."""

from dataclasses import replace

import numpy as np
import pytest

from coe.routers.expectation import Expectation
from coe.routers.head import Assessment
from coe.routers.quality import QualityTable
from coe.routers.residual import LengthResidual, QualityResidual

EXPERTS = ("small", "middle", "large")
# the last row is the one over all prompts
QUALITY = np.array([[0.9, 0.3, 0.5], [0.2, 0.8, 0.5], [0.4, 0.5, 0.6]])
TABLE = QualityTable(
    ("code", "maths", "general"),
    EXPERTS,
    QUALITY,
    np.full((3, 3), 0.01),
    np.full((3, 3), 100.0),
    np.full((3, 3), 200.0),
)
X = np.array([[1, 0], [0, 1], [1, 1], [1, 0]], dtype=np.float32)
SHIFT = 0.05
RESIDUAL = QualityResidual(
    coef=np.array([[0, 0, SHIFT]] * 3, dtype=np.float32),
    noise=np.full(3, 0.1),
    axes=np.eye(3, dtype=np.float32),
    spectrum=np.ones(3),
    penalty=1.0,
)
LENGTHS = LengthResidual(np.zeros((3, 3), dtype=np.float32), np.full(3, 2.0), np.full(3, 3.0))


def assessment(uncertain=(False, False, False, True)):
    """Of a prompt of code, one of maths, one between, and one of code that is far from all."""
    probabilities = np.array([[1, 0], [0, 1], [0.5, 0.5], [1, 0]], dtype=float)
    unknown = np.zeros(4)
    return Assessment(probabilities, unknown, unknown, np.array(uncertain))


def test_without_refinement_it_is_the_table():
    found = Expectation(TABLE).of(X, assessment())
    expected = [QUALITY[0], QUALITY[1], QUALITY[:2].mean(axis=0), QUALITY[2]]
    np.testing.assert_allclose(found.quality, expected)
    assert Expectation(TABLE).expert_ids == EXPERTS
    assert Expectation(TABLE).categories == ("code", "maths", "general")


def test_the_embedding_refines_recognised_prompts_alone():
    plain, found = (
        e.of(X, assessment()) for e in (Expectation(TABLE), Expectation(TABLE, RESIDUAL))
    )
    np.testing.assert_allclose(found.quality[:3], plain.quality[:3] + SHIFT, atol=1e-6)
    assert np.all(found.quality_se[:3] > plain.quality_se[:3])
    np.testing.assert_array_equal(found.quality[3], QUALITY[2])
    np.testing.assert_array_equal(found.quality_se[3], plain.quality_se[3])


def test_lengths_are_refined_apart_from_quality():
    found = Expectation(TABLE, lengths=LENGTHS).of(X, assessment())
    np.testing.assert_allclose(found.mean_tokens[:, 0], [200, 200, 200, 100])
    np.testing.assert_allclose(found.cautious_tokens[:, 0], [300, 300, 300, 200])
    plain = Expectation(TABLE).of(X, assessment())
    np.testing.assert_array_equal(found.quality, plain.quality)


@pytest.mark.parametrize("incumbent", [0, 1, 2])
@pytest.mark.parametrize("residual", [None, RESIDUAL])
def test_a_router_that_declines_expects_the_incumbent_to_be_best_on_every_prompt(
    incumbent, residual
):
    expectation = Expectation(TABLE, residual, incumbent=incumbent)
    found = expectation.of(X, assessment()).quality
    np.testing.assert_array_equal(found.argmax(axis=1), incumbent)
    others = np.delete(found, incumbent, axis=1)
    assert np.all(others < found[:, [incumbent]])
    assert np.all((found >= 0) & (found <= 1))


def test_declining_leaves_those_below_the_incumbent_as_they_are():
    routed, declined = (
        Expectation(TABLE, incumbent=k).of(X, assessment()) for k in (None, EXPERTS.index("large"))
    )
    below = routed.quality < routed.quality[:, [2]]
    np.testing.assert_array_equal(declined.quality[below], routed.quality[below])
    np.testing.assert_array_equal(declined.quality[:, 2], routed.quality[:, 2])
    # experts still differ from prompt to prompt: prices and ceilings have something to go by
    assert np.ptp(declined.quality[:, 0]) > 0.1
    np.testing.assert_array_equal(declined.quality_se, routed.quality_se)


@pytest.mark.parametrize("constant", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("incumbent", [0, 1, 2])
def test_the_incumbent_wins_ties(constant, incumbent):
    table = replace(TABLE, quality=np.full((3, 3), constant))
    found = Expectation(table, incumbent=incumbent).of(X, assessment()).quality
    np.testing.assert_array_equal(found.argmax(axis=1), incumbent)
    assert np.all((found >= 0) & (found <= 1))
    np.testing.assert_allclose(found, constant, atol=1e-6)


def test_declining_does_not_write_to_the_table():
    before = TABLE.quality.copy()
    Expectation(TABLE, RESIDUAL, LENGTHS, 1).of(X, assessment())
    np.testing.assert_array_equal(TABLE.quality, before)

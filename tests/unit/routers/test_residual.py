"""What the embedding adds to the category table: quality, its error, and answer length."""

from itertools import pairwise

import numpy as np
import pytest

from coe.routers.quality import Expected
from coe.routers.residual import LengthResidual, QualityResidual, with_constant
from coe.routers.ridge import FoldedRidge

N, DIM, N_EXPERTS, PENALTY = 60, 8, 3, 10.0
NAMES = ("quality", "quality_se", "mean_tokens", "cautious_tokens")


@pytest.fixture(scope="module")
def X():
    """Embeddings that stretch further along some features than along others."""
    rng = np.random.default_rng(0)
    return (rng.normal(size=(N, DIM)) * np.geomspace(1, 0.05, DIM)).astype(np.float32)


@pytest.fixture(scope="module")
def probes():
    rng = np.random.default_rng(1)
    return np.vstack([rng.normal(size=(30, DIM)), np.zeros((1, DIM)), 50 * np.eye(DIM)]).astype(
        np.float32
    )


def residual(X, n_axes=4, scale=0.1):
    ridge = FoldedRidge.of(X, np.arange(len(X)) % 3)
    axes, spectrum = ridge.axes(n_axes)
    coef = scale * np.random.default_rng(2).normal(size=(N_EXPERTS, DIM + 1))
    noise = np.array([0.2, 0.5, 0.0])
    return QualityResidual(coef.astype(np.float32), noise, axes, spectrum, PENALTY)


def expected(n, quality=0.5, se=0.05):
    full = np.ones((n, N_EXPERTS))
    return Expected(quality * full, se * full, 100.0 * full, 200.0 * full)


def exact_leverage(X, probes):
    """``x' (X'X + a I)^-1 x`` of each probe, the constant included."""
    rows, asked = (with_constant(part).astype(np.float64) for part in (X, probes))
    inverse = np.linalg.inv(rows.T @ rows + PENALTY * np.eye(DIM + 1))
    return np.einsum("nd,de,ne->n", asked, inverse, asked)


def leverage(X, probes, n_axes):
    """What the residual takes the leverage for: the error of an expert whose noise is 1."""
    found = residual(X, n_axes)
    refined = found.refine(expected(len(probes), se=0.0), probes, np.ones(len(probes), dtype=bool))
    return (refined.quality_se[:, 1] / found.noise[1]) ** 2


@pytest.mark.parametrize("n_axes", [0, 1, 4, 8])
def test_the_error_is_never_understated(X, probes, n_axes):
    found, exact = leverage(X, probes, n_axes), exact_leverage(X, probes)
    assert np.all(found >= exact * (1 - 1e-4))


def test_more_axes_say_more_and_all_say_it_exactly(X, probes):
    found = [leverage(X, probes, n_axes) for n_axes in range(DIM + 2)]
    for fewer, more in pairwise(found):
        assert np.all(more <= fewer * (1 + 1e-4))
    np.testing.assert_allclose(found[-1], exact_leverage(X, probes), rtol=1e-3)


def test_the_shift_is_linear_in_the_embedding(X, probes):
    found = residual(X, scale=1e-3)
    refined = found.refine(expected(len(probes)), probes, np.ones(len(probes), dtype=bool))
    shift = probes @ found.coef[:, :-1].T + found.coef[:, -1]
    np.testing.assert_allclose(refined.quality, 0.5 + shift, atol=1e-5)


def test_quality_stays_between_0_and_1(X, probes):
    refined = residual(X, scale=5.0).refine(
        expected(len(probes)), probes, np.ones(len(probes), dtype=bool)
    )
    assert (refined.quality.min(), refined.quality.max()) == (0.0, 1.0)


def test_the_error_is_that_of_the_sum(X, probes):
    found = residual(X)
    everyone = np.ones(len(probes), dtype=bool)
    alone = found.refine(expected(len(probes), se=0.0), probes, everyone).quality_se
    both = found.refine(expected(len(probes), se=0.05), probes, everyone).quality_se
    np.testing.assert_allclose(both**2, alone**2 + 0.05**2)
    # an expert that was never misjudged adds none
    np.testing.assert_array_equal(both[:, 2], 0.05)


def test_prompts_that_were_not_recognised_are_left_alone(X, probes):
    known = np.arange(len(probes)) % 2 == 0
    lengths = LengthResidual(
        np.ones((N_EXPERTS, DIM + 1), dtype=np.float32), np.full(N_EXPERTS, 2.0), np.full(3, 4.0)
    )
    for part in (residual(X), lengths):
        before = expected(len(probes))
        after = part.refine(before, probes, known)
        for name in NAMES:
            np.testing.assert_array_equal(
                getattr(after, name)[~known], getattr(before, name)[~known]
            )
        assert any(
            np.any(getattr(after, name)[known] != getattr(before, name)[known]) for name in NAMES
        )
        # what was given is not written to
        np.testing.assert_array_equal(before.quality, 0.5)
        np.testing.assert_array_equal(before.mean_tokens, 100.0)


def test_lengths_are_positive_and_within_a_tenfold_of_the_table(probes):
    coef = 100 * np.random.default_rng(3).normal(size=(N_EXPERTS, DIM + 1)).astype(np.float32)
    scale = np.full(N_EXPERTS, 1.0)
    lengths = LengthResidual(coef, scale, 2 * scale)
    ratio = lengths.ratio(probes)
    assert np.all((ratio > 0.099) & (ratio < 10.1))
    found = lengths.refine(expected(len(probes)), probes, np.ones(len(probes), dtype=bool))
    np.testing.assert_allclose(found.mean_tokens, 100 * ratio)
    np.testing.assert_allclose(found.cautious_tokens, 200 * ratio)
    np.testing.assert_array_equal(found.quality, 0.5)


def test_without_coefficients_nothing_is_longer(probes):
    none = LengthResidual(np.zeros((N_EXPERTS, DIM + 1), dtype=np.float32), np.ones(3), np.ones(3))
    np.testing.assert_array_equal(none.ratio(probes), 1.0)


def test_no_prompts_are_refined_to_none(X):
    nobody = np.zeros((0, DIM), dtype=np.float32)
    found = residual(X).refine(expected(0), nobody, np.zeros(0, dtype=bool))
    assert found.quality.shape == found.quality_se.shape == (0, N_EXPERTS)


def test_a_constant_is_the_last_column():
    np.testing.assert_array_equal(
        with_constant(np.zeros((2, 3), dtype=np.float32)), [[0, 0, 0, 1], [0, 0, 0, 1]]
    )

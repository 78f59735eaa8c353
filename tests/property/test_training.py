"""What training promises of any table: of estimators, folds, forecasts and gains."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from coe.routers.category import CentroidRouter, LogisticRouter, NeighborRouter
from coe.routers.clusters import ClusterRouter, LeastSquaresRouter
from coe.routers.expectation import Expectation
from coe.routers.head import Assessment
from coe.routers.quality import QualityTable
from coe.routers.quality_training import contrast_error, routing_gain
from coe.routers.residual import QualityResidual, with_constant
from coe.routers.ridge import FoldedRidge
from coe.routers.spreading import UNLABELLED, SpreadingRouter

NAN = np.nan
DIM = 4
share = st.sampled_from([0.0, 0.5, 1.0]) | st.floats(0, 1)
# a small grid brings repeated prompts and prompts of which nothing is known
feature = st.integers(-2, 2).map(float) | st.floats(-1e3, 1e3, width=32)
embeddings = arrays(np.float64, st.tuples(st.integers(1, 8), st.just(DIM)), elements=feature)
forecasts = st.tuples(st.integers(0, 6), st.integers(1, 4)).flatmap(
    lambda shape: st.tuples(
        arrays(np.float64, shape, elements=share),
        arrays(np.float64, shape, elements=st.just(NAN) | share),
    )
)


@pytest.fixture(scope="module")
def routers():
    """Every category router, fitted to the same prompts."""
    rng = np.random.default_rng(0)
    X, names = rng.normal(size=(40, DIM)), np.array(["a", "b", "c", "d"] * 10)
    made = [LogisticRouter(), CentroidRouter(), NeighborRouter(), SpreadingRouter()]
    return [r.fit(X, names) for r in (*made, ClusterRouter(5), LeastSquaresRouter(5))]


@given(X=embeddings)
def test_every_router_gives_distributions_and_its_head_the_same(routers, X):
    for router in routers:
        found = router.assess(X)
        assert np.all((found.probabilities >= 0) & (found.probabilities <= 1))
        np.testing.assert_allclose(found.probabilities.sum(axis=1), 1.0)
        assert np.all((found.distance >= 0) & (found.distance <= 2))
        np.testing.assert_array_equal(router.head().predict_proba(X), found.probabilities)


@given(embeddings, st.data())
def test_any_prompts_and_names_can_be_learned(X, data):
    names = np.array(data.draw(st.lists(st.sampled_from("abc"), min_size=len(X), max_size=len(X))))
    for router in (CentroidRouter(), NeighborRouter(), SpreadingRouter(CentroidRouter())):
        assert router.fit(X, names).classes_.tolist() == sorted(set(names.tolist()))
        np.testing.assert_allclose(router.predict_proba(X).sum(axis=1), 1.0)


@given(embeddings, st.data(), st.integers(0, 3), st.integers(1, 3))
def test_spreading_changes_no_seed_and_invents_no_label(X, data, n_rounds, n_voters):
    names = st.sampled_from(["code", "maths", UNLABELLED])
    seeds = np.array(data.draw(st.lists(names, min_size=len(X), max_size=len(X))))
    router = SpreadingRouter(NeighborRouter(), n_voters, n_rounds=n_rounds)
    known = seeds != UNLABELLED
    if not known.any():
        with pytest.raises(ValueError, match="no prompt is labelled"):
            router.fit(X, seeds)
        return
    labels = router.fit(X, seeds).labels_
    np.testing.assert_array_equal(labels[known], seeds[known])
    assert set(labels.tolist()) <= {*seeds[known].tolist(), UNLABELLED}
    if n_rounds == 0:
        np.testing.assert_array_equal(labels, seeds)


@given(forecasts, st.floats(-1, 1), st.randoms(use_true_random=False))
def test_contrast_is_blind_to_difficulty_and_to_order(both, shift, random):
    quality, scores = both
    found = contrast_error(quality, scores)
    assert 0.0 <= found <= 1.0
    hardness = shift * np.arange(len(quality))[:, None]
    assert contrast_error(quality + hardness, scores) == pytest.approx(found, abs=1e-9)
    order = random.sample(range(quality.shape[1]), quality.shape[1])
    assert contrast_error(quality[:, order], scores[:, order]) == pytest.approx(found, abs=1e-9)
    assert contrast_error(np.nan_to_num(scores), scores) == 0.0


@given(forecasts, st.data())
def test_the_gain_is_no_more_than_an_oracle_s_and_nothing_between_copies(both, data):
    quality, scores = both
    single = data.draw(st.integers(0, quality.shape[1] - 1))
    gain = routing_gain(quality, scores, single)
    assert -1.0 <= gain.cautious <= gain.mean <= 1.0
    complete = np.nan_to_num(scores)
    if len(complete):
        most = np.mean(complete.max(axis=1) - complete[:, single])
        assert routing_gain(quality, complete, single).mean <= most + 1e-12
        # foresight reaches the oracle
        assert routing_gain(complete, complete, single).mean == pytest.approx(most)
    copies = np.repeat(complete[:, [0]], quality.shape[1], axis=1)
    assert routing_gain(quality, copies, single).mean == 0.0


@given(
    arrays(np.float64, (3, 3), elements=share),
    arrays(np.float32, (4, DIM + 1), elements=st.floats(-2, 2, width=32)),
    st.lists(st.booleans(), min_size=4, max_size=4),
    st.integers(0, 2),
)
def test_an_incumbent_is_ahead_of_everyone_on_every_prompt(quality, rows, uncertain, incumbent):
    same = np.ones((3, 3))
    table = QualityTable(("x", "y", "general"), ("a", "b", "c"), quality, same, same, same)
    axes, spectrum = np.eye(2, DIM + 1, dtype=np.float32), np.ones(2)
    residual = QualityResidual(rows[:3], np.ones(3), axes, spectrum, 1.0)
    said = Assessment(np.full((4, 2), 0.5), np.zeros(4), np.zeros(4), np.array(uncertain))
    X = rows[:, :DIM]
    routed = Expectation(table, residual).of(X, said).quality
    found = Expectation(table, residual, incumbent=incumbent).of(X, said).quality
    np.testing.assert_array_equal(found.argmax(axis=1), incumbent)
    assert np.all(np.delete(found, incumbent, axis=1) < found[:, [incumbent]])
    assert np.all((found >= 0) & (found <= 1))
    # nobody is expected to do better than before, but for the incumbent's lead
    assert np.all(found <= routed + 1e-6)
    np.testing.assert_allclose(found[:, incumbent], routed[:, incumbent], atol=1e-6)


@given(
    arrays(np.float32, (10, DIM), elements=st.floats(-3, 3, width=32)),
    arrays(np.float32, (3, DIM), elements=st.floats(-3, 3, width=32)),
    st.integers(0, DIM + 1),
    st.sampled_from([1.0, 10.0, 300.0]),
)
def test_the_error_of_a_residual_is_never_understated(X, probes, n_axes, penalty):
    axes, spectrum = FoldedRidge.of(X, np.arange(10) % 2).axes(n_axes)
    coef = np.zeros((1, DIM + 1), dtype=np.float32)
    residual = QualityResidual(coef, np.ones(1), axes, spectrum, penalty)
    table = QualityTable(("x", "general"), ("a",), *[np.zeros((2, 1))] * 4)
    said = Assessment(np.ones((3, 1)), np.zeros(3), np.zeros(3), np.zeros(3, dtype=bool))
    found = Expectation(table, residual).of(probes, said).quality_se[:, 0] ** 2
    rows, asked = (with_constant(part).astype(np.float64) for part in (X, probes))
    inverse = np.linalg.inv(rows.T @ rows + penalty * np.eye(DIM + 1))
    exact = np.einsum("nd,de,ne->n", asked, inverse, asked)
    assert np.all(found >= exact * (1 - 1e-3) - 1e-6)

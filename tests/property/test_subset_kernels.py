"""Kernels over all sets of experts equal their slow twins, on ties, infinities and nothing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from coe.kernels import mixture, reference, staircase, votes

# a small range brings ties, a large one underflow
logit = st.sampled_from([-np.inf, 0.0, 1.0]) | st.floats(-5, 5) | st.floats(-1e3, 1e3)
outcome = st.sampled_from([0.0, 0.5, 1.0]) | st.floats(1e-6, 1)
figure = st.sampled_from([0.0, 1.0, 2.0]) | st.floats(0, 1e3)
worth = st.sampled_from([-np.inf, 0.0, 1.0]) | st.floats(-10, 10)


@st.composite
def recorded(draw):
    shape = draw(st.tuples(st.integers(0, 6), st.integers(1, 5)))
    return draw(arrays(float, shape, elements=logit)), draw(arrays(float, shape, elements=outcome))


values_of_sets = st.integers(0, 5).flatmap(lambda n: arrays(float, 1 << n, elements=worth))


@given(recorded())
def test_relative_weights_equal_their_twin(prompts):
    logits, _ = prompts
    np.testing.assert_allclose(
        mixture.relative_weights(logits), reference.relative_weights(logits), rtol=1e-12
    )


@given(recorded(), st.integers(1, 6), st.randoms(use_true_random=False))
def test_gate_weights_equal_their_twin(prompts, k, random):
    logits, _ = prompts
    members = np.array([random.random() < 0.7 for _ in range(logits.shape[1])])
    found = mixture.gate_weights(logits, members, k)
    np.testing.assert_allclose(found, reference.gate_weights(logits, members, k), rtol=1e-12)
    assert np.all((found > 0).sum(axis=1) <= k)
    assert not np.any(found[:, ~members])


@given(recorded(), st.booleans())
def test_mixtures_of_subsets_equal_their_twin(prompts, log):
    found = mixture.mixtures_of_subsets(*prompts, log)
    np.testing.assert_allclose(
        found, reference.mixtures_of_subsets(*prompts, log), rtol=1e-9, atol=1e-12
    )


@given(recorded(), st.integers(1, 6), st.booleans())
def test_top_of_subsets_equal_their_twin(prompts, k, log):
    found = mixture.top_of_subsets(*prompts, k, log)
    np.testing.assert_allclose(
        found, reference.mixtures_of_subsets(*prompts, log, k), rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("spread", [0.1, 3.0, 30.0])
@pytest.mark.parametrize("n_prompts", [255, 256, 700])
def test_mixtures_of_many_prompts_equal_their_twin(n_prompts, spread, log):
    rng = np.random.default_rng(n_prompts)
    logits = rng.normal(size=(n_prompts, 6)) * spread
    score = rng.choice([0.001, 0.4, 1.0], size=logits.shape)
    np.testing.assert_allclose(
        mixture.mixtures_of_subsets(logits, score, log),
        reference.mixtures_of_subsets(logits, score, log),
        rtol=1e-9,
    )


@given(arrays(float, st.integers(0, 6), elements=figure), st.integers(1, 7))
def test_sums_of_subsets_equal_their_twins(figures, k):
    np.testing.assert_allclose(
        staircase.sums_of_subsets(figures), reference.sums_of_subsets(figures), rtol=1e-12
    )
    np.testing.assert_allclose(
        staircase.largest_of_subsets(figures, k),
        reference.largest_of_subsets(figures, k),
        rtol=1e-12,
    )


@given(
    st.tuples(st.integers(1, 4), st.integers(1, 6)).flatmap(
        lambda shape: arrays(float, shape, elements=worth)
    )
)
def test_best_of_subsets_equals_its_twin(scores):
    weight = np.arange(1.0, len(scores) + 1)
    np.testing.assert_allclose(
        staircase.best_of_subsets(scores, weight),
        reference.best_of_subsets(scores, weight),
        rtol=1e-12,
        atol=1e-12,
    )


def test_best_of_subsets_of_more_experts_than_a_block_holds():
    scores = np.random.default_rng(0).normal(size=(3, 12))
    np.testing.assert_allclose(
        staircase.best_of_subsets(scores, np.ones(3)),
        reference.best_of_subsets(scores, np.ones(3)),
    )


@given(values_of_sets)
def test_closure_equals_its_twin_and_never_lies_below(values):
    found, subset = staircase.closure(values)
    np.testing.assert_array_equal(found, reference.closure(values)[0])
    np.testing.assert_array_equal(values[subset], found)
    assert np.all(subset & np.arange(values.size) == subset)
    assert np.all(found >= values)
    for mask in subset:  # no member is superfluous
        parts = [mask & ~(1 << n) for n in range(values.size.bit_length()) if mask >> n & 1]
        assert all(found[part] < values[mask] for part in parts)


@given(
    st.integers(0, 60).flatmap(
        lambda n: st.tuples(
            arrays(float, n, elements=figure | st.just(np.inf)),
            arrays(float, n, elements=worth | st.just(np.nan)),
        )
    )
)
def test_staircase_equals_its_twin(entries):
    usage, values = entries
    found = staircase.staircase(usage, values)
    np.testing.assert_array_equal(found, reference.staircase(usage, values))
    assert np.all(np.diff(usage[found]) > 0)
    assert np.all(np.diff(values[found]) > 0)


@given(
    arrays(float, (5, 3), elements=st.floats(-1, 1) | st.just(np.nan)),
    st.tuples(st.integers(0, 4), st.integers(1, 4)).flatmap(
        lambda shape: arrays(np.int64, shape, elements=st.integers(0, 4))
    ),
)
def test_neighbour_means_equal_their_twin(values, indices):
    np.testing.assert_allclose(
        votes.neighbour_means(indices, values),
        reference.neighbour_means(indices, values),
        atol=1e-12,
    )

"""What the retrieval gate promises of every question, gain and price."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from coe.routers.gate import (
    HURT,
    NEED,
    Draft,
    RetrievalGate,
    column_names,
    decide,
    gate_features,
)
from coe.routers.question import hedges
from coe.routers.retrieve import Evidence

DIM = 2
finite = st.floats(-5, 5)
unsure = finite | st.just(np.nan)
gains = arrays(np.float64, st.integers(1, 12), elements=st.floats(-1, 1))
prices = st.floats(-2, 2) | st.sampled_from([-np.inf, np.inf])
anything = st.text(max_size=60)


@st.composite
def gates(draw, n_features=3):
    values = [draw(arrays(np.float64, n_features + 1, elements=finite)) for _ in range(5)]
    intercept = draw(arrays(np.float64, 4, elements=finite))
    return RetrievalGate(values[0], np.array(values[1:]), intercept)


rows = arrays(np.float64, st.tuples(st.integers(0, 5), st.just(3)), elements=unsure)
strengths = arrays(np.float64, st.integers(1, 4), elements=st.floats(0, 1) | st.just(np.nan))


@st.composite
def outcomes(draw):
    """Scores of 0 and 1 without and with retrieval, and a decision, of the same questions."""
    n = draw(st.integers(1, 12))
    bits = arrays(np.bool_, n)
    return draw(bits).astype(float), draw(bits).astype(float), draw(bits)


@given(gates(), rows, strengths)
def test_the_four_outcomes_are_a_distribution_and_the_gain_lies_between(gate, X, strength):
    p = gate.outcomes(X, strength)
    assert p.shape == (len(X), len(strength), 4)
    assert np.all(p >= 0)
    np.testing.assert_allclose(p.sum(axis=-1), 1.0)
    gain, need = gate.gain(X, strength), gate.need(X, strength)
    assert np.all(np.abs(gain) <= 1)
    assert np.all((need >= 0) & (need <= 1))
    np.testing.assert_allclose(gain, p[..., NEED] - p[..., HURT])


@given(gates(), rows, strengths, st.randoms(use_true_random=False))
def test_permuting_the_experts_permutes_the_gains(gate, X, strength, random):
    order = random.sample(range(len(strength)), len(strength))
    found = gate.gain(X, strength[order])
    np.testing.assert_allclose(found, gate.gain(X, strength)[:, order])


@given(gates(), rows, strengths)
def test_a_question_s_gain_does_not_depend_on_its_batch(gate, X, strength):
    whole = gate.gain(X, strength)
    for k in range(len(X)):
        np.testing.assert_allclose(gate.gain(X[k : k + 1], strength)[0], whole[k], atol=1e-12)


@given(gates(), rows, strengths)
def test_arrays_carry_the_whole_gate(gate, X, strength):
    again = RetrievalGate.from_arrays(gate.to_arrays())
    np.testing.assert_array_equal(again.outcomes(X, strength), gate.outcomes(X, strength))


@given(gains, prices, prices)
def test_a_higher_price_never_retrieves_more(gain, one, other):
    low, high = sorted((one, other))
    assert np.all(decide(gain, low) | ~decide(gain, high))


@given(gains)
def test_an_infinite_price_is_never_and_its_opposite_always(gain):
    assert not decide(gain, np.inf).any()
    assert decide(gain, -np.inf).all()


@given(outcomes())
def test_what_a_gate_gains_is_need_retrieved_for_less_hurt_retrieved_for(found):
    without, retrieved, chosen = found
    accuracy = np.where(chosen, retrieved, without).mean()
    need, hurt = retrieved > without, retrieved < without
    identity = without.mean() + (need & chosen).mean() - (hurt & chosen).mean()
    np.testing.assert_allclose(accuracy, identity)


@given(outcomes(), st.floats(0, 0.99))
def test_a_perfect_gate_retrieves_just_for_need_and_is_as_good_as_an_oracle(found, price):
    without, retrieved, _ = found
    chosen = decide(retrieved - without, price)
    need = retrieved > without
    assert chosen.mean() == need.mean()
    best = np.maximum(without, retrieved).mean()
    assert np.where(chosen, retrieved, without).mean() == best
    np.testing.assert_allclose(best, without.mean() + need.mean())


@given(st.lists(st.tuples(anything, st.none() | anything), max_size=4))
def test_every_text_has_finite_features_and_a_missing_draft_has_none(pairs):
    texts = [text for text, _ in pairs]
    vector = np.ones(DIM)
    drafts = [None if draft is None else Draft(draft, vector) for _, draft in pairs]
    evidence = [Evidence()] * len(texts)
    found = gate_features(texts, np.ones((len(texts), DIM)), np.zeros(len(texts)), evidence, drafts)
    names = column_names(DIM, with_drafts=True)
    assert found.shape == (len(texts), len(names))
    start = names.index("draft.present") + 1
    assert np.isfinite(found[:, :start]).all()
    for row, draft in zip(found, drafts, strict=True):
        assert np.isfinite(row[start:]).all() == (draft is not None)


@given(anything, anything)
def test_the_features_of_a_question_do_not_depend_on_its_neighbours(one, other):
    def of(*texts):
        n = len(texts)
        return gate_features(texts, np.ones((n, DIM)), np.zeros(n), [None] * n)

    np.testing.assert_array_equal(of(one, other)[1], of(other)[0])


@given(st.text(st.characters(codec="ascii"), max_size=60))
def test_hedging_does_not_depend_on_case(text):
    assert hedges(text.upper()) == hedges(text.lower())

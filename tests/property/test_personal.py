"""A tenant's own expert: quality within [0, 1], declined without a signal, hidden from others."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coe.core import Message, Request
from coe.errors.callers import UnknownExpertError
from coe.personal import Personal, personal
from coe.routers.personal import PersonalGate, Premise, levelled
from coe.routers.personal_training import Lessons, learned
from coe.routers.quality import Expected
from coe.tenants import visible

PREMISE = Premise("t", "own", ("a", "b"), None, "words", "0" * 64)
levels = st.floats(-0.99, 0.99)
unit = st.floats(0.0, 1.0)
weights = st.floats(-3.0, 3.0, width=32)


def gate_of(expert_id, level, coef, declined):
    premise = replace(PREMISE, expert_id=expert_id)
    coef = np.array(coef, dtype=np.float32)
    return PersonalGate(premise, level, coef, 0.1, 100.0, 200.0, declined)


@given(levels, st.lists(weights, min_size=4, max_size=4), st.booleans(), st.lists(unit, min_size=2))
def test_quality_stays_within_bounds_and_one_that_declined_behind(level, coef, declined, quality):
    rows = np.array(quality[: len(quality) // 2 * 2]).reshape(-1, 2)
    X = np.random.default_rng(0).normal(size=(len(rows), 2)).astype(np.float32)
    gate = gate_of("own", level, coef, declined)
    found = gate.refine(Expected(rows, rows, rows, rows), ("a", "b"), X).quality
    assert np.all((found >= 0) & (found <= 1))
    if declined:
        assert np.all(found[:, 2] <= found[:, :2].max(axis=1))


@given(levels, st.lists(unit, min_size=1))
def test_levelling_keeps_the_order(level, quality):
    before = np.array(sorted(quality))
    assert np.all(np.diff(levelled(before, level)) >= 0)


@settings(max_examples=25)
@given(st.integers(0, 2**31), st.integers(1, 40), st.sampled_from([0.0, 0.5, 1.0]))
def test_an_own_expert_that_never_wins_is_declined(seed, n, right):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 3)).astype(np.float32)
    delivered = (rng.random(n) < right).astype(float)
    delivered[rng.random(n) < 0.2] = np.nan
    own = np.where(rng.random(n) < 0.5, delivered, 0.0)
    known = ~np.isnan(own)
    lessons = Lessons(X, rng.random(n), delivered, own).rows(known)
    if known.any():
        gate = learned(lessons, rng.integers(5, size=int(known.sum())), PREMISE, (1.0, 2.0))
        assert gate.declined


def test_coins_are_seldom_taken_for_a_signal():
    """Own expert and global router toss coins: by a standard error, about one tenant in six."""
    taken = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        X = rng.normal(size=(60, 8)).astype(np.float32) / 3
        tosses = rng.integers(2, size=(2, 60)).astype(float)
        lessons = Lessons(X, np.full(60, 0.5), tosses[0], tosses[1])
        taken += not learned(lessons, np.arange(60) % 5, PREMISE, (1.0, 2.0)).declined
    assert taken <= 20


EXPERTS = ["a", "b", "x", "y"]
owners = st.dictionaries(st.sampled_from(["t", "u", "v"]), st.sampled_from(["x", "y"]))


@given(owners, st.sampled_from(["", "t", "u", "v", "nobody"]))
def test_what_is_anothers_own_is_not_visible(own, tenant):
    seen = visible(EXPERTS, own, tenant)
    for name in ("x", "y"):
        holders = {who for who, what in own.items() if what == name}
        assert (name in seen) == (not holders or tenant in holders)
    assert {"a", "b"} <= set(seen)


@settings(max_examples=50)
@given(
    owners,
    st.sampled_from(["", "t", "u", "v", "nobody"]),
    st.sampled_from(["code", "maths", "poem"]),
    st.booleans(),
)
def test_no_decision_names_what_is_anothers_own(make_router, make_spec, own, tenant, word, trained):
    """Whether the artefact knows the own experts, and expects most of them, or not."""
    specs = [make_spec(name) for name in EXPERTS]
    known = specs if trained else specs[:2]
    router = make_router(known, [[0.3, 0.2, 0.9, 0.8][: len(known)]] * 3)
    router = replace(router, specs={spec.id: spec for spec in specs})
    gates = {
        name: Personal(expert_id, replace_tenant(expert_id, name))
        for name, expert_id in own.items()
    }
    everyones = personal(router, gates)
    hidden = set(EXPERTS) - set(visible(EXPERTS, own, tenant))
    request = Request((Message("user", word),), tenant=tenant)
    decision = everyones.decide(request)
    said = {decision.expert_id, *(other.expert_id for other in decision.alternatives)}
    assert not said & hidden
    assert not hidden & set(decision.why.replace(",", " ").split())
    if tenant in own:
        assert decision.expert_id == own[tenant]
    for name in hidden:
        for asked in (
            replace(request, pinned=name),
            replace(request, allow=frozenset({name})),
            replace(request, deny=frozenset({name})),
        ):
            with pytest.raises(UnknownExpertError) as refused:
                everyones.decide(asked)
            listed = str(refused.value).partition("there are")[2]
            assert not hidden & set(listed.replace(",", " ").split())


def replace_tenant(expert_id, tenant):
    """A gate that is sure of the own expert."""
    gate = gate_of(expert_id, 0.0, (0, 0, 0, 0, 1), declined=False)
    return replace(gate, premise=replace(gate.premise, tenant=tenant))

"""What would have been decided otherwise is what is decided when it is otherwise."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coe.core import Budget, Message, Policy, Prices, Request
from coe.counterfactual import counterfactuals, kept_out, runner_up
from coe.errors.callers import InfeasibleError

NAMES = ("a", "b", "c", "d")


def ask(budget=None, **fields):
    policy = Policy("p", budget or Budget(), Prices(per_joule=0.001), on_infeasible="reject")
    return Request((Message("user", "some code"),), policy, mode="single", **fields)


@pytest.fixture(scope="session")
def build(make_spec, make_router):
    def of(qualities, watts):
        specs = [
            make_spec(name, watts=one, usd_per_mtok_out=one)
            for name, one in zip(NAMES, watts, strict=False)
        ]
        router = make_router(specs, [list(qualities)] * 3)
        return replace(router, now=lambda: 0.0, new_id=lambda: "dec")

    return of


@settings(max_examples=60, deadline=None)
@given(
    qualities=st.lists(st.integers(5, 95), min_size=3, max_size=3, unique=True),
    watts=st.lists(st.integers(5, 200), min_size=3, max_size=3, unique=True),
    limit_j=st.none() | st.floats(1.0, 400.0),
)
def test_it_is_decided_so_under_those_ceilings(build, qualities, watts, limit_j):
    router = build(np.array(qualities) / 100, [float(w) for w in watts])
    dearest = max(c.cautious.energy_j for c in router.decide(ask()).alternatives)
    budget = Budget() if limit_j is None else Budget(energy_j=min(limit_j, dearest))
    try:
        decision = router.decide(ask(budget))
    except InfeasibleError:
        return
    second = runner_up(decision)
    if second is not None:
        for axis, (low, below) in second.ceilings.items():
            for ceiling in (low, (low + below) / 2):
                tighter = budget.tightened(Budget(**{axis: ceiling}))
                assert router.decide(ask(tighter)).expert_id == second.expert_id
    missed = kept_out(decision)
    if missed is not None:
        assert missed.behind < 0
        enough = {axis: low for axis, (low, _) in missed.ceilings.items()}
        wider = replace(budget, **enough)
        assert router.decide(ask(wider)).expert_id == missed.expert_id


def test_it_says_what_it_would_have_gained_and_taken(build):
    router = build([0.9, 0.6, 0.3], [100.0, 50.0, 10.0])
    decision = router.decide(ask())
    found = counterfactuals(decision)
    assert found["kept_out"] is None
    second = found["runner_up"]
    assert (decision.expert_id, second["id"]) == ("a", "b")
    assert second["difference"]["quality"] == pytest.approx(-0.3)
    assert second["difference"]["energy_j"] < 0
    assert second["behind"] > 0
    bound = second["ceilings"]["energy_j"]
    assert bound["from"] < bound["below"] == decision.cautious.energy_j
    tight = router.decide(ask(Budget(energy_j=bound["from"])))
    assert counterfactuals(tight)["kept_out"]["id"] == "a"
    assert counterfactuals(tight)["kept_out"]["ceilings"]["energy_j"]["from"] >= bound["below"]


def test_where_an_expert_is_named_nobody_was_weighed(build):
    decision = build([0.9, 0.6, 0.3], [100.0, 50.0, 10.0]).decide(ask(pinned="b", read=True))
    assert counterfactuals(decision) == {"runner_up": None, "kept_out": None}

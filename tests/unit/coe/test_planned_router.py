"""Decisions under a plan: who is resident, who may answer together, who of a set answers."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from coe.core import Budget, Estimate, Message, Policy, Prices, Request
from coe.decision import Candidate
from coe.errors.callers import InfeasibleError
from coe.free import NullSection, free_spec
from coe.mode import Mode
from coe.offers import Offers
from coe.optimizer.shortlist import gate, top_k
from coe.optimizer.shortlist import top_p as heaviest
from coe.pattern import Pattern
from coe.plan import Plan, PlannedCategory, PlannedSet
from coe.stock import Canned, Constants, Declination

# rows: code, maths, anything else; columns: small, large
QUALITY = [[0.25, 0.75], [0.625, 0.5], [0.375, 0.5]]


STRICT = Policy("strict")


def ask(text="some code", policy=STRICT, **fields):
    return Request((Message("user", text),), policy, **fields)


def one(*experts, quality):
    return PlannedSet(experts, quality, 1.0, 1.0, 0.0)


def planned(menus, resident=("large", "small"), aggregation="mixture", means=None, chosen=()):
    """A plan of these menus by category."""
    return Plan(
        policy="default",
        aggregation=aggregation,
        k=2,
        means=means or {},
        status="optimal",
        method="knapsack",
        why="",
        certificate=None,
        quality=0.0,
        energy_j=0.0,
        latency_ms=0.0,
        cost_usd=0.0,
        resident={"": tuple(resident)},
        categories=tuple(
            PlannedCategory(name, 0.5, tuple(chosen), (), tuple(menu))
            for name, menu in menus.items()
        ),
        staircases={},
        singles=(),
        binding=None,
        slack={},
        needed={},
        premise={},
    )


MENU = [one("small", quality=0.3), one("large", quality=0.7), one("small", "large", quality=0.9)]


@pytest.fixture
def router(make_spec, make_router):
    specs = [
        make_spec("small"),
        make_spec("large", ttft_ms=200.0, tokens_per_s=25.0, watts=20.0, usd_per_mtok_out=400.0),
    ]
    return make_router(specs, QUALITY)


def test_only_residents_are_chosen(router):
    small = replace(router, offers=Offers.of(planned({}, resident=["small"])))
    decision = small.decide(ask())
    assert (decision.expert_id, decision.alternatives) == ("small", ())


def test_without_any_resident_nobody_is_chosen(router):
    empty = replace(router, offers=Offers.of(planned({}, resident=["other"])))
    with pytest.raises(InfeasibleError):
        empty.decide(ask())


def test_a_request_for_an_expert_gets_it_whatever_is_planned(router):
    small = replace(router, offers=Offers.of(planned({}, resident=["small"])))
    assert small.decide(ask(pinned="large")).expert_id == "large"


def test_one_expert_answers_unless_more_are_allowed(router):
    decision = replace(router, offers=Offers.of(planned({"code": MENU}))).decide(ask())
    assert decision.selection.expert_ids == ("large",)
    assert decision.selection.weights == (1.0,)


def test_a_set_is_worth_its_best_member_and_what_the_others_add(router):
    alone = router.decide(ask())
    both = replace(router, offers=Offers.of(planned({"code": MENU})), most_experts=2).decide(ask())
    assert both.selection.expert_ids == ("large", "small")
    assert sum(both.selection.weights) == pytest.approx(1)
    assert both.selection.weights[0] > both.selection.weights[1]
    assert both.predicted.quality == pytest.approx(alone.predicted.quality + 0.2)
    singles = {o.expert_id: o.estimate for o in both.alternatives}
    assert both.predicted.energy_j == pytest.approx(sum(e.energy_j for e in singles.values()))
    assert both.predicted.cost_usd == pytest.approx(sum(e.cost_usd for e in singles.values()))
    assert both.predicted.latency_ms == max(e.latency_ms for e in singles.values())
    assert "small + large" in both.why


def test_a_budget_decides_among_sets_and_says_what_would_do(router):
    both = replace(router, offers=Offers.of(planned({"code": MENU})), most_experts=2)
    free = both.decide(ask())
    tight = both.decide(ask(), Budget(energy_j=free.cautious.energy_j * 0.99))
    assert tight.selection.expert_ids == ("large",)
    assert tight.binding == "energy_j"
    lost = next(o for o in tight.alternatives if o.expert_id == "small + large")
    assert "would win with energy_j >=" in lost.why_not


def test_prices_decide_among_sets(router):
    both = replace(router, offers=Offers.of(planned({"code": MENU})), most_experts=2)
    dear = Policy("dear", prices=Prices(per_joule=0.05))
    assert len(both.decide(ask(policy=dear)).selection.expert_ids) == 1


def test_a_dead_expert_leaves_the_sets_without_it(router):
    both = replace(router, offers=Offers.of(planned({"code": MENU})), most_experts=2)
    decision = both.decide(ask(), excluded=frozenset({"large"}))
    assert decision.selection.expert_ids == ("small",)
    assert decision.alternatives == ()


def test_of_a_set_the_fewest_answer_that_make_up_enough_of_the_gate(router):
    menu = [*MENU[:2], one("small", "large", quality=0.9)]
    most = replace(router, offers=Offers.of(planned({"code": menu})), most_experts=2, top_p=0.6)
    # large has 0.9 of the gate's weight: odds of 3 against 1/3
    assert most.decide(ask()).selection.expert_ids == ("large",)
    all_of_it = replace(most, top_p=0.95)
    assert len(all_of_it.decide(ask()).selection.expert_ids) == 2


def test_a_category_that_was_not_planned_for_has_everyone_alone(router):
    both = replace(router, offers=Offers.of(planned({"code": MENU})), most_experts=2)
    decision = both.decide(ask("some maths"))
    assert decision.selection.expert_ids == ("small",)
    assert [o.expert_id for o in decision.alternatives] == ["large"]


def test_quality_added_to_a_likelihood_is_in_points(router):
    menu = [
        one("small", quality=-1.0),
        one("large", quality=-0.5),
        one("small", "large", quality=0),
    ]
    plan = planned({"code": menu}, aggregation="likelihood")
    both = replace(router, offers=Offers.of(plan), most_experts=2).decide(ask())
    alone = router.decide(ask())
    assert both.predicted.quality == pytest.approx(min(alone.predicted.quality + 1 - 0.60653, 1.0))


def test_a_plan_that_keeps_means_leaves_its_own_sets_only(router):
    kept = planned({"code": MENU}, means={"mean_energy_j": 20.0}, chosen=["small"])
    decision = replace(router, offers=Offers.of(kept)).decide(ask())
    assert (decision.expert_id, decision.alternatives) == ("small", ())


def test_where_the_menu_has_nothing_to_offer_everyone_answers_alone(router):
    only = planned({"code": [one("small", quality=0.3)]})
    offered = replace(router, offers=Offers.of(only))
    assert offered.decide(ask()).expert_id == "small"
    assert offered.decide(ask(), excluded=frozenset({"small"})).expert_id == "large"


def test_offers_are_those_of_plain_loops(make_spec, make_router):
    """Every set, its heaviest members, their worth: one at a time."""
    rng = np.random.default_rng(0)
    names = [f"e{n}" for n in range(5)]
    wide = make_router([make_spec(name) for name in names], rng.random((3, 5)).tolist())
    subsets = [c for n in range(1, 6) for c in itertools.combinations(names, n)]
    worth = {frozenset(c): float(rng.random()) for c in subsets}
    offers = Offers.of(
        planned({"code": [one(*c, quality=worth[frozenset(c)]) for c in subsets]}, names)
    )
    expected = wide.artefact.expectation.table.quality[0]
    alone = [
        Candidate(Mode.single(n), *(estimate(q),) * 2) for n, q in zip(names, expected, strict=True)
    ]
    for most, top_p in [(1, 1.0), (2, 1.0), (5, 1.0), (3, 0.6), (5, 0.9)]:
        members, quality = offers.sets("code", alone, most, top_p)
        found = {
            frozenset(np.array(names)[row]): q for row, q in zip(members, quality, strict=True)
        }
        slow = {}
        for subset in subsets:
            q = dict(zip(names, expected, strict=True))
            weights = gate(np.array([q[n] for n in subset]))
            few = top_k(weights, min(most, heaviest(weights, top_p).size))
            answering = frozenset(subset[n] for n in few)
            added = worth[answering] - max(worth[frozenset([n])] for n in answering)
            slow[answering] = min(max(q[n] for n in answering) + max(added, 0), 1)
        assert found == pytest.approx(slow)


def estimate(quality):
    return Estimate(quality, 1.0, 1.0, 1.0, 0.0, 1.0)


def test_who_computes_nothing_takes_part_beside_the_sets(router):
    canned = Constants((Canned("Nine to five.", 1.0, patterns=(Pattern("opening"),)),))
    stocks = {"nobody": Declination("No."), "faq": canned}
    specs = {n: free_spec(NullSection(id=n, kind="null")) for n in stocks}
    free = replace(router, specs={**router.specs, **specs}, stocks=stocks)
    for offers in (Offers.of(planned({"code": MENU})), Offers.of(planned({}, resident=["small"]))):
        kept = replace(free, offers=offers, most_experts=2)
        assert kept.decide(ask()).expert_id in ("small", "large")
        assert kept.decide(ask("some opening code")).selection.expert_ids == ("faq",)
        assert "nobody" in {o.expert_id for o in kept.decide(ask()).alternatives}
        assert kept.decide(ask(), Budget(energy_j=0.1)).declined

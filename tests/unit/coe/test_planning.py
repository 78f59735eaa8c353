"""From an artefact to a plan: what is foreseen, what it costs, what the plan says."""

from dataclasses import replace

import numpy as np
import pytest

from coe.core import Budget, Policy, Prices
from coe.errors.files import PlanError
from coe.foresight import Foresight, Limits
from coe.planning import plan
from coe.routers.outcomes import Outcomes

FREE = Policy("free")
NONE = Limits()
# rows: code, maths, anything else; columns: small, large
QUALITY = [[0.25, 0.75], [0.625, 0.5], [0.375, 0.5]]
TRAFFIC = {
    "code": {"share": 0.5, "prompt_tokens": 20.0},
    "maths": {"share": 0.25, "prompt_tokens": 20.0},
    "general": {"share": 0.25, "prompt_tokens": 20.0},
}


@pytest.fixture
def router(make_spec, make_router):
    """For 100 tokens: small takes 1.1 s, 11 J, nothing; large takes 4.2 s, 84 J and 0.04 USD."""
    specs = [
        make_spec("small"),
        make_spec("large", ttft_ms=200.0, tokens_per_s=25.0, watts=20.0, usd_per_mtok_out=400.0),
    ]
    made = make_router(specs, QUALITY)
    return replace(made, artefact=replace(made.artefact, training={"traffic": TRAFFIC}))


def chosen(found):
    return {planned.name: planned.experts for planned in found.categories}


def test_without_ceilings_every_category_has_its_best_expert(router):
    found = plan(Foresight.of_table(router, FREE, NONE))
    assert chosen(found) == {"code": ("large",), "maths": ("small",), "general": ("large",)}
    assert found.status == "optimal"
    assert found.quality == pytest.approx(0.5 * 0.75 + 0.25 * 0.625 + 0.25 * 0.5)
    assert found.energy_j == pytest.approx(0.75 * 84 + 0.25 * 11)
    assert found.latency_ms == pytest.approx(4200)
    assert found.cost_usd == pytest.approx(0.75 * 0.04)
    assert found.resident == {"": ("small", "large")}
    assert found.certificate.gap == pytest.approx(0, abs=1e-9)
    assert found.premise["falls"] == 0


def test_a_mean_of_joules_goes_where_it_buys_most(router):
    found = plan(Foresight.of_table(router, FREE, Limits(energy_j=50.0)))
    # per joule, code gains most from the large expert
    assert chosen(found) == {"code": ("large",), "maths": ("small",), "general": ("small",)}
    assert found.energy_j <= 50.0
    assert found.binding == "mean_energy_j"
    assert found.slack["mean_energy_j"] == pytest.approx(50 - found.energy_j)


def test_the_staircase_holds_every_budget(router):
    found = plan(Foresight.of_table(router, FREE, NONE))
    for budget in (11.0, 30.0, 50.0, 60.0, 70.0):
        limited = plan(Foresight.of_table(router, FREE, Limits(energy_j=budget)))
        bought = found.affordable("energy_j", budget)
        assert bought.quality == pytest.approx(limited.quality)
    assert found.affordable("energy_j", 10.9) is None


def test_too_small_a_budget_names_the_one_that_would_do(router):
    found = plan(Foresight.of_table(router, FREE, Limits(energy_j=10.0)))
    assert (found.status, found.binding) == ("infeasible", "mean_energy_j")
    assert found.needed["mean_energy_j"] == pytest.approx(11.0)
    assert found.certificate is None
    assert set(chosen(found).values()) == {()}


@pytest.mark.parametrize(
    "ceiling", [{"latency_ms": 2000.0}, {"energy_j": 20.0}, {"cost_usd": 0.01}, {"ttft_ms": 150.0}]
)
def test_ceilings_of_the_policy_hold_for_every_expert(router, ceiling):
    found = plan(Foresight.of_table(router, Policy("tight", Budget(**ceiling)), NONE))
    assert set(chosen(found).values()) == {("small",)}
    assert {step.experts for step in found.staircases["energy_j"]} == {("small",)}
    # another request may have other ceilings
    assert all(len(c.menu) == 2 for c in found.categories)


@pytest.mark.parametrize(
    ("ceilings", "needed"),
    [
        ({"latency_ms": 10.0}, {"latency_ms": 1100.0}),
        ({"energy_j": 0.5}, {"energy_j": 11.0}),
        ({"latency_ms": 10.0, "energy_j": 0.5}, {"latency_ms": None, "energy_j": None}),
        ({"latency_ms": 10.0, "energy_j": 20.0}, {"latency_ms": 1100.0, "energy_j": None}),
    ],
)
def test_a_policy_that_nobody_fits_says_what_would_do(router, ceilings, needed):
    found = plan(Foresight.of_table(router, Policy("tight", Budget(**ceilings)), NONE))
    assert found.status == "infeasible"
    assert found.needed == pytest.approx(needed)
    assert found.binding in ceilings
    assert (found.resident, found.staircases["energy_j"]) == ({}, ())
    assert all(c.menu == () for c in found.categories)
    for axis, value in needed.items():
        if value is not None:
            enough = Policy("enough", Budget(**{**ceilings, axis: value}))
            assert plan(Foresight.of_table(router, enough, NONE)).status == "optimal"


def test_prices_of_the_policy_are_paid_in_quality(router):
    dear = Policy("dear", prices=Prices(per_joule=0.005))
    found = plan(Foresight.of_table(router, dear, NONE))
    # 73 J more at .005 are .365 points: worth it for code alone
    assert chosen(found) == {"code": ("large",), "maths": ("small",), "general": ("small",)}
    paid = 0.005 * found.energy_j
    assert found.certificate.lower == pytest.approx(found.quality - paid)
    assert found.certificate.upper == pytest.approx(found.quality - paid)


def test_memory_leaves_only_residents(router):
    limits = Limits(
        memory_gb={"small": 2.0, "large": 9.0},
        nodes={"small": "edge", "large": "edge"},
        node_gb={"edge": 10.0},
    )
    found = plan(Foresight.of_table(router, FREE, limits))
    assert found.resident == {"edge": ("large",)}
    assert set(chosen(found).values()) == {("large",)}
    assert found.method == "milp"
    roomy = replace(limits, node_gb={"edge": 11.0})
    assert plan(Foresight.of_table(router, FREE, roomy)).resident == {"edge": ("small", "large")}


def test_an_expert_without_a_node_takes_no_room(router):
    limits = Limits(memory_gb={"large": 99.0}, nodes={"small": "edge"}, node_gb={"edge": 1.0})
    found = plan(Foresight.of_table(router, FREE, limits))
    assert found.resident == {"": ("large",), "edge": ("small",)}


def test_a_step_says_who_serves_what(router):
    found = plan(Foresight.of_table(router, FREE, Limits(energy_j=50.0)))
    bought = found.affordable("energy_j", 50.0)
    assert bought.sets == tuple(c.experts for c in found.categories)
    assert bought.experts == ("small", "large")
    assert found.means == {"mean_energy_j": 50.0}


def test_likelihood_does_not_take_a_score_of_0_for_impossible(router):
    found = plan(Foresight.of_outcomes(router, table(), FREE, NONE, "likelihood", 2))
    assert np.log(0.05) < found.quality < 0
    assert found.certificate.gap == 0
    assert found.staircases["energy_j"]


def test_an_artefact_without_traffic_is_refused(router):
    old = replace(router, artefact=replace(router.artefact, training={}))
    with pytest.raises(PlanError, match="train it again"):
        Foresight.of_table(old, FREE, NONE)


def test_an_expert_without_a_profile_is_refused(router, make_spec):
    unknown = make_spec("large", ttft_ms=0.0, tokens_per_s=1.0, watts=0.0)
    specs = {**router.specs, "large": unknown}
    with pytest.raises(PlanError, match="'large' has no device profile"):
        Foresight.of_table(replace(router, specs=specs), FREE, NONE)


def test_no_expert_in_common_is_refused(router, make_spec):
    with pytest.raises(PlanError, match="none of the configured"):
        Foresight.of_table(replace(router, specs={"x": make_spec("x")}), FREE, NONE)


def table(n=40, **fields):
    """Prompts about code and maths; large is right on code, small on maths, and chance beside."""
    rng = np.random.default_rng(0)
    prompts = [f"some {word} {n}" for n in range(n) for word in ("code", "maths")]
    right = np.array([[0.2, 0.9], [0.7, 0.4]] * n) > rng.random((2 * n, 2))
    return Outcomes.of(prompts, ["small", "large"], right.astype(float), **fields)


@pytest.mark.parametrize("aggregation", ["mixture", "choose"])
def test_sets_are_planned_on_recorded_answers(router, aggregation):
    rows = table()
    found = plan(Foresight.of_outcomes(router, rows, FREE, NONE, aggregation, 2))
    assert found.status == "optimal"
    assert {c.name for c in found.categories} == {"code", "maths"}
    best = np.mean([rows.scores[0::2].mean(axis=0).max(), rows.scores[1::2].mean(axis=0).max()])
    assert found.quality >= best - 1e-9
    assert {len(one.experts) for c in found.categories for one in c.menu} <= {1, 2}
    for planned in found.categories:
        assert sum(planned.weights) == pytest.approx(1)


def test_outcomes_without_an_expert_are_refused(router):
    with pytest.raises(PlanError, match="the outcomes lack large"):
        Foresight.of_outcomes(router, table().columns(["small"]), FREE, NONE, "mixture", 1)


def test_outcomes_without_a_whole_row_are_refused(router):
    rows = table()
    holes = replace(rows, scores=np.where([[True, False]], rows.scores, np.nan))
    with pytest.raises(PlanError, match="no prompt"):
        Foresight.of_outcomes(router, holes, FREE, NONE, "mixture", 1)

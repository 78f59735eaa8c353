"""Plans of learned modes: against enumeration, with and without memory."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from coe.core import Budget, Message, Policy, Prices, Request
from coe.errors.files import PlanError
from coe.foresight import Foresight, Limits
from coe.mode import Mode
from coe.offers import Offers
from coe.plan import MODES, Plan
from coe.planning import plan
from coe.repertoire import Repertoire
from coe.routers.confidence import TRAITS, Confidence
from coe.routers.modes import LearnedModes, ModeTable

NAMES = ("a", "b", "c")
CATEGORIES = ("code", "maths", "general")
TRAFFIC = {
    "code": {"share": 0.5, "prompt_tokens": 20.0},
    "maths": {"share": 0.3, "prompt_tokens": 30.0},
    "general": {"share": 0.2, "prompt_tokens": 20.0},
}
FREE = Policy("free")


def modes_of(rng):
    """Singles, votes and cascades of three experts, with figures drawn at random."""
    modes = [Mode.single(name) for name in NAMES]
    modes += [Mode("vote", (chosen,)) for chosen in [("a", "b"), ("b", "c"), NAMES]]
    modes += [Mode("cascade", (("a",), ("c",)), 0.7), Mode("cascade", (("a", "b"), ("c",)), 0.9)]
    shape = (len(CATEGORIES), len(modes))
    reach = np.zeros((*shape, 2))
    usage = np.zeros((*shape, len(NAMES)))
    for m, mode in enumerate(modes):
        for s, stage in enumerate(mode.stages):
            reach[:, m, s] = 1.0 if s == 0 else rng.uniform(0.1, 0.9, len(CATEGORIES))
            for name in stage:
                usage[:, m, NAMES.index(name)] = reach[:, m, s]
    quality, error = rng.uniform(0.2, 0.9, shape), rng.uniform(0.0, 0.02, shape)
    table = ModeTable(CATEGORIES, NAMES, tuple(modes), quality, error, usage, reach)
    return LearnedModes(table, Confidence(np.zeros(len(TRAITS)), 0.0), 4.0)


@pytest.fixture(params=range(6))
def router(request, make_spec, make_router):
    rng = np.random.default_rng(request.param)
    specs = [
        make_spec(name, tokens_per_s=rate, watts=watts, usd_per_mtok_out=usd)
        for name, rate, watts, usd in [("a", 100, 10, 0), ("b", 60, 15, 50), ("c", 25, 40, 400)]
    ]
    made = make_router(specs, [[0.5] * 3] * 3)
    artefact = replace(made.artefact, training={"traffic": TRAFFIC}, modes=modes_of(rng))
    return replace(made, artefact=artefact)


def by_enumeration(foresight, limits):
    """The best mode of every category, all combinations looked at."""
    problem, best, least = foresight.problem, None, -np.inf
    for columns in product(range(len(foresight.modes)), repeat=len(CATEGORIES)):
        rows = list(enumerate(columns))
        energy_j = sum(problem.shares[c] * problem.energy_j[c, m] for c, m in rows)
        if limits.energy_j is not None and energy_j > limits.energy_j:
            continue
        members = {name for _, m in rows for name in foresight.modes[m].members}
        held = sum(limits.memory_gb.get(name, 0.0) for name in members)
        if held > limits.node_gb.get("here", np.inf):
            continue
        worth = sum(
            problem.shares[c] * (problem.quality[c, m] - foresight.paid[c, m]) for c, m in rows
        )
        if worth > least + 1e-12:
            best, least = [foresight.modes[m] for m in columns], worth
    return best, least


@pytest.mark.parametrize("energy_j", [None, 25.0, 60.0])
@pytest.mark.parametrize("room", [None, 5.0, 8.0])
@pytest.mark.parametrize("per_joule", [0.0, 0.002])
def test_a_plan_of_modes_is_the_best_of_all(router, energy_j, room, per_joule):
    limits = Limits(energy_j=energy_j)
    if room is not None:
        limits = replace(
            limits,
            memory_gb={"a": 2.0, "b": 3.0, "c": 5.0},
            nodes=dict.fromkeys(NAMES, "here"),
            node_gb={"here": room},
        )
    policy = Policy("priced", prices=Prices(per_joule=per_joule))
    foresight = Foresight.of_modes(router, policy, limits)
    best, worth = by_enumeration(foresight, limits)
    found = plan(foresight)
    if best is None:
        assert found.status == "infeasible"
        return
    assert found.status == "optimal"
    assert found.certificate.lower == pytest.approx(worth)
    assert found.aggregation == MODES
    assert [category.mode for category in found.categories] == best
    together = {name for mode in best for name in mode.members}
    assert together <= set(found.experts)
    assert all(set(one.experts) <= set(found.experts) for c in found.categories for one in c.menu)


def test_the_staircase_includes_the_modes(router):
    found = plan(Foresight.of_modes(router, FREE, Limits()))
    steps = found.staircases["energy_j"]
    assert [step.energy_j for step in steps] == sorted(step.energy_j for step in steps)
    assert all(len(step.modes) == len(CATEGORIES) for step in steps)
    top = [category.mode.name for category in found.categories]
    assert list(steps[-1].modes) == top
    assert steps[-1].quality == pytest.approx(found.quality)
    assert {one.experts for one in found.singles} == {(name,) for name in NAMES}


def test_every_stage_must_keep_the_ceilings(router):
    free = plan(Foresight.of_modes(router, FREE, Limits()))
    slowest = max(one.latency_ms for c in free.categories for one in c.menu)
    tight = Policy("tight", Budget(latency_ms=0.7 * slowest))
    found = plan(Foresight.of_modes(router, tight, Limits()))
    assert found.latency_ms <= 0.7 * slowest
    # a cascade of two stages takes as long as both
    menu = {one.mode: one for one in found.categories[0].menu}
    cascade = menu[Mode("cascade", (("a",), ("c",)), 0.7)]
    alone = [menu[Mode.single(name)].latency_ms for name in ("a", "c")]
    assert cascade.latency_ms == pytest.approx(sum(alone))
    assert cascade.energy_j < sum(menu[Mode.single(name)].energy_j for name in ("a", "c"))


def test_a_plan_of_modes_is_kept_in_a_file(router, tmp_path):
    found = plan(Foresight.of_modes(router, FREE, Limits()))
    found.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == found


def test_an_artefact_without_modes_cannot_be_planned_so(router):
    plain = replace(router, artefact=replace(router.artefact, modes=None))
    with pytest.raises(PlanError, match="learned no modes"):
        Foresight.of_modes(plain, FREE, Limits())


def test_modes_of_experts_that_are_not_configured_are_left_out(router):
    few = replace(router, specs={name: router.specs[name] for name in ("a", "b")})
    foresight = Foresight.of_modes(few, FREE, Limits())
    assert {name for mode in foresight.modes for name in mode.members} == {"a", "b"}
    assert plan(foresight).status == "optimal"


def asked(router, prompt="code", **known):
    return router.decide(Request((Message("user", prompt),), **known))


def test_a_request_chooses_among_the_modes_on_the_menu_of_its_category(router):
    limits = Limits(
        memory_gb={"a": 2.0, "b": 3.0, "c": 5.0},
        nodes=dict.fromkeys(NAMES, "here"),
        node_gb={"here": 5.0},
    )
    found = plan(Foresight.of_modes(router, FREE, limits))
    served = with_modes(router).under(Offers.of(found))
    for prompt in ("code", "maths"):
        decision = asked(served, prompt)
        menu = {one.mode for one in found.menu(decision.category.name)}
        assert decision.selection.mode in menu
        assert set(decision.selection.expert_ids) <= set(found.experts)
        named = {other.expert_id for other in decision.alternatives}
        assert named <= {mode.name for mode in menu}


def test_under_a_mean_the_planned_mode_is_all_there_is_but_its_members_alone(router):
    free = plan(Foresight.of_modes(router, FREE, Limits()))
    found = plan(Foresight.of_modes(router, FREE, Limits(energy_j=0.8 * free.energy_j)))
    served = with_modes(router).under(Offers.of(found))
    planned = {category.name: category.mode for category in found.categories}
    for prompt in ("code", "maths"):
        decision = asked(served, prompt)
        mode = planned[decision.category.name]
        alone = {Mode.single(name) for name in mode.members}
        assert decision.selection.mode in alone | {mode}
        streamed = asked(served, prompt, stream=True)
        assert streamed.selection.mode in alone


def test_without_a_plan_all_modes_are_there_again(router):
    found = plan(Foresight.of_modes(router, FREE, Limits(energy_j=30.0)))
    learned = with_modes(router)
    again = learned.under(Offers.of(found)).under(None)
    assert asked(again).selection == asked(learned).selection


def with_modes(router):
    """As `Router.load` would have it."""
    return replace(router, repertoire=Repertoire.of(router.artefact.modes.table))

"""From a plan and nodes to places: whose requests are counted where, and what is asked of nodes."""

from dataclasses import replace

import numpy as np
import pytest

from coe.config import Config
from coe.errors.files import PlanError
from coe.optimizer.place import place
from coe.plan import Certificate, Plan, PlannedCategory, PlannedSet
from coe.siting import siting

MENU = tuple(
    PlannedSet((name,), 0.5, 10.0, latency_ms, 0.0)
    for name, latency_ms in (("small", 1000.0), ("large", 4000.0), ("spare", 2000.0))
)
SINGLES = (*MENU, PlannedSet(("odd",), 0.1, 10.0, 3000.0, 0.0))


def category(name, share, experts, weights):
    return PlannedCategory(name, share, experts, weights, MENU)


def make_plan(**changes):
    """Code goes to the large expert, maths to the small one and a quarter of it to the large."""
    found = Plan(
        policy="default",
        aggregation="best",
        k=1,
        means={},
        status="optimal",
        method="",
        why="",
        certificate=Certificate(0.5, 0.5, 0.0, 1, 1.0),
        quality=0.5,
        energy_j=1.0,
        latency_ms=1.0,
        cost_usd=0.0,
        resident={},
        categories=(
            category("code", 0.5, ("large",), (1.0,)),
            category("maths", 0.5, ("small", "large"), (0.75, 0.25)),
        ),
        staircases={},
        singles=SINGLES,
        binding=None,
        slack={},
        needed={},
        premise={},
    )
    return replace(found, **changes)


def expert(name, memory_gb, **more):
    device = "rtx-4090/llama-3-8b-q4_k_m-llama.cpp"
    return {"id": name, "kind": "embedded", "weights": "w", "device": device, **more} | {
        "memory_gb": memory_gb
    }


def make_config(**nodes):
    experts = [expert("small", 4.0), expert("large", 8.0, node="far"), expert("spare", 2.0)]
    away = {"kind": "http", "base_url": "http://x", "device": experts[0]["device"], "id": "away"}
    some = {"near": {"memory_gb": 6.0, "slots": 4}, "far": {"memory_gb": 9.0, "load_gb_per_s": 2.0}}
    return Config.model_validate({"experts": [*experts, away], "nodes": nodes or some})


def test_requests_are_those_of_the_categories_by_weight():
    made = siting(make_plan(), make_config(), rate_per_s=2.0)
    assert (made.node_names, made.expert_ids) == (("near", "far"), ("small", "large", "spare"))
    problem = made.problem
    assert problem.rate_per_s.tolist() == [2 * 0.5 * 0.75, 2 * (0.5 + 0.5 * 0.25), 0.0]
    assert problem.expert_gb.tolist() == [4.0, 8.0, 2.0]
    assert problem.node_gb.tolist() == [6.0, 9.0]
    assert problem.slots.tolist() == [4.0, np.inf]
    assert problem.busy_s.tolist() == [[1.0, 4.0, 2.0]] * 2
    assert problem.cost.tolist() == [[1000.0, 4000.0, 2000.0]] * 2
    assert problem.switch_s.tolist() == [[np.inf] * 3, [2.0, 4.0, 1.0]]
    assert problem.allowed.tolist() == [[True, False, True], [True, True, True]]
    assert problem.together is None


def test_experts_of_a_set_answer_together_unless_one_is_enough():
    plan = make_plan(aggregation="mixture", k=2)
    problem = siting(plan, make_config(), rate_per_s=2.0, apart_ms=50.0).problem
    assert problem.rate_per_s.tolist() == [1.0, 2.0, 0.0]
    assert problem.together.tolist() == [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    assert problem.apart_cost == 50.0


def test_of_a_set_that_is_larger_than_k_each_answers_by_its_weight():
    three = category("code", 1.0, ("small", "large", "spare"), (0.6, 0.3, 0.1))
    plan = make_plan(aggregation="mixture", k=2, categories=(three,))
    problem = siting(plan, make_config(), rate_per_s=1.0).problem
    assert problem.rate_per_s == pytest.approx([1.0, 0.6, 0.2])
    assert problem.together[0] == pytest.approx([0.0, 0.6, 0.2])
    everyone = siting(replace(plan, k=None), make_config(), rate_per_s=1.0).problem
    assert everyone.rate_per_s.tolist() == [1.0, 1.0, 1.0]


def test_places_have_names():
    made = siting(make_plan(), make_config(), rate_per_s=0.1)
    found = place(made.problem)
    sites = made.named(found.placement)
    assert found.status == "optimal"
    assert [(site.node, site.share) for site in sites["small"]] == [("near", 1.0)]
    assert [site.node for site in sites["large"]] == ["far"]
    assert [site.node for site in sites["spare"]] == ["near"]
    assert all(site.load_s is None for each in sites.values() for site in each)


def test_what_is_loaded_on_demand_says_how_long_that_takes():
    config = make_config(far={"memory_gb": 9.0, "load_gb_per_s": 2.0})
    made = siting(make_plan(), config, rate_per_s=0.01)
    sites = made.named(place(made.problem).placement)
    assert sites["small"][0].load_s == 2.0
    assert sites["large"][0].load_s == 4.0


def test_what_stands_in_the_way_has_the_name_of_its_node():
    config = make_config(near={"memory_gb": 3.0}, far={"memory_gb": 8.0})
    made = siting(make_plan(), config, rate_per_s=0.1)
    found = place(made.problem)
    assert found.status == "infeasible"
    needed = {made.named_limit(name): value for name, value in found.needed.items()}
    assert needed["node_gb[near]"] == pytest.approx(6.0)
    assert needed["node_gb[far]"] == pytest.approx(12.0)


def test_copies_and_experts_can_be_asked_for():
    made = siting(make_plan(), make_config(), 0.1, experts=["small", "spare"], copies={"spare": 2})
    assert made.expert_ids == ("small", "spare")
    assert len(made.named(place(made.problem).placement)["spare"]) == 2


def test_an_expert_on_no_menu_takes_what_it_takes_alone():
    config = make_config()
    odd = config.experts[0].model_copy(update={"id": "odd"})
    more = config.model_copy(update={"experts": [*config.experts, odd]})
    problem = siting(make_plan(), more, 1.0).problem
    assert problem.cost[0].tolist() == [1000.0, 4000.0, 2000.0, 3000.0]


@pytest.mark.parametrize(
    ("plan", "config"),
    [
        (make_plan(certificate=None), make_config()),
        (make_plan(), make_config().model_copy(update={"nodes": {}})),
        (make_plan(), make_config().model_copy(update={"experts": make_config().experts[3:]})),
    ],
)
def test_without_plan_nodes_or_experts_there_is_nothing_to_place(plan, config):
    with pytest.raises(PlanError):
        siting(plan, config, 1.0)

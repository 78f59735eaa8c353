"""A plan survives its file, and says what a budget buys."""

import json
from dataclasses import replace

import pytest

from coe.errors.files import PlanError
from coe.plan import Certificate, Plan, PlannedCategory, PlannedSet, PlannedStep

SMALL = PlannedSet(("a",), 0.4, 10.0, 500.0, 0.0)
BOTH = PlannedSet(("a", "b"), 0.7, 60.0, 2000.0, 0.01)
LOW = PlannedStep(("a",), (("a",),), 0.4, 10.0, 500.0, 0.0)
HIGH = PlannedStep(("a", "b"), (("a", "b"),), 0.7, 60.0, 2000.0, 0.01)
PLAN = Plan(
    policy="default",
    aggregation="mixture",
    k=2,
    means={"mean_energy_j": 41.0},
    status="optimal",
    method="knapsack",
    why="sets per category share nothing but budgets",
    certificate=Certificate(0.6, 0.6, 0.0, 12, 3.5),
    quality=0.6,
    energy_j=40.0,
    latency_ms=2000.0,
    cost_usd=0.01,
    resident={"": ("b",), "edge": ("a",)},
    categories=(PlannedCategory("maths", 1.0, ("a", "b"), (0.25, 0.75), (SMALL, BOTH)),),
    staircases={"energy_j": (LOW, HIGH), "latency_ms": (LOW,), "cost_usd": (LOW,)},
    singles=(SMALL,),
    binding="max_energy_j",
    slack={"max_energy_j": 1.0},
    needed={},
    premise={"falls": 0.1},
)


def test_a_plan_survives_its_file(tmp_path):
    PLAN.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == PLAN
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]


def test_an_infeasible_plan_survives_its_file_too(tmp_path):
    empty = replace(PLAN, status="infeasible", certificate=None, needed={"max_energy_j": None})
    empty.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == empty


def test_the_document_has_the_staircase_over_joules():
    document = json.loads(json.dumps(PLAN.document()))
    assert [step["experts"] for step in document["staircase"]] == [["a"], ["a", "b"]]
    assert set(document["certificate"]) == {"lower", "upper", "gap", "nodes", "solve_ms"}


@pytest.mark.parametrize(
    ("budget", "bought"), [(9.9, None), (10.0, LOW), (59.0, LOW), (60.0, HIGH), (1e9, HIGH)]
)
def test_a_budget_buys_the_last_step_that_it_covers(budget, bought):
    assert PLAN.affordable("energy_j", budget) == bought


def test_residents_and_menus():
    assert PLAN.experts == ("a", "b")
    assert PLAN.menu("maths") == (SMALL, BOTH)
    assert PLAN.menu("art") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not a readable plan"),
        ("[]", "not a plan of schema"),
        ('{"schema": 99}', "not a plan of schema"),
        ('{"schema": 1}', "policy: "),
    ],
)
def test_another_file_is_refused(tmp_path, text, message):
    path = tmp_path / "plan.json"
    path.write_text(text)
    with pytest.raises(PlanError, match=message):
        Plan.load(path)


def test_an_absent_file_is_refused(tmp_path):
    with pytest.raises(PlanError, match="not a readable plan"):
        Plan.load(tmp_path / "plan.json")


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(PlanError, match="cannot be written"):
        PLAN.save(tmp_path / "absent" / "plan.json")


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("k", "two"),
        ("status", 5),
        ("quality", "x"),
        ("resident", {"": "a"}),
        ("categories", [{"name": "maths"}]),
    ],
)
def test_a_wrong_field_is_named(tmp_path, field, wrong):
    path = tmp_path / "plan.json"
    path.write_text(json.dumps({**PLAN.document(), field: wrong}))
    with pytest.raises(PlanError, match=rf"plan.json: {field}"):
        Plan.load(path)

"""The category-to-expert map on the side of names."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from coe.config import DATA, load_config
from coe.optimizer.map import MapProblem
from coe.optimizer.milp import solve_map
from coe.routers.map import ExpertMap, value_and_shares
from coe.routers.outcomes import Outcomes
from coe.routers.quality import QualityTable

ROOT = Path(__file__).parents[3]
MADE = ExpertMap(("code", "maths", "general"), ("a", "b", "c"), (2, 0, 0), 0.75)


@pytest.fixture
def table():
    categories = np.array(["code", "code", "maths", "maths"])
    scores = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.5]])
    return QualityTable.fit(categories, ("a", "b"), scores, 10 * scores, shrinkage=1.0)


def test_a_category_has_the_expert_of_its_index():
    assert [MADE.expert_for(name) for name in MADE.categories] == ["c", "a", "a"]


def test_the_chosen_experts_are_those_that_serve_some_category():
    assert MADE.chosen == ("a", "c")


def test_an_unknown_category_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match=r"'poems'.*'maths'"):
        MADE.expert_for("poems")


@pytest.mark.parametrize(
    ("categories", "experts", "complaint"),
    [
        (("code", "code"), (0, 1), "differ"),
        (("code", "maths"), (0,), "one for each of 2 categories"),
        (("code", "maths"), (0, 2), r"below 2, not \[2\]"),
        (("code", "maths"), (-1, 0), r"below 2, not \[-1\]"),
    ],
)
def test_a_map_that_does_not_fit_together_is_refused(categories, experts, complaint):
    with pytest.raises(ValueError, match=complaint):
        ExpertMap(categories, ("a", "b"), experts, 0.5)


def test_shares_follow_the_rows_of_the_table(table):
    value, shares = value_and_shares(table, {"maths": 3, "general": 1, "code": 4})
    assert table.categories == ("code", "maths", "general")
    np.testing.assert_allclose(shares, [0.5, 0.375, 0.125])
    np.testing.assert_array_equal(value, table.quality)
    assert value is not table.quality


def test_without_uncertain_prompts_the_general_row_has_no_share(table):
    np.testing.assert_allclose(value_and_shares(table, {"code": 1, "maths": 1})[1], [0.5, 0.5, 0])


def test_prompts_without_a_category_count_as_general(table):
    counts = Counter(["code", "", "general", ""])
    np.testing.assert_allclose(value_and_shares(table, counts)[1], [0.25, 0.0, 0.75])


@pytest.mark.parametrize(
    ("counts", "complaint"),
    [
        ({"poems": 1}, "'poems'"),
        ({"code": -1}, "'code'"),
        ({"code": float("nan")}, "'code'"),
        ({"code": float("inf")}, "'code'"),
        ({"code": 0}, "at least one prompt"),
        ({}, "at least one prompt"),
    ],
)
def test_counts_that_make_no_shares_are_refused(table, counts, complaint):
    with pytest.raises(ValueError, match=complaint):
        value_and_shares(table, counts)


def test_the_value_of_a_map_is_its_mean_score_over_the_traffic(table):
    _, shares = value_and_shares(table, {"code": 1, "maths": 3})
    made = ExpertMap.of(table, shares, [0, 1, 1])
    assert made.value == pytest.approx(0.25 * table.quality[0, 0] + 0.75 * table.quality[1, 1])
    assert (made.expert_for("code"), made.expert_for("maths")) == ("a", "b")


@pytest.mark.parametrize("assignment", [[0, 1], [0, 1, 2], []])
def test_an_assignment_of_another_table_is_refused(table, assignment):
    with pytest.raises(ValueError, match="experts must"):
        ExpertMap.of(table, np.array([0.5, 0.5, 0.0]), assignment)


def test_the_committed_outcomes_become_a_map_within_any_budget_that_holds_an_expert():
    outcomes = Outcomes.read(ROOT / "data" / "outcomes" / "embedded.parquet")
    table = QualityTable.fit(
        outcomes.categories, outcomes.expert_ids, outcomes.scores, outcomes.tokens
    )
    value, shares = value_and_shares(table, Counter(outcomes.categories.tolist()))
    specs = load_config(DATA / "coe.yaml").specs
    params_b = np.array([specs[expert_id].params_b for expert_id in table.expert_ids])
    problem = MapProblem(value, shares, params_b)
    found = solve_map(problem)
    made = ExpertMap.of(table, shares, found.assignment)
    assert made.value == pytest.approx(found.value)
    assert made.value == pytest.approx(float(shares @ value.max(axis=1)))
    tight = solve_map(problem.with_ceiling("stored_params_b", float(params_b.min())))
    assert len(ExpertMap.of(table, shares, tight.assignment).chosen) == 1
    assert tight.value <= found.value

"""The category-to-expert map on problems small enough to solve in the head."""

import subprocess
import sys
import tempfile
from dataclasses import replace

import numpy as np
import pytest

from coe.errors import CoeError
from coe.optimizer.map import MapProblem
from coe.optimizer.milp import budget_ladder, solve_map

SMALL, MIDDLE, LARGE = 0, 1, 2


def make_problem(**changes):
    """Three categories; a small, a middle and a large expert, which is best at the last one."""
    problem = MapProblem(
        value=np.array([[0.5, 0.9, 0.6], [0.5, 0.6, 0.6], [0.2, 0.3, 0.8]]),
        shares=np.array([0.5, 0.25, 0.25]),
        params_b=np.array([1.0, 7.0, 70.0]),
        latency_ms=np.array([[100.0, 300.0, 900.0]] * 3),
        energy_j=np.array([[1.0, 5.0, 40.0]] * 3),
        cost_usd=np.array([[0.0, 0.1, 1.0]] * 3),
    )
    return replace(problem, **changes)


def hard_problem(seed, n_categories=8, n_experts=14):
    rng = np.random.default_rng(seed)
    params_b = rng.uniform(1, 70, n_experts)
    return MapProblem(
        value=rng.random((n_categories, n_experts)),
        shares=rng.dirichlet(np.ones(n_categories)),
        params_b=params_b,
        stored_params_b=float(params_b.sum()) / 3,
        energy_j=rng.random((n_categories, n_experts)),
        max_energy_j=0.35,
    )


@pytest.mark.parametrize(
    ("ceilings", "assignment", "value"),
    [
        ({}, (MIDDLE, MIDDLE, LARGE), 0.8),
        ({"stored_params_b": 77.0}, (MIDDLE, MIDDLE, LARGE), 0.8),
        ({"stored_params_b": 76.9}, (MIDDLE, MIDDLE, MIDDLE), 0.675),
        ({"stored_params_b": 1.0}, (SMALL, SMALL, SMALL), 0.425),
        ({"max_experts": 1}, (MIDDLE, MIDDLE, MIDDLE), 0.675),
        # the middle expert on half of the traffic leaves room for nothing larger
        ({"active_params_b": 4.0}, (MIDDLE, SMALL, SMALL), 0.625),
        ({"max_energy_j": 3.0}, (MIDDLE, SMALL, SMALL), 0.625),
        ({"max_cost_usd": 0.05}, (MIDDLE, SMALL, SMALL), 0.625),
        ({"max_latency_ms": 300.0}, (MIDDLE, MIDDLE, MIDDLE), 0.675),
        ({"max_latency_ms": np.array([100.0, np.inf, np.inf])}, (SMALL, LARGE, LARGE), 0.6),
    ],
)
def test_each_ceiling_leaves_the_best_map_under_it(ceilings, assignment, value):
    result = solve_map(make_problem(**ceilings))
    assert (result.status, result.assignment) == ("optimal", assignment)
    assert result.value == pytest.approx(value)
    assert result.bound == pytest.approx(value)


def test_a_result_tells_what_is_stored_and_what_is_run():
    result = solve_map(make_problem())
    assert result.chosen == (MIDDLE, LARGE)
    assert result.stored_params_b == 77.0
    assert result.active_params_b == pytest.approx(0.75 * 7 + 0.25 * 70)


def test_among_equals_the_map_of_fewer_stored_parameters_wins():
    value = np.array([[0.5, 0.5, 0.5], [0.5, 0.5, 0.5]])
    shares = np.array([0.5, 0.5])
    found = solve_map(MapProblem(value, shares, params_b=np.array([9.0, 2.0, 7.0])))
    assert found.assignment == (1, 1)


def test_among_equals_of_equal_size_the_lower_index_wins():
    value = np.array([[0.25, 0.5, 0.5], [0.25, 0.5, 0.5]])
    found = solve_map(MapProblem(value, np.array([0.5, 0.5]), np.array([4.0, 4.0, 4.0])))
    assert found.assignment == (1, 1)


def test_a_tiny_gain_is_not_taken_for_a_tie():
    value = np.array([[0.5, 0.5 + 1e-7]])
    assert solve_map(MapProblem(value, np.array([1.0]), np.array([1.0, 70.0]))).assignment == (1,)


@pytest.mark.parametrize("ceilings", [{}, {"max_energy_j": 100.0}])
def test_a_category_without_traffic_gets_the_best_of_the_chosen_experts(ceilings):
    shares = np.array([0.75, 0.0, 0.25])
    value = np.array([[0.5, 0.9, 0.6], [0.9, 0.2, 0.6], [0.2, 0.3, 0.8]])
    found = solve_map(make_problem(shares=shares, value=value, **ceilings))
    assert found.assignment == (MIDDLE, LARGE, LARGE)


@pytest.mark.parametrize("excess", [1e-12, 9e-10, 1.2e-9, 2e-9, 3e-9, 1e-8, 1e-7, 1e-6])
def test_a_billionth_over_a_ceiling_fits_and_no_more(excess):
    # CBC's own tolerances lie among these; at some it returns what breaks its own rows
    value = np.array([[1.0, 0.2, 0.1], [0.2, 1.0, 0.1], [0.3, 0.3, 0.5]])
    params_b = np.array([30 * (1 + excess), 40 * (1 + excess), 1.0])
    shares = np.array([0.4, 0.4, 0.2])
    stored = solve_map(MapProblem(value, shares, params_b, stored_params_b=70.0))
    assert stored.chosen == ((0, 1) if excess < 1e-9 else (0, 2))
    energy_j = np.array([[5.0, 1.0, 1.0], [1.0, 3.0, 1.0], [1.0, 1.0, 2.0]]) * (1 + excess)
    shares = np.array([0.5, 0.5, 0.0])
    spent = solve_map(MapProblem(value, shares, params_b, energy_j=energy_j, max_energy_j=4.0))
    assert (spent.assignment[:2] == (0, 1)) == (excess < 1e-9)


def test_a_budget_of_nothing_holds_experts_of_unknown_size_only():
    sizes = np.array([1.0, 0.0, 70.0])
    assert solve_map(make_problem(params_b=sizes, stored_params_b=0.0)).chosen == (1,)


@pytest.mark.parametrize(
    ("ceilings", "conflict", "needed"),
    [
        ({"stored_params_b": 0.5}, ("stored_params_b",), {"stored_params_b": 1.0}),
        ({"active_params_b": 0.5}, ("active_params_b",), {"active_params_b": 1.0}),
        ({"max_energy_j": 0.5}, ("max_energy_j",), {"max_energy_j": 1.0}),
        ({"max_latency_ms": 50.0}, ("max_latency_ms",), {"max_latency_ms": 100.0}),
        (
            {"max_latency_ms": np.array([np.inf, 50.0, 200.0])},
            ("max_latency_ms[1]",),
            {"max_latency_ms[1]": 100.0, "max_latency_ms[2]": None},
        ),
        # neither alone is impossible; the first has further to go
        (
            {"stored_params_b": 5.0, "latency_ms": np.array([[900.0, 300.0, 100.0]] * 3)}
            | {"max_latency_ms": 400.0, "max_cost_usd": 0.5},
            ("stored_params_b", "max_latency_ms"),
            {"stored_params_b": 7.0, "max_cost_usd": None, "max_latency_ms": 900.0},
        ),
        (
            {"stored_params_b": 0.5, "max_energy_j": 0.5},
            ("max_energy_j",),
            {"stored_params_b": None, "max_energy_j": None},
        ),
    ],
)
def test_what_makes_a_map_impossible_is_named(ceilings, conflict, needed):
    result = solve_map(make_problem(**ceilings))
    assert (result.status, result.assignment, result.gap) == ("infeasible", (), 0.0)
    assert result.conflict == conflict
    assert result.needed == pytest.approx(needed)


def test_two_categories_may_need_two_experts():
    latency_ms = np.array([[100.0, 900.0], [900.0, 100.0]])
    problem = MapProblem(
        np.full((2, 2), 0.5), np.array([0.5, 0.5]), np.array([1.0, 2.0]), max_experts=1
    )
    result = solve_map(replace(problem, latency_ms=latency_ms, max_latency_ms=100.0))
    assert result.needed == {"max_experts": 2.0, "max_latency_ms": 900.0}
    assert result.conflict == ("max_experts", "max_latency_ms")


@pytest.mark.parametrize(
    ("field", "figures"),
    [
        ("value", np.full((3, 3), 1.5)),
        ("value", np.full((3, 3), np.nan)),
        ("value", np.zeros((0, 3))),
        ("value", np.zeros(3)),
        ("shares", np.array([0.5, 0.5])),
        ("shares", np.array([0.5, 0.25, 0.5])),
        ("shares", np.array([1.5, -0.25, -0.25])),
        ("params_b", np.array([1.0, -7.0, 70.0])),
        ("params_b", np.array([1.0, np.inf, 70.0])),
        ("params_b", np.ones((3, 3))),
        ("latency_ms", np.full((3, 3), -1.0)),
        ("latency_ms", np.ones((3, 2))),
        ("energy_j", np.full((3, 3), np.nan)),
        ("cost_usd", np.ones(3)),
        ("stored_params_b", -1.0),
        ("stored_params_b", np.nan),
        ("active_params_b", np.nan),
        ("max_experts", 0),
        ("max_experts", -1),
        ("max_latency_ms", -5.0),
        ("max_latency_ms", np.array([1.0, 2.0])),
        ("max_latency_ms", np.array([1.0, np.nan, 2.0])),
        ("max_energy_j", -0.5),
        ("max_cost_usd", np.nan),
    ],
)
def test_bad_figures_are_refused_by_name(field, figures):
    with pytest.raises(ValueError, match=field):
        make_problem(**{field: figures})


@pytest.mark.parametrize("name", ["latency_ms", "energy_j", "cost_usd"])
def test_a_ceiling_without_its_figures_is_refused(name):
    with pytest.raises(ValueError, match=f"max_{name}"):
        make_problem(**{name: None, f"max_{name}": 1.0})


def test_a_ceiling_of_infinity_is_none():
    assert make_problem(stored_params_b=np.inf, max_latency_ms=np.full(3, np.inf)).ceilings() == {}


@pytest.mark.parametrize("name", ["params_b", "max_latency_ms[1]", "max_latency_ms[7]", "speed"])
def test_only_a_ceiling_can_be_changed_by_name(name):
    with pytest.raises(ValueError, match="no ceiling is called"):
        make_problem(max_latency_ms=1000.0).with_ceiling(name, 1.0)


def test_the_ladder_climbs_from_the_smallest_expert_to_the_best_map():
    ladder = budget_ladder(make_problem())
    assert [step.stored_params_b for step in ladder] == [1.0, 7.0, 77.0]
    assert [step.chosen for step in ladder] == [(SMALL,), (MIDDLE,), (MIDDLE, LARGE)]


def test_the_ladder_keeps_the_other_ceilings_and_ends_at_the_problem_s_own_budget():
    small = budget_ladder(make_problem(stored_params_b=70.0, max_latency_ms=500.0))
    assert [step.stored_params_b for step in small] == [1.0, 7.0]
    assert budget_ladder(make_problem(max_energy_j=0.5)) == ()


def test_a_ladder_over_given_budgets_has_a_step_only_where_the_map_improves():
    ladder = budget_ladder(make_problem(), budgets=[100.0, 0.5, 76.0, 8.0, 8.0, 80.0])
    assert [step.stored_params_b for step in ladder] == [7.0, 77.0]
    assert budget_ladder(make_problem(), budgets=[]) == ()


@pytest.mark.parametrize("budgets", [[-1.0, 5.0], [np.nan]])
def test_budgets_that_are_none_are_refused(budgets):
    with pytest.raises(ValueError, match="budgets"):
        budget_ladder(make_problem(), budgets)


@pytest.mark.parametrize("options", [{"solver": "magic"}, {"time_limit_s": 0.0}])
def test_unknown_solvers_and_times_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        solve_map(make_problem(), **options)


@pytest.mark.parametrize("seed", [3, 4, 5, 6])
def test_when_time_runs_out_the_best_map_so_far_is_returned_with_a_bound(seed):
    problem = hard_problem(seed)
    best = solve_map(problem)
    assert best.status == "optimal"
    # CBC calls a problem infeasible, now and then, when it is stopped early
    for time_limit_s in (0.001, 0.003, 0.006, 0.01):
        result = solve_map(problem, time_limit_s)
        assert result.status in ("optimal", "feasible", "unknown")
        assert result.value - 2e-9 <= best.value <= result.bound + 2e-9
        assert (result.assignment == ()) == (result.status == "unknown")


def test_a_single_expert_for_all_is_found_in_no_time():
    problem = replace(hard_problem(0, 30, 30), max_energy_j=1.0)
    result = solve_map(problem, time_limit_s=0.001)
    assert result.status in ("feasible", "optimal")
    assert result.value >= np.max(problem.shares @ problem.value) - 2e-9


def test_the_same_problem_gives_the_same_map():
    value = np.full((4, 6), 0.5)
    problem = MapProblem(value, np.full(4, 0.25), np.ones(6), energy_j=value, max_energy_j=1.0)
    assert solve_map(problem) == solve_map(problem)


def test_nothing_is_left_behind_and_nothing_is_printed(tmp_path, monkeypatch, capfd):
    (tmp_path / "temporary").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    assert solve_map(make_problem(stored_params_b=8.0)).status == "optimal"
    assert [path.name for path in tmp_path.rglob("*")] == ["temporary"]
    assert capfd.readouterr() == ("", "")


def test_a_failure_of_the_solver_is_told_and_leaves_nothing_behind(tmp_path, monkeypatch):
    # PuLP splits its command at spaces, so that CBC does not find the program
    folder = tmp_path / "a folder"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    with pytest.raises(CoeError, match="CBC"):
        solve_map(make_problem())
    assert list(folder.iterdir()) == []


def test_serving_does_not_load_the_solver():
    script = "import sys, coe.engine, coe.router, coe.routers.map, coe.services.gateway\n"
    script += "assert 'pulp' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_map_that_cbc_misses_after_its_preprocessing_is_found():
    problem = MapProblem(
        value=np.array(
            [
                [1.0, 0.25, 0.75, 1.0],
                [0.875, 0.875, 0.875, 0.625],
                [0.875, 1.0, 0.25, 0.125],
                [0.25, 0.75, 0.875, 0.5],
            ]
        ),
        shares=np.array([2, 4, 4, 1]) / 11,
        params_b=np.array([5.0, 4.0, 8.0, 8.0]),
        active_params_b=6.5,
        max_experts=4,
        energy_j=np.array(
            [
                [0.5, 0.875, 0.375, 0.875],
                [0.625, 0.75, 0.875, 0.25],
                [0.875, 0.25, 0.375, 0.375],
                [0.5, 0.5, 0.375, 0.25],
            ]
        ),
        max_energy_j=9 / 11,
        latency_ms=np.array(
            [
                [1.0, 0.125, 0.25, 0.125],
                [0.125, 0.5, 0.75, 0.125],
                [0.625, 0.75, 0.125, 0.25],
                [1.0, 0.375, 0.5, 0.375],
            ]
        ),
        max_latency_ms=np.array([0.234375, 1.0, 0.5625, 0.921875]),
    )
    found = solve_map(problem)
    # by enumeration; with preprocessing CBC 2.10.3 calls 0.534 optimal
    assert found.value == pytest.approx((2 * 1.0 + 4 * 0.875 + 4 * 0.25 + 0.75) / 11)
    assert found.assignment == (3, 1, 2, 1)

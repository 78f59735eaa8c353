"""Placements small enough to work out in the head."""

from dataclasses import replace

import numpy as np
import pytest

from coe.optimizer.place import place
from coe.optimizer.placement import (
    Bill,
    Placement,
    PlacementProblem,
    bill,
    broken,
    busy_slots,
    busy_turns,
    memory_gb,
    tidied,
)

NEAR, FAR = 0, 1
SMALL, LARGE = 0, 1


def make_problem(**changes):
    """A small and a large expert; a near node with room for one of them, a far one for both."""
    problem = PlacementProblem(
        rate_per_s=np.array([2.0, 1.0]),
        expert_gb=np.array([4.0, 8.0]),
        node_gb=np.array([8.0, 16.0]),
        slots=np.array([4.0, 4.0]),
        cost=np.array([[100.0, 300.0], [150.0, 500.0]]),
        busy_s=np.full((2, 2), 0.5),
        switch_s=np.array([[2.0, 4.0], [np.inf, np.inf]]),
    )
    return replace(problem, **changes)


def chosen(found):
    """Nodes that each expert is answered from."""
    return [np.flatnonzero(column).tolist() for column in found.placement.share.T]


@pytest.mark.parametrize("method", ["auto", "milp", "milp-highs", "greedy"])
def test_the_scarce_node_goes_to_whom_it_saves_most(method):
    # near saves the small expert 2 * 50, the large one 1 * 200
    found = place(make_problem(), method)
    assert (found.status, chosen(found)) == ("optimal", [[FAR], [NEAR]])
    assert found.cost == Bill(answers=2 * 150 + 300)
    assert found.gap == 0


def test_an_expert_is_divided_where_one_node_has_too_few_slots():
    found = place(make_problem(node_gb=np.array([12.0, 16.0]), slots=np.array([0.75, 4.0])))
    # of 1.5 busy slots the near node has half: all of the large expert, a quarter of the small
    assert found.placement.share[NEAR] == pytest.approx([0.25, 1.0])
    assert busy_slots(make_problem(), found.placement) == pytest.approx([0.75, 0.75])


def test_on_demand_experts_take_turns_in_one_room():
    alone = make_problem(rate_per_s=np.array([0.01, 0.02]), node_gb=np.array([8.0, 0.0]))
    found = place(alone)
    assert found.status == "optimal"
    assert not found.placement.resident.any()
    assert found.placement.on_demand[NEAR].all()
    # 0.01 * (100 + 2000) + 0.02 * (300 + 4000)
    assert found.cost == Bill(answers=0.01 * 100 + 0.02 * 300, loading=0.01 * 2000 + 0.02 * 4000)
    assert memory_gb(alone, found.placement).tolist() == [8.0, 0.0]
    assert busy_turns(alone, found.placement)[NEAR] == pytest.approx(0.01 * 2.5 + 0.02 * 4.5)
    # so often asked that loading would take more than all of the time
    busy = replace(alone, rate_per_s=np.array([0.2, 0.2]))
    assert place(busy).status == "infeasible"


def test_experts_that_answer_together_come_together_at_a_price():
    pair = np.array([[0.0, 0.5], [0.5, 0.0]])
    apart = place(make_problem(together=pair, apart_cost=100.0))
    assert chosen(apart) == [[FAR], [NEAR]]
    assert apart.cost == Bill(answers=600.0, apart=50.0)
    united = place(make_problem(together=pair, apart_cost=500.0))
    assert chosen(united) == [[FAR], [FAR]]
    assert united.cost == Bill(answers=2 * 150 + 500)


def test_copies_are_kept_even_where_nothing_is_answered_from_them():
    found = place(make_problem(copies=np.array([2.0, 1.0]), node_gb=np.array([12.0, 16.0])))
    assert (found.placement.resident | found.placement.on_demand)[:, SMALL].all()
    assert chosen(found) == [[NEAR], [NEAR]]


def test_an_expert_without_requests_has_a_place():
    found = place(make_problem(rate_per_s=np.zeros(2)))
    assert found.placement.share.sum(axis=0) == pytest.approx([1.0, 1.0])
    assert found.cost.total == 0


@pytest.mark.parametrize("method", ["milp", "milp-highs", "greedy"])
def test_too_little_memory_names_what_would_do(method):
    found = place(make_problem(node_gb=np.array([3.0, 9.0]), switch_s=None), method)
    assert (found.status, found.placement) == ("infeasible", None)
    # far could hold both; near the large one, or the small one beside the large one on far
    assert found.needed["node_gb[0]"] == pytest.approx(4.0)
    assert found.needed["node_gb[1]"] == pytest.approx(12.0)
    assert found.needed["slots[0]"] is None
    assert found.homeless == ()


def test_who_fits_nowhere_is_named():
    found = place(make_problem(node_gb=np.array([7.0, 7.0])))
    assert (found.status, found.homeless) == ("infeasible", (LARGE,))
    nowhere = place(make_problem(allowed=np.array([[True, False], [True, False]])))
    assert (nowhere.homeless, set(nowhere.needed.values())) == ((LARGE,), {None})


def test_a_total_equal_to_its_limit_fits():
    tight = make_problem(node_gb=np.array([0.0, 12.0]), slots=np.array([0.0, 1.5]))
    assert place(tight, "milp").status == "optimal"
    assert place(tight, "greedy").status == "optimal"


def test_everything_that_is_broken_is_named():
    problem = make_problem(node_gb=np.array([3.0, 9.0]), slots=np.array([4.0, 1.0]))
    both = np.array([[False, False], [True, True]])
    nobody = np.zeros((2, 2), dtype=bool)
    share = np.array([[0.0, 0.0], [1.0, 1.0]])
    assert broken(problem, Placement(both, nobody, share)) == ("node_gb[1]", "slots[1]")
    assert broken(problem, Placement(nobody, nobody, share)) == (
        "slots[1]",
        "expert[0]",
        "expert[1]",
    )


def test_idle_places_are_given_up_but_for_copies():
    problem = make_problem()
    everywhere = Placement(
        np.ones((2, 2), dtype=bool),
        np.zeros((2, 2), dtype=bool),
        np.array([[1.0, 0.0], [0.0, 1.0]]),
    )
    kept = tidied(problem, everywhere)
    assert kept.resident.tolist() == [[True, False], [False, True]]
    two = tidied(replace(problem, copies=np.array([1.0, 2.0])), everywhere)
    assert two.resident.tolist() == [[True, True], [False, True]]
    assert bill(problem, kept) == bill(problem, everywhere)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"cost": np.zeros((0, 2))}, "cost"),
        ({"rate_per_s": np.array([1.0])}, "rate_per_s"),
        ({"expert_gb": np.array([1.0, -1.0])}, "expert_gb"),
        ({"node_gb": np.array([1.0, np.nan])}, "node_gb"),
        ({"slots": np.array([1.0])}, "slots"),
        ({"busy_s": np.full((2, 2), np.inf)}, "busy_s"),
        ({"switch_s": np.full((2, 1), 1.0)}, "switch_s"),
        ({"allowed": np.ones((2, 2))}, "allowed"),
        ({"copies": np.array([0.0, 1.0])}, "copies"),
        ({"copies": np.array([1.5, 1.0])}, "copies"),
        ({"together": np.array([[0.0, 1.0], [0.0, 0.0]])}, "together"),
        ({"together": np.eye(2)}, "together"),
        ({"miss": 1.5}, "miss"),
    ],
)
def test_a_wrong_field_is_named(changes, named):
    with pytest.raises(ValueError, match=named):
        make_problem(**changes)


@pytest.mark.parametrize(
    "options", [{"method": "magic"}, {"time_limit_s": 0.0}, {"time_limit_s": float("nan")}]
)
def test_a_wrong_option_is_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        place(make_problem(), **options)

"""Programs that solvers have trouble with, small enough to see what is right."""

import pulp
import pytest

from coe.errors import CoeError
from coe.optimizer.branch_and_cut import run


def no_two_fit(room):
    """Two categories and two experts: only both together keep in time, and both need room."""
    lp = pulp.LpProblem("map", pulp.LpMinimize)
    names = ("x0_0", "x0_1", "x1_0", "y0", "y1")
    a, b, c, first, second = (lp.add_variable(name, 0, 1, "Binary") for name in names)
    lp.addConstraint(a + b == 1)
    lp.addConstraint(c == 1)
    for used, there in ((a, first), (b, second), (c, first)):
        lp.addConstraint(used <= there)
    lp.addConstraint(0.449438201798 * first + 0.629213482517 * second <= room)
    lp.addConstraint(0.7999999992 * a + 0.15999999984 * b + 0.63999999936 * c <= 1)
    lp.setObjective(0 * a + 0 * b + 6e5 * c)
    return lp


@pytest.mark.parametrize("solver", ["cbc", "highs"])
def test_what_only_cuts_show_to_be_infeasible_is_infeasible(solver):
    # CBC 2.10.3 without preprocessing ends here with a segmentation fault
    status, _ = run(no_two_fit(1), None, solver)
    assert status == "infeasible"


@pytest.mark.parametrize("solver", ["cbc", "highs"])
def test_with_room_for_both_it_is_solved(solver):
    lp = no_two_fit(1.1)
    status, bound = run(lp, None, solver)
    assert status == "optimal"
    assert lp.objective.value() == pytest.approx(6e5)
    assert bound <= 6e5 + 1e-3


@pytest.mark.parametrize("ending", ["kill -SEGV $$", "exit 0"])
def test_a_crash_or_no_solution_is_tried_once_more(tmp_path, monkeypatch, ending):
    program, runs = tmp_path / "cbc", tmp_path / "runs"
    program.write_text(f"#!/bin/sh\necho run >> {runs}\n{ending}\n")
    program.chmod(0o755)
    monkeypatch.setattr(pulp.PULP_CBC_CMD, "pulp_cbc_path", str(program))
    with pytest.raises(CoeError, match="failed in"):
        run(no_two_fit(1), None)
    assert len(runs.read_text().splitlines()) == 2


def test_a_program_that_is_not_there_is_not_tried_again(tmp_path, monkeypatch):
    monkeypatch.setattr(pulp.PULP_CBC_CMD, "pulp_cbc_path", str(tmp_path / "absent"))
    with pytest.raises(CoeError, match="cannot be executed") as raised:
        run(no_two_fit(1), None)
    # raised while no other error was handled: the first run's, not a second one's
    assert raised.value.__context__ is None
